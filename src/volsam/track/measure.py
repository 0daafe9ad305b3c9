"""What linking knows of the objects of a frame, and which objects of two frames cover each other.

Invariants
----------
- One frame, or one pair of frames, at a time: memory does not grow with the sequence.
- Lengths are in units of length; a plane is one slice of a volume.
- Only labels and image matter: every value is a function of the object's own pixels and of where the
  field ends.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from volsam.stitch.overlaps import count_overlaps, present_labels
from volsam.track.lineage import Floats, Ids, Ints

Labels = npt.NDArray[np.unsignedinteger[Any]]


def measure(
    labels: Labels, spacing: tuple[float, float, float], image: npt.NDArray[Any] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """Measure the objects of a frame.

    Parameters
    ----------
    labels : (z, y, x) unsigned integers
        0 is background.
    spacing : (float, float, float)
        Edge lengths of a voxel, zyx.
    image : (z, y, x) numbers, optional

    Returns
    -------
    dict of str to (n,) or (n, 3) array
        ``label`` sorted; ``position`` and ``size`` as in `Objects`; ``elongation``, the longest over the
        second axis of the ellipse with the same second moments; ``border``, the distance of the
        object's edge from where the field ends, by its equivalent radius; with an image ``intensity``
        and ``deviation``, mean and standard deviation.
    """
    place = np.nonzero(labels)
    label, index, count = _numbered(labels[place].astype(np.int64))
    n = len(label)

    def mean(of: npt.NDArray[Any]) -> Floats:
        found: Floats = np.bincount(index, of, n) / count
        return found

    points = [axis * step for axis, step in zip(place, spacing, strict=True)]
    position = np.stack([mean(p) for p in points], axis=1) if n else np.zeros((0, 3))
    offset = [p - position[index, axis] for axis, p in enumerate(points)]
    moments = np.zeros((n, 3, 3))
    for a in range(3):
        for b in range(a, 3):
            moments[:, a, b] = moments[:, b, a] = mean(offset[a] * offset[b])
        moments[:, a, a] += spacing[a] ** 2 / 12  # a voxel is no point
    axes = np.sqrt(np.linalg.eigvalsh(moments))
    planar = labels.shape[0] == 1
    size = count.astype(np.float64) * float(np.prod(spacing[1:] if planar else spacing))
    extent = np.asarray(labels.shape) * np.asarray(spacing)
    table: dict[str, npt.NDArray[Any]] = {
        "label": label.astype(np.uint64),
        "position": position,
        "size": size,
        "elongation": axes[:, 2] / axes[:, 1],
        "border": edge_distance(position, extent) - radius(size, planar),
    }
    if image is not None:
        pixels = image[place].astype(np.float64)
        table["intensity"] = mean(pixels)
        table["deviation"] = np.sqrt(mean((pixels - table["intensity"][index]) ** 2))
    return table


def _numbered(labels: Ints) -> tuple[Ids, Ints, Ints]:
    """Labels that occur, sorted; the number of each pixel's among them; and their pixel counts."""
    present, count = present_labels(labels)
    return present.astype(np.uint64), np.searchsorted(present, labels).astype(np.int64), count


def edge_distance(position: Floats, extent: Floats) -> Floats:
    """Distance of positions (n, 3) from where a field of `extent` (3,) ends within the plane."""
    inside = np.minimum(position, extent - position)[:, 1:]
    nearest: Floats = inside.min(axis=1) if len(inside) else np.zeros(0)
    return nearest


def radius(size: Floats, planar: bool) -> Floats:
    """Radius of the disc or ball of the same size."""
    found: Floats = np.sqrt(size / np.pi) if planar else np.cbrt(size * 0.75 / np.pi)
    return found


def overlaps(before: Labels, after: Labels, shift: Ints) -> tuple[Ids, Ids, Ints]:
    """Voxels that objects of a frame, moved, have in common with those of a later frame.

    Parameters
    ----------
    before, after : (z, y, x) unsigned integers
    shift : (n, 3) int64
        By how many voxels each object of `before` moves, in the order of its sorted labels; it moves
        as a whole.

    Returns
    -------
    (m,) labels before, (m,) labels after, (m,) int64 voxels
        Sorted by label before, then after.
    """
    place = np.argwhere(before)
    label = before[tuple(place.T)].astype(np.int64)
    _, index, _ = _numbered(label)
    moved = place + np.asarray(shift, np.int64).reshape(-1, 3)[index]
    inside = ((moved >= 0) & (moved < before.shape)).all(axis=1)
    a, b, voxels = count_overlaps(label[inside], after[tuple(moved[inside].T)].astype(np.int64))
    return a.astype(np.uint64), b.astype(np.uint64), voxels
