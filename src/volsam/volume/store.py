"""Zarr groups of our own: how they are told from a user's, and what a failed write says.

Invariants
----------
- Nothing that lacks our mark is replaced or removed.
- A fault of the disk is one sentence that names the store.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from volsam import __version__
from volsam.errors import VolsamError

ZARR_FORMAT: dict[str, Any] = {"0.4": 2, "0.5": 3}
OURS = "volsam"  # attribute of every image and label group that we make

_GROUP_FILES = frozenset({"zarr.json", ".zgroup", ".zattrs"})


def mark(provenance: dict[str, Any] | None = None) -> dict[str, Any]:
    """Attribute by which we know a group as ours, with what it was made from."""
    return {OURS: {"version": __version__, **(provenance or {})}}


def check_own(folder: Path) -> None:
    """Refuse to replace a folder that we did not make.

    A group without any content is ours to take: that is what a kill during its creation leaves.
    """
    import zarr

    if not folder.exists():
        return
    try:
        group = zarr.open_group(folder, mode="r", use_consolidated=False)
        ours = OURS in group.attrs
    except Exception:  # torn metadata, or something that is no group
        ours = False
    if not ours and not (folder.is_dir() and _is_bare(folder)):
        raise VolsamError(
            f"{folder} exists and was not made by volsam; move it away, or choose other results."
        )


def _is_bare(folder: Path) -> bool:
    """Nothing in it but the metadata of one group, which name no image."""
    for entry in folder.iterdir():
        if entry.name.endswith(".partial"):
            continue
        if entry.name not in _GROUP_FILES or "multiscales" in entry.read_text(errors="replace"):
            return False
    return True


@contextmanager
def writing(store: object) -> Iterator[None]:
    """Turn faults of the disk during a write into one sentence."""
    try:
        yield
    except OSError as error:
        raise VolsamError(
            f"Cannot write {store} ({error.strerror or error}); choose a folder you may write to, "
            f"with room on its disk."
        ) from error


def discard(folder: Path) -> None:
    """Remove a folder of ours; a kill on the way leaves it under a name that the next call removes.

    Removing it in place could delete the mark first and leave a folder that nobody owns.
    """
    doomed = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(doomed, ignore_errors=True)
    if folder.exists():
        folder.rename(doomed)
        shutil.rmtree(doomed)


def sweep_partial(store: str | Path) -> int:
    """Remove what a killed process left unfinished in a local store; returns how many files.

    zarr writes ``<key>.<id>.partial`` and renames it. Only for a store that nobody is writing.
    """
    partials = list(Path(store).rglob("*.partial"))
    for partial in partials:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
    return len(partials)
