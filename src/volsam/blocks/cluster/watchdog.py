"""Ends a driver's worker jobs when the driver dies: ``python -m volsam.blocks.cluster.watchdog``.

Invariants
----------
- It reads from a pipe that only the driver holds: the end of the pipe is the end of the driver,
  however that came.
- It lives in a session of its own and ignores the signals that end the driver, so that it acts
  in the seconds between a batch system's SIGTERM and SIGKILL.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def watchdog(kind: str, name: str) -> Iterator[None]:
    """Watch over this process while the context is open."""
    from volsam.blocks.cluster.batch import clean_environment

    process = subprocess.Popen(
        [sys.executable, "-m", "volsam.blocks.cluster.watchdog", kind, name],
        stdin=subprocess.PIPE,
        start_new_session=True,
        env=clean_environment(),
    )
    assert process.stdin is not None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            process.stdin.write(b"done\n")
            process.stdin.close()
        process.wait()


def main() -> None:
    """Wait for the driver's word or death."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    from volsam.blocks.cluster.batch import cancel_jobs, living_jobs

    kind, name = sys.argv[1:3]
    if sys.stdin.readline():
        return
    cancel_jobs(kind, name)
    # One that was being submitted when the driver died comes to light a moment later, and the batch
    # system may be away.
    quiet = 0
    for _ in range(3600):
        signal.sigtimedwait([], 1.0)
        if living_jobs(kind, name) == set():
            quiet += 1
            if quiet == 20:
                return
        else:
            quiet = 0
            cancel_jobs(kind, name)


if __name__ == "__main__":
    main()
