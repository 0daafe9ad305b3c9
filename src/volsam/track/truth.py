"""Links that a tracked truth gives to objects of another segmentation.

Invariants
----------
- A marker of the truth is found by the object that covers more than half of it, as in the scores of the
  Cell Tracking Challenge; objects that cover several markers, or none, are left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from volsam.stitch.overlaps import count_overlaps
from volsam.track.lineage import Ids, Ints, Objects

LabelFrames = Callable[[int], npt.NDArray[Any]]


def true_links(
    objects: Objects,
    found: LabelFrames,
    table: Ints,
    markers: LabelFrames,
    frames: Sequence[int],
) -> tuple[Ids, npt.NDArray[np.bool_]]:
    """Links of the objects that stand for markers.

    Parameters
    ----------
    objects : Objects
    found, markers : callable
        Frame to label array: ids of objects, and labels of the truth.
    table : (tracks, 4) int64
        Label, first frame, last frame and parent of each true track.
    frames : sequence of int
        Frames that have a truth.

    Returns
    -------
    (m, 2) uint64, (n,) bool
        Ids of object and successor; which objects stand for a marker.
    """
    known = np.zeros(len(objects), np.bool_)
    at: dict[tuple[int, int], int] = {}  # object of a track in a frame
    for frame in frames:
        for label, row in _matches(objects, frame, found(frame), markers(frame)):
            known[row] = True
            at[label, frame] = row
    links = []
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for label, begin, end, _ in table.tolist():
        rows = [at[label, frame] for frame in range(begin, end + 1) if (label, frame) in at]
        links += list(itertools.pairwise(rows))
        if rows:
            first[label], last[label] = rows[0], rows[-1]
    for label, _, _, parent in table.tolist():
        if parent in last and label in first:
            links.append((last[parent], first[label]))
    pairs = np.asarray(links, np.int64).reshape(-1, 2)
    return objects.id[pairs[np.argsort(pairs[:, 1], kind="stable")]], known


def _matches(
    objects: Objects, frame: int, labels: npt.NDArray[Any], truth: npt.NDArray[Any]
) -> list[tuple[int, int]]:
    """Markers of a frame with the rows of the objects that alone stand for them."""
    marker, size = np.unique(truth[truth > 0], return_counts=True)
    both = (truth > 0) & (labels > 0)
    ids, numbers = np.unique(labels[both], return_inverse=True)
    index = np.searchsorted(marker, truth[both])
    a, b, count = count_overlaps(index.astype(np.uint32) + 1, numbers.astype(np.uint32) + 1)
    covering = 2 * count > size[a - 1]
    a, b = a[covering] - 1, b[covering] - 1
    alone = np.bincount(b, minlength=len(ids))[b] == 1
    rows = objects.rows(ids[b[alone]]) if alone.any() else np.zeros(0, np.int64)
    return list(zip(marker[a[alone]].tolist(), rows.tolist(), strict=True))
