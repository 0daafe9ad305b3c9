"""Has an input changed? A digest of its metadata and content that no date enters.

Invariants
----------
- The fingerprint depends on names, sizes and bytes only; copying the input keeps it.
- File dates only decide whether the bytes need to be read again (`Fingerprint.stat`).
- What we or a viewer add to an OME-Zarr image (its ``labels`` group, consolidated metadata) is no
  part of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import xxhash

from volsam.errors import VolsamError

WHOLE_BELOW = 4 << 30  # bytes up to which everything is read
_SAMPLED_FILES = 4096
_PIECE = 1 << 20
_METADATA = frozenset({"zarr.json", ".zattrs", ".zgroup", ".zarray"})
_IGNORED = frozenset({".zmetadata", ".DS_Store", "Thumbs.db", ".snakemake_timestamp"})


class Fingerprint(NamedTuple):
    """What is kept of an input: `stat` tells cheaply if it was touched, `content` what it is."""

    stat: str
    content: str


def fingerprint(path: str | Path, known: tuple[str, str] | None = None) -> Fingerprint:
    """Digest of a file or folder.

    Up to 4 GiB every byte counts. Above, the names and sizes of all files, all Zarr metadata, and
    the first, middle and last MiB of at most 4096 evenly chosen files: a change elsewhere that
    keeps all sizes goes unnoticed.

    Parameters
    ----------
    path : path
    known : (stat, content), optional
        An earlier fingerprint: where sizes and dates are unchanged its content is returned unread.

    Raises
    ------
    VolsamError
        If the path is missing or cannot be read.
    """
    root = Path(path)
    try:
        files = sorted(_files(root))
        touched = xxhash.xxh3_128()
        total = 0
        for name, size, changed in files:
            touched.update(f"{name}\0{size}\0{changed}\n".encode("utf-8", "surrogateescape"))
            total += size
        stat = touched.hexdigest()
        if known is not None and known[0] == stat:
            return Fingerprint(*known)
        return Fingerprint(stat, _content(root, files, total))
    except FileNotFoundError:
        raise VolsamError(
            f"There is nothing at {path}, or it changes while it is read; check the path."
        ) from None
    except OSError as error:
        raise VolsamError(f"Cannot read {path}: {error.strerror or error}.") from None


def _files(root: Path) -> Iterator[tuple[str, int, int]]:
    """Relative name, size and time of change of every file that belongs to the input.

    Zarr metadata are small and rewritten by viewers: their content stands for their time.
    """
    if not root.is_dir():
        state = root.stat()
        yield "", state.st_size, state.st_mtime_ns
        return
    # The labels of an image are results, not part of it.
    image = any((root / name).exists() for name in _METADATA)
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                name = f"{folder}{entry.name}"
                if entry.is_dir():
                    if not (image and entry.name == "labels" and _beside_image(root / folder)):
                        folders.append(name + "/")
                elif entry.name not in _IGNORED and not entry.name.endswith(".partial"):
                    state = entry.stat()
                    if entry.name in _METADATA:
                        # Renewed consolidated metadata change size and date but not the image.
                        metadata = _metadata(root / name)
                        yield name, len(metadata), xxhash.xxh3_64_intdigest(metadata)
                    else:
                        yield name, state.st_size, state.st_mtime_ns


def _beside_image(group: Path) -> bool:
    """Whether a Zarr group holds an image, so that a ``labels`` folder in it holds its labels."""
    for name in ("zarr.json", ".zattrs"):
        try:
            text = (group / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if "multiscales" in text:
            return True
    return False


def _metadata(path: Path) -> bytes:
    """Zarr metadata in a canonical form, without what was consolidated into them."""
    raw = path.read_bytes()
    try:
        data = json.loads(raw)
        data.pop("consolidated_metadata", None)
        return json.dumps(data, sort_keys=True).encode()
    except (ValueError, AttributeError):
        return raw


def _content(root: Path, files: list[tuple[str, int, int]], total: int) -> str:
    digest = xxhash.xxh3_128()
    whole = total <= WHOLE_BELOW
    data = [name for name, _, _ in files if Path(name).name not in _METADATA]
    step = max(1, -(-len(data) // _SAMPLED_FILES))
    sampled = set(data[::step])
    for name, size, _ in files:
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
        path = root / name if name else root
        if Path(name).name in _METADATA:
            digest.update(_metadata(path))
        elif whole or name in sampled:
            with path.open("rb") as file:
                if whole or size <= 3 * _PIECE:
                    while piece := file.read(_PIECE):
                        digest.update(piece)
                    continue
                for offset in (0, (size - _PIECE) // 2, size - _PIECE):
                    file.seek(offset)
                    digest.update(file.read(_PIECE))
    return digest.hexdigest()
