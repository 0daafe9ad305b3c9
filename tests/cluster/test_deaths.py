"""Whatever dies: the run goes on by itself or by the same command again, to the same bytes.

For every kind of death: labels are byte-identical to an undisturbed run on one machine, no block with a
ledger line is computed again, and 60 s after the end no job of the run is in the queue. CI takes a
seeded third of the matrix (``VOLSAM_DEATHS=all`` takes all: ``make test-deaths``); each writes a line to
``VOLSAM_DEATHS_LOG``.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cloudpickle
import numpy as np
import psutil
import pytest
import scenes
from distributed import Client
from hpc import Run, wait_for, worker_processes
from slurm import Slurm

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

PATIENCE = 400.0


def cancel_worker(run: Run, slurm: Slurm) -> None:
    """`scancel` of a worker in mid-block."""
    slurm.call("scancel", slurm.workers()[0]["id"])


def cancel_driver(run: Run, slurm: Slurm) -> None:
    """`scancel` of the driver's job."""
    slurm.call("scancel", slurm.drivers()[0]["id"])


def kill_driver(run: Run, slurm: Slurm) -> None:
    """SIGKILL of the driver's process: only the watchdog is left to clear up."""
    run.driver().kill()


def kill_snakemake(run: Run, slurm: Slurm) -> None:
    """SIGKILL of Snakemake on the login node, then the same command again at once."""
    os.kill(run.processes[-1].pid, signal.SIGKILL)
    run.processes[-1].wait()
    run.start()


def worker_times_out(run: Run, slurm: Slurm) -> None:
    """A worker hangs until its walltime ends it."""
    job = slurm.workers()[0]["id"]
    slurm.call("scontrol", "update", f"JobId={job}", "TimeLimit=1")
    # Every worker hangs, or the other one would finish all blocks before the time is over.
    for process in worker_processes():
        process.send_signal(signal.SIGSTOP)
    wait_for(lambda: job not in {j["id"] for j in slurm.workers()}, 150)
    for process in worker_processes():
        process.send_signal(signal.SIGCONT)


def driver_times_out(run: Run, slurm: Slurm) -> None:
    """The driver hangs until its walltime ends it."""
    job = slurm.drivers()[0]["id"]
    slurm.call("scontrol", "update", f"JobId={job}", "TimeLimit=1")
    run.driver().send_signal(signal.SIGSTOP)
    wait_for(lambda: job not in {j["id"] for j in slurm.drivers()}, 150)


def worker_runs_out_of_memory(run: Run, slurm: Slurm) -> None:
    """A worker takes more memory than its job asked for, and SLURM ends it."""
    job = slurm.workers()[0]["id"]
    worker = next(p for p in worker_processes() if p.environ().get("SLURM_JOB_ID") == job)
    address = next(part for part in worker.cmdline() if part.startswith("tcp://"))
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with Client(address, set_as_default=False) as client:
        names = {info["id"]: where for where, info in client.scheduler_info(-1)["workers"].items()}
        mine = next(where for name, where in names.items() if name in worker.cmdline())
        client.run(take_memory, workers=[mine])
        wait_for(lambda: job not in {j["id"] for j in slurm.workers()}, 60)


def take_memory() -> None:
    """Hold three times what the worker's job may have, in a thread of the worker."""

    def hold() -> None:
        memory = np.ones(3 * 2**30, np.uint8)
        time.sleep(60)
        del memory

    threading.Thread(target=hold, daemon=True).start()


def node_of_workers_down(run: Run, slurm: Slurm) -> None:
    """The node of the workers goes DOWN, and comes back later."""
    down_for_a_while("gpu1", slurm)


def node_of_driver_down(run: Run, slurm: Slurm) -> None:
    """The node of the driver goes DOWN, and comes back later."""
    down_for_a_while(slurm.drivers()[0]["node"], slurm)


