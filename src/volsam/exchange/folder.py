"""Folders that appear under their name when they are complete.

Invariants
----------
- Under its final name a folder is whole or absent; a kill leaves hidden names beside it at most, which
  the next write or removal takes away.
- A folder is replaced only if it holds nothing that we would not have written.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from volsam.errors import VolsamError
from volsam.volume.store import writing


def replace_folder(
    folder: Path, write: Callable[[Path], Any], ours: Callable[[Path], bool]
) -> None:
    """Fill a new folder under a hidden name and rename it into place.

    Parameters
    ----------
    folder : Path
        Final name.
    write : callable
        Fills the empty folder it is given.
    ours : callable
        Whether a folder that is there already may be replaced.

    Raises
    ------
    VolsamError
        If something else lies there, or the disk is full or may not be written.
    """
    if folder.exists() and not (folder.is_dir() and ours(folder)):
        raise VolsamError(
            f"{folder} exists and holds other things; move it away, or choose another place."
        )
    new, old = _hidden(folder)
    with writing(folder):
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)
        new.mkdir(parents=True)
        try:
            write(new)
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def remove_folder(folder: Path, ours: Callable[[Path], bool]) -> None:
    """Take a folder of ours away, if it is there, and what a kill left beside it; others stay.

    Raises
    ------
    VolsamError
        If it may not be removed.
    """
    new, old = _hidden(folder)
    with writing(folder):
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)
        if folder.is_dir() and ours(folder):
            folder.rename(old)  # a part of it under its own name would be nobody's
            shutil.rmtree(old)


def _hidden(folder: Path) -> tuple[Path, Path]:
    """Names of a folder that is being written, and of one that is being removed."""
    return folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
