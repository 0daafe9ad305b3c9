"""Linking wide fields: stage `link` on many objects in few frames, with one worker and with two.

Points in 3D, as in `linking_scale`; ``hard`` ones move three times as far, divide four times as often,
and a tenth is missed, a tenth false. Tables of such points take the place of what the stages before left
of a small sequence. Each row is a run in a process of its own, and all rows of the same objects must have
the same lineage, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile

from benchmarks.common import table
from volsam.blocks.ledger import read, record_path
from volsam.blocks.runner import run_stage
from volsam.blocks.stage import Job
from volsam.config import validate
from volsam.demo.cloud import Swarm, swarm
from volsam.stages import stage_class

KINDS = {
    "easy": Swarm(),
    "hard": Swarm(step=0.15, missed=0.1, false=0.1, rate=0.02),
}
FIELDS = (("easy", 10_000, 5), ("hard", 10_000, 5), ("hard", 50_000, 10), ("easy", 50_000, 20))
BEFORE = ("ingest", "plan", "number", "label", "measure", "observe")


def main(folder: Path) -> str:
    """Measure all fields."""
    rows = []
    for kind, points, frames in FIELDS:
        place = folder / f"{kind}-{points}-{frames}"
        shutil.rmtree(place, ignore_errors=True)
        objects = prepare(place, replace(KINDS[kind], points=points), frames)
        lineages = set()
        for workers in (1, 2):
            found = _python(str(place), str(frames), str(workers))
            print(kind, found, file=sys.stderr, flush=True)
            lineages.add(found["lineage"])
            figures = (f"{found[name]:.1f}" for name in ("gains", "choice", "cpu", "wall"))
            rows.append((kind, f"{objects:,}", frames, workers, *figures, f"{found['peak']:.0f}"))
        assert len(lineages) == 1, "workers are part of the lineage"
    header = ("", "objects", "frames", "workers", "CPU s: gains", "choice", "in all", "wall s",
              "MiB of a worker")  # fmt: skip
    return table(header, rows)


def prepare(folder: Path, kind: Swarm, frames: int) -> int:
    """Tables that stage `link` reads; returns how many objects they hold."""
    folder.mkdir(parents=True)
    labels = np.zeros((frames, 64, 64), np.uint16)
    labels[:, 20:30, 20:30] = 1
    for name in ("labels", "image"):
        tifffile.imwrite(folder / f"{name}.tif", labels, photometric="minisblack")
    for stage in BEFORE:
        run_stage(stage_class(stage)(job(folder, frames)), cluster="inline")
    paths = job(folder, frames).paths
    metadata = pq.read_schema(paths.objects).metadata
    unit = metadata[b"unit"].decode()
    cloud = swarm(kind, frames)
    n = len(cloud.frame)
    columns = {
        "id": np.arange(1, n + 1, dtype=np.uint64),
        "frame": cloud.frame,
        "volume": np.ones(n),
    }
    columns |= {f"centroid_{axis}_{unit}": cloud.position[:, k] for k, axis in enumerate("zyx")}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), paths.objects)
    for path in paths.tables("observe").iterdir():
        pq.write_table(pq.read_table(path).slice(0, 0), path)
    return n


def job(folder: Path, frames: int) -> Job:
    """The sequence, of one window."""
    sample = {
        "image": str(folder / "image.tif"),
        "segmentation": str(folder / "labels.tif"),
        "axes": "tyx",
        "voxel_size": {"y": 1.0, "x": 1.0},
    }
    track = {"kind": "points", "window": frames}
    data = {"results": str(folder / "r"), "task": "track", "track": track, "samples": {"a": sample}}
    return Job(validate(data), "a")


def _python(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.linking_wide", *arguments]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def measure(folder: Path, frames: int, workers: int) -> dict[str, Any]:
    """Run the stage from its beginning."""
    task = job(folder, frames)
    paths = task.paths
    for path in (paths.ledger("link"), paths.marker("link"), record_path(paths, "link")):
        path.unlink(missing_ok=True)
    began, started = _cpu(), time.perf_counter()
    run_stage(stage_class("link")(task), cluster="local", workers=workers)
    wall, cpu = time.perf_counter() - started, _cpu() - began
    lines = read(paths.ledger("link"))[1]
    phases = [
        sum(line["cpu_seconds"] for block, line in lines.items() if block.startswith(f"{phase}:"))
        for phase in (0, 1)
    ]
    return {
        "gains": phases[0],
        "choice": phases[1],
        "cpu": cpu,
        "wall": wall,
        "peak": max(line["peak_mb"] for line in lines.values()),
        "load": os.getloadavg()[0],
        "lineage": hashlib.sha256(paths.lineage.read_bytes()).hexdigest(),
    }


def _cpu() -> float:
    """CPU seconds of this process and of its workers that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
