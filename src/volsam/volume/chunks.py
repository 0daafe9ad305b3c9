"""Which chunks of a Zarr array are on disk, and is one of them lost?

Zarr leaves out empty chunks, so one that is absent is no fault by itself: it is read as the fill value,
and the user is told. One is taken for lost where everything around it holds data up to the border:
nothing that a microscope sees ends at the borders of a chunk on all sides.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from volsam.errors import VolsamError
from volsam.volume.source import Volume

if TYPE_CHECKING:
    import zarr

LOOKED_AT = 100  # absent chunks, at most, whose surroundings are read


def check_chunks(volume: Volume) -> str | None:
    """Say how many chunks of a Zarr array are absent, and refuse it if one of them is lost.

    Shards count as chunks where there are any. The count is over all channels and time points, a lost
    chunk matters only in those that are read. Lists the array's folder once; reads the neighbours of at
    most `LOOKED_AT` chunks, evenly chosen among those that are absent alone.

    Returns
    -------
    str or None
        One sentence; None if all are there, or for other formats.

    Raises
    ------
    VolsamError
        If a chunk is absent whose neighbours along z, y and x, two or more, are all there and hold
        other values than the fill value in more than half of the voxels beside it.
    """
    if not volume.info.format.startswith(("ome-zarr", "zarr")):
        return None
    array: Any = volume.array
    present = stored_chunks(array)
    missing = present.size - int(np.count_nonzero(present))
    if not missing:
        return None
    alone = list(_alone(present, volume))
    for place in alone[:: math.ceil(len(alone) / LOOKED_AT) or 1]:
        if _among_data(array, place, volume.reach):
            bounds = ", ".join(
                f"{letter} {bound.start}–{bound.stop - 1}"
                for letter, bound in zip(volume.reach, _bounds(array, place), strict=True)
            )
            raise VolsamError(
                f"{volume.info.path} lacks the chunk of {bounds}, though all chunks beside it hold data "
                "up to its border, so it is probably lost; copy it again from its source, or write its "
                "values if it is empty."
            )
    return (
        f"{missing} of {present.size} chunks of {volume.info.path} are missing and read as "
        f"{array.fill_value}."
    )


def stored_chunks(array: zarr.Array) -> NDArray[np.bool_]:
    """Which chunks of an array on disk exist, by their place in the grid of chunks (or of shards).

    The array's own count compares every chunk with every file, hours for a million of them.
    """
    stored = array.shards or array.chunks
    present = np.zeros([math.ceil(n / s) for n, s in zip(array.shape, stored, strict=True)], bool)
    store: Any = array.store
    root = Path(store.root) / array.path
    for folder, _, names in os.walk(root):
        above = Path(folder).relative_to(root).parts
        for name in names:
            place = [part for part in re.split(r"[./]", "/".join((*above, name))) if part != "c"]
            if len(place) == present.ndim and all(part.isdecimal() for part in place):
                numbers = tuple(int(part) for part in place)
                if all(n < size for n, size in zip(numbers, present.shape, strict=True)):
                    present[numbers] = True
    return present


def _alone(present: NDArray[np.bool_], volume: Volume) -> Iterator[tuple[int, ...]]:
    """Absent chunks of what is read, all of whose neighbours in space, two or more, are there."""
    array: Any = volume.array
    stored = array.shards or array.chunks
    read = tuple(
        slice(part.start // size, math.ceil(part.stop / size))
        for part, size in zip(volume.reach.values(), stored, strict=True)
    )
    chosen = np.zeros_like(present)
    chosen[read] = ~present[read]
    beside = np.zeros(present.shape, np.uint8)
    for axis, letter in enumerate(volume.reach):
        if letter not in "zyx" or present.shape[axis] == 1:
            continue
        there, ours, count = (np.moveaxis(a, axis, 0) for a in (present, chosen, beside))
        ours[1:] &= there[:-1]
        ours[:-1] &= there[1:]
        count[1:] += 1
        count[:-1] += 1
    for place in np.argwhere(chosen & (beside >= 2)):
        yield tuple(int(n) for n in place)


def _among_data(array: Any, place: tuple[int, ...], letters: Iterable[str]) -> bool:
    """Whether the voxels on the other side of a chunk's borders are mostly not the fill value."""
    bounds = _bounds(array, place)
    for axis, (letter, bound) in enumerate(zip(letters, bounds, strict=True)):
        for outer in (bound.start - 1, bound.stop):
            if letter in "zyx" and 0 <= outer < array.shape[axis]:
                face = array[*bounds[:axis], slice(outer, outer + 1), *bounds[axis + 1 :]]
                if 2 * np.count_nonzero(face != array.fill_value) <= face.size:
                    return False
    return True


def _bounds(array: Any, place: tuple[int, ...]) -> tuple[slice, ...]:
    """Voxels of a chunk, in array order."""
    stored = array.shards or array.chunks
    return tuple(
        slice(n * size, min((n + 1) * size, extent))
        for n, size, extent in zip(place, stored, array.shape, strict=True)
    )