def down_for_a_while(node: str, slurm: Slurm) -> None:
    """Take a node away for 10 s."""
    slurm.call("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    time.sleep(10)
    with contextlib.suppress(subprocess.SubprocessError):  # it may have come back by itself
        slurm.call("scontrol", "update", f"NodeName={node}", "State=RESUME")


def controller_restarts(run: Run, slurm: Slurm) -> None:
    """slurmctld is killed and comes back 10 s later; a worker dies meanwhile."""
    slurm.kill("slurmctld")
    worker_processes()[0].kill()
    time.sleep(10)
    slurm.attend(20)


@dataclass(frozen=True)
class Death:
    """One row of the matrix: what happens, and how often the command may have to be given."""

    what: Callable[[Run, Slurm], None]
    starts: int = 1

    @property
    def name(self) -> str:
        return self.what.__name__


MATRIX = (
    Death(cancel_worker),
    Death(cancel_driver),
    Death(kill_driver),
    Death(kill_snakemake, starts=2),
    Death(worker_times_out),
    Death(driver_times_out),
    Death(worker_runs_out_of_memory),
    Death(node_of_workers_down),
    Death(node_of_driver_down),
    Death(controller_restarts),
)


def chosen() -> list[Death]:
    """The whole matrix, or a third that differs from commit to commit."""
    wanted = os.environ.get("VOLSAM_DEATHS", "")
    if wanted == "all":
        return list(MATRIX)
    if wanted:
        return [death for death in MATRIX if death.name in wanted.split(",")]
    seed = int(os.environ.get("VOLSAM_SEED", time.strftime("%Y%m%d")))
    return random.Random(seed).sample(MATRIX, 4)


@pytest.mark.parametrize("death", chosen(), ids=lambda death: death.name)
def test_death(death: Death, run: Run, cluster: Slurm, expected: dict[str, str]) -> None:
    run.start()
    run.reach(6)
    before = run.lines()
    assert len(before) < run.state()["blocks"]
    struck = time.monotonic()
    death.what(run, cluster)
    recorded = run.lines()
    starts = run.finish(starts=3, patience=PATIENCE)
    seconds = time.monotonic() - struck
    left = wait_for(lambda: not cluster.jobs(), 60)
    assert scenes.result_digest(run.paths) == expected
    after = run.lines()
    assert all(after[block] == line for block, line in {**before, **recorded}.items())
    assert starts <= death.starts
    assert not list(run.paths.folder.rglob("*.partial"))
    retried = [line["reasons"] for line in after.values() if line.get("retries")]
    note(
        f"{death.name}: {starts} start(s), {seconds:.0f} s to the end, queue empty after {left:.0f} s"
        f"; lost blocks: {retried}"
    )


def note(text: str) -> None:
    """Add a line to the log of the matrix."""
    print(text)
    if path := os.environ.get("VOLSAM_DEATHS_LOG"):
        with Path(path).open("a") as log:
            log.write(text + "\n")


def test_lost_lease_ends_the_workers_of_the_old_run(run: Run, cluster: Slurm) -> None:
    """A driver that slept through the loss of its lease writes nothing more, and leaves no job."""
    run.start()
    run.reach(4)
    old = run.driver()
    jobs = {job["id"] for job in cluster.workers()}
    old.send_signal(signal.SIGSTOP)
    lease = run.paths.work / "lease.json"
    # Taken over as another host would do it after a minute of silence.
    text = lease.read_text().replace('"host": "', '"host": "elsewhere-')
    lease.write_text(text)
    stale = time.time() - 120
    os.utime(lease, (stale, stale))
    run.start()
    assert wait_for(lambda: not jobs & {j["id"] for j in cluster.workers()}, 90) < 90
    done = run.lines()
    old.send_signal(signal.SIGCONT)
    wait_for(lambda: not old.is_running() or old.status() == psutil.STATUS_ZOMBIE, 60)
    run.processes[0].wait(timeout=PATIENCE)
    assert run.finish(starts=3, patience=PATIENCE)
    assert all(run.lines()[block] == line for block, line in done.items())
    wait_for(lambda: not cluster.jobs(), 60)
