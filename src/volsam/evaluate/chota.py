"""CHOTA: how well identities are kept over whole families.

Every object that was found counts with the agreement of its two families at that object: of all objects
in ancestors and descendants of either track, the share that is matched between them. Source: Kaiser et
al. 2024, "CHOTA: a higher order accuracy metric for cell tracking".

Invariants
----------
- The value is that of py-ctcmetrics; sparse matrices take the place of its loops, whose cost is cubic in
  tracks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array, eye_array

from volsam.track.lineage import Ints

Lists = Sequence[Sequence[int]]  # labels of each frame


def chota(
    truth: Ints,
    result: Ints,
    labels: tuple[Lists, Lists],
    matched: tuple[Lists, Lists],
) -> float:
    """CHOTA of a result.

    Parameters
    ----------
    truth, result : (n, 4) int64
        Tables L B E P; a parent with one child is one track with it.
    labels : pair of lists
        Labels of truth and result in each frame.
    matched : pair of lists
        Those that match, in the same order.

    Returns
    -------
    float
        From 0 to 1; 0 if there are no objects.
    """
    tracks, parents = zip(*map(_merged, (truth, result)), strict=True)
    related = [_related(parent) for parent in parents]
    size = (len(parents[0]), len(parents[1]))
    pairs = tuple(
        np.asarray([track[label] for frame in frames for label in frame], np.int64)
        for track, frames in zip(tracks, matched, strict=True)
    )
    both = csr_array((np.ones(len(pairs[0])), pairs), shape=size)
    both.sum_duplicates()
    # Objects of each track: those matched, as often as they are, and the others.
    extent, lone_objects = [], 0
    for side in (0, 1):
        lone = [
            tracks[side][label]
            for frame, hits in zip(labels[side], matched[side], strict=True)
            for label in set(frame).difference(hits)
        ]
        lone_objects += len(lone)
        alone = np.bincount(np.asarray(lone, np.int64), minlength=size[side])
        extent.append(both.sum(axis=1 - side) + alone)
    whole = [relation @ count for relation, count in zip(related, extent, strict=True)]
    rows, columns = both.nonzero()
    shared = (related[0] @ both @ related[1].T).tocsr()[rows, columns]
    agreement = shared / (whole[0][rows] + whole[1][columns] - shared)
    total = len(pairs[0]) + lone_objects
    return float(np.sqrt((both[rows, columns] * agreement).sum() / total)) if total else 0.0


def _merged(table: Ints) -> tuple[dict[int, int], Ints]:
    """Number of each label's track, and the parent of each track or -1; only children are merged."""
    parents, children = np.unique(table[:, 3], return_counts=True)
    only = set(parents[children == 1].tolist())
    number: dict[int, int] = {}
    parent: list[int] = []
    for label, _, _, mother in table[np.argsort(table[:, 1], kind="stable")].tolist():
        if mother and mother in only:
            number[label] = number[mother]
        else:
            number[label] = len(parent)
            parent.append(number[mother] if mother else -1)
    return number, np.asarray(parent, np.int64)


def _related(parent: Ints) -> csr_array:
    """Symmetric matrix of 1 where a track is an ancestor or descendant of another, or itself."""
    n = len(parent)
    child = np.flatnonzero(parent >= 0)
    up = csr_array((np.ones(len(child)), (child, parent[child])), shape=(n, n))
    total, step = eye_array(n, format="csr"), up
    while step.nnz:
        total, step = total + step + step.T, step @ up
    return csr_array(total)
