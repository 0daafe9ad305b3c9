"""What linking has to know of the frames of a sequence: its objects, how they move, what they cover.

Invariants
----------
- Only `max_gap` + 2 frames are held at once, so sequences may be longer than memory.
- Rows depend on the frames only, not on the run of frames they are looked at in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from volsam.track.lineage import Objects
from volsam.track.measure import Labels, measure, overlaps
from volsam.track.motion import flow
from volsam.track.scene import Overlaps

Stack = Sequence[npt.NDArray[Any]] | npt.NDArray[Any]
Columns = dict[str, npt.NDArray[Any]]


class Frame(NamedTuple):
    """Labels (z, y, x) of a frame, 0 is background, and its image of the same shape if there is one."""

    labels: Labels
    image: npt.NDArray[Any] | None = None


class Observed(NamedTuple):
    """A run of frames.

    Attributes
    ----------
    objects : dict of str to (n,) or (n, 3) array
        ``frame``, what `measure` finds, and ``motion``, the way until the next frame, zyx. Sorted by
        frame and label.
    overlaps : dict of str to (m,) array
        ``frame`` and ``source`` label, ``later`` frame and ``target`` label, and ``size`` in common.
    """

    objects: Columns
    overlaps: Columns


def observe_run(
    read: Callable[[int], Frame],
    run: range,
    stop: int,
    spacing: tuple[float, float, float],
    max_gap: int,
) -> Observed:
    """Objects of a run of frames, and their overlaps, once moved, with those of later frames.

    Parameters
    ----------
    read : function
        Gives a frame; asked once for each of the run and for the `max_gap` + 1 that follow it.
    run : range
        Frames to look at.
    stop : int
        Where the sequence ends.
    spacing : (float, float, float)
        Edge lengths of a voxel, zyx.
    max_gap : int
        Frames that an object may be missing.
    """
    held: dict[int, Frame] = {}
    tables: list[Columns] = []
    pairs: list[Columns] = []
    for number in run:
        held.pop(number - 1, None)
        near = range(number, min(number + max_gap + 2, stop))
        held |= {later: read(later) for later in near if later not in held}
        table = _objects(held[number], held.get(number + 1), spacing)
        tables.append({"frame": np.full(len(table["label"]), number), **table})
        for later in near[1:]:
            shift = np.rint((later - number) * table["motion"] / spacing).astype(np.int64)
            pair = _overlaps(held[number].labels, held[later].labels, shift, spacing)
            ends = (np.full(len(pair["size"]), n) for n in (number, later))
            pairs.append({**dict(zip(("frame", "later"), ends, strict=True)), **pair})
    if not tables:  # of no frames the table has its columns all the same
        nothing = Frame(np.zeros((1, 0, 0), np.uint64))
        tables.append({"frame": np.zeros(0, np.int64), **_objects(nothing, None, spacing)})
    return Observed(_joined(tables), _joined(pairs or [_NO_PAIRS]))


_NO_PAIRS: Columns = {
    **{name: np.zeros(0, np.int64) for name in ("frame", "later")},
    **{name: np.zeros(0, np.uint64) for name in ("source", "target")},
    "size": np.zeros(0),
}


def _objects(frame: Frame, later: Frame | None, spacing: tuple[float, float, float]) -> Columns:
    table = measure(frame.labels, spacing, frame.image)
    table["motion"] = np.zeros((len(table["label"]), 3))
    if frame.image is not None and later is not None and later.image is not None:
        table["motion"] = flow(frame.image, later.image, spacing).at(table["position"])
    return table


def _overlaps(
    before: Labels, after: Labels, shift: npt.NDArray[np.int64], spacing: tuple[float, float, float]
) -> Columns:
    source, target, voxels = overlaps(before, after, shift)
    voxel = np.prod(spacing[1:] if before.shape[0] == 1 else spacing)
    return {"source": source, "target": target, "size": voxels * voxel}


def _joined(tables: Sequence[Columns]) -> Columns:
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def observe(
    labels: Stack,
    images: Stack | None = None,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    max_gap: int = 2,
) -> tuple[Objects, Overlaps]:
    """Measure all objects of a sequence, how they move, and which cover each other.

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
    Objects, numbered from 1 by frame and label, with ``label`` among their values, and Overlaps.
    """

    def read(frame: int) -> Frame:
        return Frame(_volume(labels[frame]), None if images is None else _volume(images[frame]))

    seen, pairs = observe_run(read, range(len(labels)), len(labels), spacing, max_gap)
    frame, position, size = (seen.pop(name) for name in ("frame", "position", "size"))
    ids = np.arange(1, len(frame) + 1, dtype=np.uint64)
    known, place = np.unique(seen["label"], return_inverse=True)
    key = frame * len(known) + place  # sorted, as rows are

    def numbered(of: str, label: str) -> npt.NDArray[np.uint64]:
        wanted = pairs[of] * len(known) + np.searchsorted(known, pairs[label])
        return ids[np.searchsorted(key, wanted)]

    found = Overlaps(numbered("frame", "source"), numbered("later", "target"), pairs["size"])
    return Objects.sort(ids, frame, position, size, seen), found


def _volume(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array = np.asarray(plane)
    return array[None] if array.ndim == 2 else array
