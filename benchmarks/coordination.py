"""What coordination costs: two workers of one run against two runs of one worker side by side.

The same blocks of work (the embedded model on noise, one thread each), once in one run with two Dask
workers, once halved into two independent runs that start together. Limit: at least 0.85 of the
throughput of the two.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.common import REPOSITORY, table
from volsam.blocks.cluster.pool import worker_environment

BLOCKS = 48
REPETITIONS = 3


def main(folder: Path) -> str:
    """Measure, and return the table; the order alternates, and the best of each counts."""
    together, apart = [], []
    for number in range(REPETITIONS):
        together.append(_seconds([_run(folder / f"both-{number}", BLOCKS, "local", 2)]))
        halves = [
            _run(folder / f"{half}-{number}", BLOCKS // 2, "inline", 1) for half in ("a", "b")
        ]
        apart.append(_seconds(halves))
    best = min(together), min(apart)
    rows = [
        ("two independent runs", f"{BLOCKS / best[1]:.2f}", "1.00"),
        ("one run, two workers", f"{BLOCKS / best[0]:.2f}", f"{best[1] / best[0]:.2f}"),
    ]
    return table(("", "blocks per second", "ratio"), rows)


def _run(folder: Path, blocks: int, cluster: str, workers: int) -> subprocess.Popen[str]:
    shutil.rmtree(folder, ignore_errors=True)
    arguments = [str(folder), str(blocks), cluster, str(workers)]
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.working", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **worker_environment(1)},
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _seconds(runs: list[subprocess.Popen[str]]) -> float:
    """Wall seconds of the blocks of runs that wait for each other's start."""
    for run in runs:
        assert run.stdout is not None
        run.stdout.readline()  # workers and model are there
    started = time.perf_counter()
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("go\n")
        run.stdin.flush()
    for run in runs:
        assert run.stdout is not None
        run.stdout.readline()
    seconds = time.perf_counter() - started
    for run in runs:
        run.communicate()
        if run.returncode:
            raise RuntimeError(f"{run.args} failed")
    return seconds
