"""The graph at scale: 5 million fragments with 15 million edges, most of them in one component.

Limit: 6 GiB. Fragments lie in a regular grid of slices and tiles; each overlaps its successor strongly or
hardly at all and two diagonal ones weakly, so that attractive edges percolate and one component spans
the volume, as in dense EM. ``VOLSAM_FRAGMENTS`` chooses another number.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.common import REPOSITORY, table

SLICES = 500
SIDE = 10  # fragments along the edge of a tile


def main(folder: Path) -> str:
    """Measure, and return the table."""
    wanted = int(float(os.environ.get("VOLSAM_FRAGMENTS", "5e6")))
    tiles = max(2, round((wanted / SLICES) ** 0.5 / SIDE))
    if not (folder / "2.parquet").exists():
        _write_edges(folder, tiles)
    command = [sys.executable, "-m", "benchmarks.stitching", str(folder), str(tiles)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
    result = json.loads(output.stdout.splitlines()[-1])
    return table(list(result), [list(result.values())])


def _write_edges(folder: Path, tiles: int) -> None:
    from volsam.stitch.overlaps import OVERLAP_DTYPE, to_table

    rng = np.random.default_rng(0)
    count = SLICES * (tiles * SIDE) ** 2
    ids = np.arange(count).reshape(SLICES, tiles, tiles, SIDE, SIDE)
    plane = ids.transpose(0, 1, 3, 2, 4).reshape(SLICES, tiles * SIDE, tiles * SIDE)
    pairs = (
        (plane[:-1], plane[1:], 0.85, (0.45, 0.95), (0.02, 0.4)),
        (plane[:-1, :-1], plane[1:, 1:], 0.12, (0.3, 0.7), (0.01, 0.25)),
        (plane[:-1, :, :-1], plane[1:, :, 1:], 0.12, (0.3, 0.7), (0.01, 0.25)),
    )
    for number, (u, v, share, strong, weak) in enumerate(pairs):
        rows = np.zeros(u.size, OVERLAP_DTYPE)
        rows["u"], rows["v"], rows["kind"] = u.ravel(), v.ravel(), 1
        rows["size_u"] = rows["size_v"] = 1000
        is_strong = rng.random(u.size) < share
        iou = np.where(is_strong, rng.uniform(*strong, u.size), rng.uniform(*weak, u.size))
        rows["overlap"] = 2000 * iou / (1 + iou)
        pq.write_table(to_table(rows), folder / f"{number}.parquet", row_group_size=2**18)


def _solve(folder: Path, tiles: int) -> dict[str, str]:
    from volsam.stitch.graph import Edges, Fragments
    from volsam.stitch.partition import partition

    started = time.process_time()
    counts = np.full((SLICES, tiles, tiles), SIDE**2)
    fragments = Fragments.from_counts(counts, np.full(counts.sum(), 1000, np.uint32))
    edges = Edges.from_parquet(sorted(folder.glob("*.parquet")), len(fragments))
    result = partition(fragments, edges)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "fragments": f"{len(fragments):,}",
        "edges": f"{len(edges):,}",
        "CPU s": f"{time.process_time() - started:.1f}",
        "peak memory, GiB": f"{peak:.2f}",
        "objects": f"{result.statistics.objects:,}",
    }


if __name__ == "__main__":
    print(json.dumps(_solve(Path(sys.argv[1]), int(sys.argv[2]))))
