"""CPU seconds, wall seconds and memory of a command with all its processes."""

from __future__ import annotations

import os
import resource
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Parameters
    ----------
    cpu : float
        CPU seconds, user and system, of the command and all processes it waited for.
    wall : float
        Seconds.
    peaks : dict
        Largest resident memory in MiB of each process, sampled, by "pid command".
    """

    cpu: float
    wall: float
    peaks: Mapping[str, float]

    @property
    def largest(self) -> float:
        """Largest resident memory of a single process, MiB."""
        return max(self.peaks.values(), default=0.0)


def run(command: Sequence[str], *, env: Mapping[str, str] | None = None, log: Path) -> Cost:
    """Run a command to its end; its output goes to `log`.

    Raises
    ------
    RuntimeError
        If it fails; the message has the end of its output.
    """
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}
        )
        peaks: dict[str, float] = {}
        stop = threading.Event()
        sampler = threading.Thread(target=_sample, args=(process.pid, peaks, stop))
        sampler.start()
        code = process.wait()
        stop.set()
        sampler.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code:
        tail = log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{' '.join(command)} failed with {code}:\n{tail}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(cpu, time.perf_counter() - started, peaks)


def _sample(root: int, peaks: dict[str, float], stop: threading.Event) -> None:
    while not stop.wait(0.2):
        try:
            processes = [psutil.Process(root), *psutil.Process(root).children(recursive=True)]
        except psutil.Error:
            continue
        for process in processes:
            try:
                # The kernel keeps the high-water mark, so that no peak falls between two samples.
                status = Path(f"/proc/{process.pid}/status").read_text()
                peak = next(int(s.split()[1]) for s in status.splitlines() if s.startswith("VmHWM"))
                name = f"{process.pid} {' '.join(process.cmdline())[:60]}"
            except (psutil.Error, OSError, StopIteration):
                continue
            peaks[name] = max(peaks.get(name, 0.0), peak / 1024)
