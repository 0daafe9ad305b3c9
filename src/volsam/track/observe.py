"""Objects and overlaps of a sequence that fits in memory, or that is read frame by frame.

Invariants
----------
- Only `max_gap` + 2 frames are held at once, so sequences may be longer than memory.
- Ids number the objects from 1 by frame, then by label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from volsam.track.lineage import Ids, Objects
from volsam.track.measure import measure, overlaps
from volsam.track.motion import flow
from volsam.track.scene import Overlaps

Stack = Sequence[npt.NDArray[Any]] | npt.NDArray[Any]


def observe(
    labels: Stack,
    images: Stack | None = None,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    max_gap: int = 2,
) -> tuple[Objects, Overlaps]:
    """Measure all objects, how they move, and which cover each other.

    Parameters
    ----------
    labels : (t, y, x) or (t, z, y, x) unsigned integers
        Labels of each frame; the same label in two frames means nothing.
    images : the same shape, optional
    spacing : (float, float, float)
        Edge lengths of a voxel, zyx.
    max_gap : int
        Frames that an object may be missing.

    Returns
    -------
    Objects, with ``label`` among its values, and Overlaps.
    """
    voxel = float(np.prod(spacing[1:] if np.ndim(labels[0]) == 2 else spacing))
    tables: list[dict[str, npt.NDArray[Any]]] = []
    first = [1]  # id of the first object of each frame
    found: list[tuple[Ids, Ids, npt.NDArray[np.float64]]] = []
    held: list[npt.NDArray[Any]] = []
    previous = None
    for frame in range(len(labels)):
        now = _volume(labels[frame])
        image = None if images is None else _volume(images[frame])
        table = measure(now, spacing, image)
        table["motion"] = np.zeros((len(table["label"]), 3))
        if image is not None and previous is not None:
            tables[-1]["motion"] = flow(previous, image, spacing).at(tables[-1]["position"])
        previous = image
        tables.append(table)
        first.append(first[-1] + len(table["label"]))
        for gap, before in enumerate(held, start=1):
            earlier = tables[frame - gap]
            shift = np.rint(gap * earlier["motion"] / spacing).astype(np.int64)
            a, b, count = overlaps(before, now, shift)
            source = first[frame - gap] + np.searchsorted(earlier["label"], a)
            target = first[frame] + np.searchsorted(table["label"], b)
            found.append(
                (
                    source.astype(np.uint64),
                    target.astype(np.uint64),
                    count.astype(np.float64) * voxel,
                )
            )
        held = [now, *held[:max_gap]]
    count = np.diff(first)

    def column(name: str) -> npt.NDArray[Any]:
        return np.concatenate([table[name] for table in tables])

    objects = Objects.sort(
        np.arange(1, first[-1]),
        np.repeat(np.arange(len(count)), count),
        column("position"),
        column("size"),
        {name: column(name) for name in tables[0] if name not in ("position", "size")},
    )
    none = (np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0))
    sides = (np.concatenate(side) for side in zip(none, *found, strict=True))
    return objects, Overlaps(*sides)


def _volume(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array = np.asarray(plane)
    return array[None] if array.ndim == 2 else array
