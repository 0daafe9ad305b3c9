"""The lease: who works on a sample's results, so that two runs never write at once.

Invariants
----------
- The lease is a file that exists while it is held and names its holder (host, process, start). It is
  taken under a file lock, so that of several runs that find it free or stale one gets it.
- The holder renews it every few seconds. It is stale, and may be taken over, when its process is gone
  (same host) or it was not renewed for `EXPIRY` seconds (other host).
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

from volsam.errors import VolsamError
from volsam.paths import write_json
from volsam.volume.store import writing

RENEWAL = 5.0
EXPIRY = 60.0


def holder(path: Path) -> dict[str, Any] | None:
    """Who holds the lease, or None if nobody living does."""
    try:
        entry: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        age = time.time() - path.stat().st_mtime
        host = entry["host"]
    except (OSError, ValueError, KeyError, TypeError):
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


@contextlib.contextmanager
def lease(path: Path, purpose: str, *, wait: float = 24 * 3600.0) -> Iterator[None]:
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
        If another run still holds the lease after `wait` seconds.
    """
    token = uuid.uuid4().hex
    deadline = time.monotonic() + wait
    told = False
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    while not _acquire(path, purpose, token):
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
    stop = threading.Event()
    renewal = threading.Thread(target=_renew, args=(path, stop), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        stop.set()
        renewal.join()
        if _token(path) == token:
            path.unlink(missing_ok=True)


def _acquire(path: Path, purpose: str, token: str) -> bool:
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
    with writing(path), path.with_name(f"{path.name}.guard").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if holder(path) is not None:
            return False
        write_json(path, entry)
        return True


def _token(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["token"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _renew(path: Path, stop: threading.Event) -> None:
    while not stop.wait(RENEWAL):
        with contextlib.suppress(OSError):
            os.utime(path)
