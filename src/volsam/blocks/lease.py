"""The lease: who works on a sample's results, so that two runs never write at once.

Invariants
----------
- The lease is a file that exists while it is held and names its holder (host, process, start). It is
  taken under a file lock, so that of several runs that find it free or stale one gets it.
- The holder renews it every few seconds. It is stale, and may be taken over, when its process is gone
  (same host) or it was not renewed for `EXPIRY` seconds (other host; both times are the file system's).
- It names the worker jobs of its holder. Who takes it over ends these before doing anything else, and
  a holder that was taken over (it slept, its file system was away) writes nothing more.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from volsam.blocks.cluster.batch import LeftBehind, end_jobs
from volsam.errors import VolsamError
from volsam.paths import write_json
from volsam.volume.store import writing

RENEWAL = 5.0
EXPIRY = 60.0


def holder(path: Path, now: float | None = None) -> dict[str, Any] | None:
    """Who holds the lease, or None if nobody living does."""
    entry = _entry(path)
    try:
        age = (time.time() if now is None else now) - path.stat().st_mtime
        host = entry["host"]
    except (OSError, KeyError):
        return None
    if host == socket.gethostname():
        return entry if _alive(entry) else None
    return entry if age < EXPIRY else None


def _alive(entry: dict[str, Any]) -> bool:
    try:
        process = psutil.Process(entry["pid"])
        # A process id is reused after a reboot or wrap-around: the start time tells.
        return (
            abs(process.create_time() - entry["born"]) < 2.0
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.Error:
        return False


class Lease:
    """A held lease."""

    def __init__(self, path: Path, token: str) -> None:
        self.path, self.token = path, token
        self._lost = threading.Event()
        self._looked = time.monotonic()
        self._stop = threading.Event()
        self._renewal = threading.Thread(target=self._renew, daemon=True)

    @property
    def name(self) -> str:
        """Name of the holder's worker jobs."""
        return f"volsam-{self.token[:12]}"

    @property
    def lost(self) -> bool:
        """Whether another run took it over."""
        return self._lost.is_set()

    def check(self) -> None:
        """Raise if the lease was taken over.

        Raises
        ------
        VolsamError
            If another run holds it now.
        """
        if time.monotonic() - self._looked > 2 * RENEWAL:  # this process slept, the thread too
            self._look()
        if self.lost:
            raise VolsamError(
                f"Another run took over the results in {self.path.parent.parent} while this one did "
                "not answer; let that one finish."
            )

    def jobs(self, kind: str) -> None:
        """Note that there are, or may be, worker jobs of `name`."""
        self._look()
        self.check()
        write_json(self.path, _entry(self.path) | {"jobs": [[kind, self.name]]})

    def _renew(self) -> None:
        while not self._stop.wait(RENEWAL):
            self._look()
            if self.lost:
                return
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def _look(self) -> None:
        try:
            token = json.loads(self.path.read_text(encoding="utf-8"))["token"]
        except FileNotFoundError:
            token = None  # a successor has come and gone
        except (OSError, ValueError, KeyError, TypeError):
            return  # the file system is away for a moment
        if token != self.token:
            self._lost.set()
        self._looked = time.monotonic()

    def __enter__(self) -> Lease:
        self._renewal.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        self._renewal.join()
        # Worker jobs that were not ended must be found by the next run.
        left = kind is not None and issubclass(kind, LeftBehind)
        if not left and _entry(self.path).get("token") == self.token:
            self.path.unlink(missing_ok=True)


@contextlib.contextmanager
def lease(path: Path, purpose: str, *, wait: float = 24 * 3600.0) -> Iterator[Lease]:
    """Hold the lease `path` while the context is open.

    Parameters
    ----------
    path : Path
        The lease file.
    purpose : str
        Told to whoever has to wait.
    wait : float
        Seconds to wait for another holder before giving up.

    Raises
    ------
    VolsamError
        If another run still holds the lease after `wait` seconds, or worker jobs that a dead holder
        left behind cannot be ended.
    """
    token = uuid.uuid4().hex
    deadline = time.monotonic() + wait
    told = False
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    while (left := _acquire(path, purpose, token)) is None:
        other = holder(path)
        if other is not None:
            who = (
                f"{other['purpose']} (process {other['pid']} on {other['host']}, "
                f"since {other['since']})"
            )
            if time.monotonic() > deadline:
                raise VolsamError(
                    f"Results in {path.parent.parent} are in use by {who}; wait for it or stop it."
                )
            if not told:
                print(f"waiting for {who}", file=sys.stderr, flush=True)
                told = True
            time.sleep(min(1.0, max(0.05, wait / 20)))
    with Lease(path, token) as held:
        for kind, name in left:
            if count := end_jobs(kind, name):
                print(f"ended {count} worker jobs of a run that died", file=sys.stderr, flush=True)
        yield held


def _acquire(path: Path, purpose: str, token: str) -> list[list[str]] | None:
    """Worker jobs that a dead holder left behind; None if a living one holds the lease."""
    process = psutil.Process()
    entry = {
        "token": token,
        "purpose": purpose,
        "host": socket.gethostname(),
        "pid": process.pid,
        "born": process.create_time(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    # The kernel drops the guard when its holder dies, so a kill in here blocks nobody.
    guarded = path.with_name(f"{path.name}.guard")
    with writing(path), guarded.open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        os.utime(guarded)
        if holder(path, guarded.stat().st_mtime) is not None:
            return None
        # Kept in our entry until they are ended: we may die on the way, too.
        left = _jobs(path)
        write_json(path, entry | {"jobs": left})
        return left


def _jobs(path: Path) -> list[list[str]]:
    try:
        return [[str(kind), str(name)] for kind, name in _entry(path).get("jobs", [])]
    except (ValueError, TypeError):
        return []


def _entry(path: Path) -> dict[str, Any]:
    """What the lease file says; empty if it is missing, torn or no lease."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return entry if isinstance(entry, dict) else {}
