"""Slice merging alone, array to array, on real label slices: ours beside micro-sam's.

The 20 slices of 2D neurite profiles, mirrored in z to `SLICES` slices. Limits: time <= 0.5 x the peer's,
memory flat. Both of our methods are timed; reading and writing Zarr is reported apart.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.common import REPOSITORY, data, peer, table

SLICES = 120


def main(folder: Path) -> str:
    """Measure, and return the table."""
    slices = tifffile.imread(data("em_vnc_sstem/neurites_2d_instances.tif")).astype(np.uint32)
    there_and_back = np.concatenate([slices, slices[::-1]])
    labels = np.concatenate([there_and_back] * (SLICES // len(there_and_back)))
    step = int(slices.max()) + 1
    for z, plane in enumerate(labels):
        plane[plane > 0] += z * step
    path = folder / "slices.npy"
    np.save(path, labels)
    script = str(REPOSITORY / "benchmarks" / "peer" / "merge_slices.py")
    theirs = _json([peer(), script, str(path), str(folder / "peer_merged.npy")])
    rows = [("micro-sam", f"{theirs['cpu']:.2f}", "1.00", f"{theirs['growth_mb']:.0f}")]
    for method, store in (("micro-sam", "array"), ("volsam", "array"), ("volsam", "zarr")):
        ours = _json([sys.executable, "-m", "benchmarks.merging", str(path), method, store])
        ratio = ours["cpu"] / theirs["cpu"]
        name = f"volsam, method {method}, {store}"
        rows.append((name, f"{ours['cpu']:.2f}", f"{ratio:.2f}", f"{ours['growth_mb']:.0f}"))
    title = (
        f"{len(labels)} slices of {labels.shape[1:]} pixels, {labels.nbytes / 2**20:.0f} MiB.\n\n"
    )
    return title + table(("", "CPU s", "ratio", "memory growth, MiB"), rows)


def _json(command: list[str]) -> dict[str, float]:
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
    result: dict[str, float] = json.loads(output.stdout.splitlines()[-1])
    return result


def _merge(path: Path, method: str, store: str) -> dict[str, float]:
    """One of our merges, in a process of its own."""
    import zarr

    from volsam.stitch.slices import merge_slices

    labels = np.load(path)
    out = np.zeros(labels.shape, np.uint64)
    out.fill(1)  # the pages of the result are not the merge's to pay for, as little as the input's
    if store == "zarr":
        source, target = path.with_suffix(".in.zarr"), path.with_suffix(".out.zarr")
        chunks = (1, *labels.shape[1:])
        stored = zarr.create_array(source, data=labels, chunks=chunks, overwrite=True)
        made = zarr.create_array(
            target, shape=labels.shape, dtype="u8", chunks=chunks, overwrite=True
        )
        del labels
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    if store == "zarr":
        merge_slices(stored, made, method=method)  # type: ignore[arg-type]
    else:
        merge_slices(labels, out, method=method)  # type: ignore[arg-type]
    seconds = time.process_time() - started
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"cpu": seconds, "growth_mb": growth / 1024}


if __name__ == "__main__":
    print(json.dumps(_merge(Path(sys.argv[1]), sys.argv[2], sys.argv[3])))
