"""Which chunks of a Zarr array are on disk, and is one of them lost?

Zarr leaves out empty chunks, so one that is absent is no fault by itself: it is read as the fill value,
and the user is told. One is taken for lost where everything around it holds data up to the border:
nothing that a microscope sees ends at the borders of a chunk on all sides. A black plane may well be one
of its own, so where chunks are whole planes, none is taken for lost.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.volume.source import Volume

if TYPE_CHECKING:
    import zarr

LOOKED_AT = 100  # absent chunks, at most, whose surroundings are read


def check_chunks(volume: Volume, box: Box | None = None) -> str | None:
    """Say how many chunks of a Zarr array are absent, and refuse it if one of them is lost.

    Shards count as chunks where there are any. The count is over all channels and time points, a lost
    chunk matters only in the time point that is read, in any channel, since all are measured. Lists the
    array's folder once; reads the neighbours of at most `LOOKED_AT` chunks, evenly chosen among those
    that are absent alone.

    Parameters
    ----------
    volume : Volume
    box : Box, optional
        zyx; a lost chunk elsewhere does not matter. All of the volume by default.

    Returns
    -------
    str or None
        One sentence; None if all are there, or for other formats.

    Raises
    ------
    VolsamError
        If a chunk is absent whose neighbours, along two or more of z, y and x, are all there and hold
        other values than the fill value in more than half of the voxels beside it.
    """
    if not volume.info.format.startswith(("ome-zarr", "zarr")):
        return None
    array: Any = volume.array
    present = stored_chunks(array)
    missing = present.size - int(np.count_nonzero(present))
    if not missing:
        return None
    reach = volume.reach(box)
    alone = _alone(present, array, reach)
    for place in alone[:: math.ceil(len(alone) / LOOKED_AT) or 1].tolist():
        if _among_data(array, place, reach):
            bounds = ", ".join(
                f"{letter} {bound.start}–{bound.stop - 1}"
                for letter, bound in zip(reach, _bounds(array, place), strict=True)
            )
            raise VolsamError(
                f"{volume.info.path} lacks the chunk of {bounds}, though all chunks beside it hold data "
                "up to its border, so it is probably lost; copy it again from its source, or write its "
                "values if it is empty."
            )
    return (
        f"{missing} of {present.size} chunks of {volume.info.path} are missing and read as "
        f"{_fill(array)}."
    )


def stored_chunks(array: zarr.Array) -> NDArray[np.bool_]:
    """Which chunks of an array on disk exist, by their place in the grid of chunks (or of shards).

    The array's own count compares every chunk with every file, hours for a million of them.
    """
    stored = array.shards or array.chunks
    present = np.zeros([math.ceil(n / s) for n, s in zip(array.shape, stored, strict=True)], bool)
    store: Any = array.store
    root = Path(store.root) / array.path
    for folder, folders, names in os.walk(root, followlinks=True):
        above = Path(folder).relative_to(root).parts
        if len(above) > present.ndim:
            folders.clear()  # links may go round in circles
        for name in names:
            place = [part for part in re.split(r"[./]", "/".join((*above, name))) if part != "c"]
            if len(place) == present.ndim and all(part.isdecimal() for part in place):
                numbers = tuple(int(part) for part in place)
                if all(n < size for n, size in zip(numbers, present.shape, strict=True)):
                    present[numbers] = True
    return present


def _alone(
    present: NDArray[np.bool_], array: Any, reach: Mapping[str, slice]
) -> NDArray[np.integer]:
    """Places, (n, axes), of absent chunks within reach, all of whose neighbours in space are there."""
    chosen = np.zeros_like(present)
    across = [a for a, letter in enumerate(reach) if letter in "zyx" and present.shape[a] > 1]
    if len(across) > 1:  # else chunks are planes, or rows of one
        stored = array.shards or array.chunks
        read = tuple(
            slice(part.start // size, math.ceil(part.stop / size))
            for part, size in zip(reach.values(), stored, strict=True)
        )
        chosen[read] = ~present[read]
    for axis in across:
        there, ours = np.moveaxis(present, axis, 0), np.moveaxis(chosen, axis, 0)
        ours[1:] &= there[:-1]
        ours[:-1] &= there[1:]
    return np.argwhere(chosen)


def _among_data(array: Any, place: Sequence[int], letters: Iterable[str]) -> bool:
    """Whether the voxels on the other side of a chunk's borders are mostly not the fill value."""
    bounds, fill = _bounds(array, place), _fill(array)
    for axis, (letter, bound) in enumerate(zip(letters, bounds, strict=True)):
        for outer in (bound.start - 1, bound.stop):
            if letter in "zyx" and 0 <= outer < array.shape[axis]:
                try:
                    face = array[*bounds[:axis], slice(outer, outer + 1), *bounds[axis + 1 :]]
                except Exception:  # damaged, which is said when it is read for its own sake
                    return False
                empty = np.isnan(face) if fill != fill else face == fill
                if 2 * np.count_nonzero(empty) >= face.size:
                    return False
    return True


def _fill(array: Any) -> Any:
    """What absent chunks are read as; format 2 may leave that open, and it is 0 then."""
    return 0 if array.fill_value is None else array.fill_value


def _bounds(array: Any, place: Sequence[int]) -> tuple[slice, ...]:
    """Voxels of a chunk, in array order."""
    stored = array.shards or array.chunks
    return tuple(
        slice(n * size, min((n + 1) * size, extent))
        for n, size, extent in zip(place, stored, array.shape, strict=True)
    )
