"""What is asked of a batch system: which jobs of a name are there, and end them.

Invariants
----------
- Every worker job of a run has the run's unique name, so that whoever takes over needs the name only.
- Commands start from an environment without the surrounding job's variables: sbatch called inside a
  job would pass them on (its GPUs to CPU workers, memory settings that exclude each other).
- No import of Dask here: the watchdog uses this and must start at once.
"""

from __future__ import annotations

import getpass
import os
import subprocess
import time

from volsam.errors import VolsamError

LEAKY_PREFIXES = ("SLURM_", "SBATCH_", "SRUN_", "LSB_", "LS_JOB", "PMI_", "PMIX_")
LEAKY_NAMES = frozenset(
    {
        *("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK"),
        *("TMPDIR", "TMP", "TEMP", "TEMPDIR"),  # Snakemake sets them for the driver's node
    }
)
LIVING = ("PEND", "RUN", "PSUSP", "USUSP", "SSUSP", "WAIT", "PROV", "UNKWN")
TIMEOUT = 60.0


class LeftBehind(VolsamError):
    """Worker jobs are, or may be, still there: the lease that names them stays."""


def clean_environment() -> dict[str, str]:
    """The environment without what describes the job that this process runs in."""
    return {
        name: value
        for name, value in os.environ.items()
        if name == "SLURM_CONF" or not (name.startswith(LEAKY_PREFIXES) or name in LEAKY_NAMES)
    }


def _ask(*command: str) -> tuple[int, str, str]:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, env=clean_environment()
        )
    except FileNotFoundError:
        raise VolsamError(
            f"There is no command {command[0]} on this machine; start the run where jobs can be "
            "submitted, or use profiles/local."
        ) from None
    except subprocess.TimeoutExpired:
        return 124, "", f"{command[0]} did not answer in {TIMEOUT:g} s"
    return done.returncode, done.stdout, done.stderr.strip()


def living_jobs(kind: str, name: str) -> set[str] | None:
    """Ids of the jobs of this name that wait or run; None if the batch system does not answer."""
    if kind == "slurm":
        code, out, _ = _ask("squeue", "-h", "-u", getpass.getuser(), "-n", name, "-o", "%A")
        return set(out.split()) if code == 0 else None
    code, out, error = _ask("bjobs", "-noheader", "-o", "jobid stat", "-J", name)
    if code and "found" not in error.lower():
        return None
    rows = [line.split() for line in out.splitlines()]
    return {row[0] for row in rows if len(row) == 2 and row[1] in LIVING}


def cancel_jobs(kind: str, name: str) -> None:
    """Ask for the end of all jobs of this name."""
    if kind == "slurm":
        _ask("scancel", "-u", getpass.getuser(), "-n", name)
    elif jobs := living_jobs(kind, name):
        _ask("bkill", *sorted(jobs))


def end_jobs(kind: str, name: str, patience: float = 600.0) -> int:
    """Cancel all jobs of this name and wait until none is left.

    Returns
    -------
    int
        How many there were.

    Raises
    ------
    LeftBehind
        If some are still there after `patience` seconds, or the batch system does not answer.
    """
    deadline = time.monotonic() + patience
    found: set[str] = set()
    while (jobs := living_jobs(kind, name)) != set():
        found |= jobs or set()
        if time.monotonic() > deadline:
            raise LeftBehind(
                f"Worker jobs named {name} do not end or the batch system does not answer; cancel "
                "them by hand and run the same command again."
            )
        cancel_jobs(kind, name)
        time.sleep(1.0)
    return len(found)
