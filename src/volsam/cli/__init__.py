"""The command line: one thin command per stage, and what a user runs by hand.

Start-up imports neither torch nor zarr nor Dask: each command imports what it needs.
"""

from __future__ import annotations

import sys

from volsam.errors import VolsamError


def main() -> None:
    """Entry point: a `VolsamError` becomes one sentence and exit code 1."""
    from volsam.cli.app import app

    try:
        app(standalone_mode=False)
    except VolsamError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
