"""The state of a running stage, for `volsam status` and the report: who works, on what, how far.

Invariants
----------
- The ledger is the truth about finished blocks; the state adds what it cannot say: blocks in flight,
  reasons of failures, workers, and how the stage ended.
- Written by the driver that holds the lease, every few seconds and at the end. A state that says
  ``running`` counts only while the lease is held.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from typing import Any

from volsam.errors import VolsamError
from volsam.paths import SamplePaths, write_json

INTERVAL = 5.0


def read_state(paths: SamplePaths, stage: str) -> dict[str, Any]:
    """The last state of a stage; empty if it never ran."""
    try:
        state: dict[str, Any] = json.loads(paths.state(stage).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state


class State:
    """State of a stage while it runs; also says the progress on the error stream.

    Parameters
    ----------
    paths : SamplePaths
        Of the sample.
    stage : str
        Name of the stage.
    voxels : int or None
        Voxels that all blocks together cover, for the rate.
    """

    def __init__(self, paths: SamplePaths, stage: str, voxels: int | None = None) -> None:
        self._path, self._stage, self._voxels = paths.state(stage), stage, voxels
        self._started = self._said = self._written = time.monotonic()
        self._first = 0
        self._data: dict[str, Any] = {
            "stage": stage,
            "state": "running",
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": time.time(),
            "blocks": 0,
            "done": 0,
            "running": [],
            "failures": {},
        }

    def note(self, **facts: Any) -> None:
        """Add facts (dashboard, jobs, pool) and write."""
        self._data |= facts
        self._write()

    def begin(self, blocks: int, done: int) -> None:
        """Say how many blocks there are and how many earlier runs finished."""
        self._first = done
        self.note(blocks=blocks, done=done, first=done)
        if done:
            self._print(f"{done} of {blocks} blocks are done already")

    def step(self, count: int, running: list[str], failures: dict[str, list[str]]) -> None:
        """Count finished blocks; says and writes the state every few seconds.

        Parameters
        ----------
        count : int
            Blocks finished since the last call.
        running : list of str
            Blocks in flight.
        failures : dict of str to list of str
            Why blocks that are not done yet have to be tried again.
        """
        self._data["done"] += count
        self._data |= {"running": running, "failures": failures}
        now = time.monotonic()
        last = self._data["done"] == self._data["blocks"]
        if now - self._written > INTERVAL:
            self._write()
        if count and (last or now - self._said > (2.0 if now - self._started < 60 else 30.0)):
            self._said = now
            self._print(self._progress(now))

    def end(self, error: BaseException | None = None) -> None:
        """Write how the stage ended."""
        state = "done"
        if error:  # what is no Exception is a signal: nothing is wrong, somebody ended it
            state = "failed" if isinstance(error, Exception) else "stopped"
        self._data |= {"running": [], "ended": time.time(), "state": state}
        if state == "failed":
            said = isinstance(error, VolsamError)
            self._data["error"] = str(error) if said else f"{type(error).__name__}: {error}"
        with contextlib.suppress(VolsamError):  # a full disk must not hide the error itself
            self._write()

    def _progress(self, now: float) -> str:
        done, blocks = self._data["done"], self._data["blocks"]
        rate = (done - self._first) / max(now - self._started, 1e-9)
        left = (blocks - done) / rate if rate else float("inf")
        voxels = f", {rate * self._voxels / blocks:.3g} voxels/s" if self._voxels else ""
        return f"{done}/{blocks} blocks, {rate:.2f} blocks/s{voxels}, {duration(left)} left"

    def _print(self, text: str) -> None:
        print(f"{self._stage}: {text}", file=sys.stderr, flush=True)

    def _write(self) -> None:
        self._written = time.monotonic()
        write_json(self._path, self._data | {"updated": time.time()})


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds == float("inf"):
        return "unknown time"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
