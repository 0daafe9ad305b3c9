"""The command line: one thin command per stage, and what a user runs by hand.

Start-up imports neither torch nor zarr nor Dask: each command imports what it needs.
"""

from __future__ import annotations

import sys

from volsam.errors import VolsamError


def main() -> None:
    """Entry point: what the user can mend becomes one sentence and exit code 1.

    A wrong option is exit code 2 with the usage, an interruption 130; faults of ours keep their
    traceback.
    """
    from volsam.cli.app import app

    try:
        app()
    except (VolsamError, OSError, MemoryError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        sys.exit(1)


def sentence(error: BaseException) -> str:
    """What a user is told of an error that is not a fault of ours."""
    if isinstance(error, MemoryError):
        return "Memory ran out; lower compute.batch, compute.block_tiles or tiles.size."
    if isinstance(error, OSError):
        where = error.filename or "a file or the network"
        return f"Cannot use {where} ({error.strerror or error}); mend that and try again."
    return str(error)
