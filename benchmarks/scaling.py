"""The driver at scale: blocks that only wait, on many workers; time and memory per block must stay flat.

Limits: 3 ms of CPU time of the driver per block, and memory that does not grow from 1000 to 100 000.
Everything but the blocks is real: Dask's scheduler and client, ledger on disk, state, retries, lease. The
workers are Dask workers in a few processes (they only wait), so that 64 of them fit on one machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import REPOSITORY, table

SIZES = "1000,10000,100000"
WORKERS = 64
PROCESSES = 2
WAIT = 0.25  # seconds of a block: the driver's limit of 3 ms allows 83 workers at this pace


def main(folder: Path) -> str:
    """Measure, and return the table; ``VOLSAM_SCALING`` chooses the numbers of blocks."""
    sizes = [int(size) for size in os.environ.get("VOLSAM_SCALING", SIZES).split(",")]
    rows, curves = [], {}
    for size in sizes:
        work = folder / str(size)
        shutil.rmtree(work, ignore_errors=True)
        command = [sys.executable, "-m", "benchmarks.scaling", str(work), str(size)]
        subprocess.run(command, check=True, cwd=REPOSITORY)
        found = json.loads((work / "found.json").read_text())
        curves[size] = found["curve"]
        rows.append(
            (
                f"{size:,}",
                f"{found['wall']:.0f}",
                f"{found['busy']:.2f}",
                f"{1000 * found['cpu'] / size:.2f}",
                f"{found['first_mb']:.0f}",
                f"{found['last_mb']:.0f}",
                f"{found['ledger_mb']:.1f}",
                f"{found['status']:.2f}",
            )
        )
        print(rows[-1], flush=True)
    draw(curves, folder / "scaling.png")
    header = (
        *("blocks", "wall s", "workers busy", "driver CPU ms per block"),
        *("driver MiB after 1000", "driver MiB at the end", "ledger MiB", "status s"),
    )
    return table(header, rows)


def draw(curves: dict[int, list[list[float]]], path: Path) -> None:
    """Plot driver time per block and memory against blocks done."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for size, curve in curves.items():
        done, cpu, memory = zip(*curve, strict=True)
        steps = [
            (b, 1000 * (c - a_c) / (b - a))
            for (a, a_c), (b, c) in zip(
                zip(done, cpu, strict=True), zip(done[1:], cpu[1:], strict=True), strict=False
            )
            if b > a
        ]
        left.plot(*zip(*steps, strict=True), label=f"{size:,} blocks")
        right.plot(done, memory, label=f"{size:,} blocks")
    left.axhline(3, color="0.6", linestyle="--", linewidth=1)
    left.annotate("limit", (1, 3), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    left.set(xlabel="blocks done", ylabel="driver CPU per block, ms", xscale="log", ylim=(0, None))
    right.set(xlabel="blocks done", ylabel="driver memory, MiB", xscale="log", ylim=(0, None))
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False)
    figure.savefig(path, dpi=150)


def measure(folder: Path, count: int) -> dict[str, Any]:
    """Drive `count` blocks in this process."""
    from benchmarks.waiting import Waiting, run_on
    from volsam.blocks import runner
    from volsam.blocks.state import State
    from volsam.cli.status import statuses

    process = psutil.Process()
    curve: list[tuple[float, float, float]] = []
    busy: list[float] = []

    class Watched(State):
        """Notes time and memory as the state goes on."""

        def step(self, count: int, running: list[str], failures: dict[str, list[str]]) -> None:
            super().step(count, running, failures)
            done = self._data["done"]
            if not curve or done >= curve[-1][0] + max(100, total // 200) or done == total:
                used = process.cpu_times()
                memory = process.memory_info().rss / 2**20
                curve.append((done, used.user + used.system, memory))
                busy.append(len(running) / WORKERS)

    total = count
    stage = Waiting(folder / "results", count, WAIT)
    with many_workers() as workers:
        run_on(workers)
        runner.State = Watched  # type: ignore[misc]
        used = process.cpu_times()
        before = used.user + used.system
        started = time.perf_counter()
        runner.run_stage(stage)
        wall = time.perf_counter() - started
        used = process.cpu_times()
    asked = time.perf_counter()
    (status,) = statuses(folder / "results")
    assert status.done == count
    after_1000 = next(memory for done, _, memory in curve if done >= min(1000, count))
    return {
        "wall": wall,
        "busy": count * WAIT / WORKERS / wall,
        "cpu": used.user + used.system - before,
        "first_mb": after_1000,
        "last_mb": curve[-1][2],
        "ledger_mb": stage.paths.ledger(stage.name).stat().st_size / 2**20,
        "status": time.perf_counter() - asked,
        "curve": curve,
    }


@contextlib.contextmanager
def many_workers() -> Iterator[Any]:
    """`WORKERS` Dask workers in `PROCESSES` processes, as the runner sees them."""
    import dask
    from distributed import Client, LocalCluster

    from volsam.blocks.cluster.pool import Workers, dask_settings

    with (
        dask.config.set(dask_settings()),
        LocalCluster(
            n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        command = [sys.executable, "-m", "benchmarks.waiting", cluster.scheduler_address]
        command.append(str(WORKERS // PROCESSES))
        hosts = [subprocess.Popen(command, cwd=REPOSITORY) for _ in range(PROCESSES)]
        try:
            client.wait_for_workers(WORKERS, timeout=120)
            yield Workers(client, cluster, fixed=WORKERS)
        finally:
            for host in hosts:
                host.kill()
                host.wait()


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    (place / "found.json").write_text(json.dumps(measure(place, int(sys.argv[2]))))
