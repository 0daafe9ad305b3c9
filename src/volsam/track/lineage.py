"""Lineages: objects of a sequence joined to tracks, and tracks to families.

Invariants
----------
- An object is in one frame. Ids are positive and unique in the sequence; objects are sorted by frame,
  then by id.
- A link goes forward in time. An object has one predecessor at most; two successors or more are a
  division.
- A track has one object per frame at most and may leave frames out (a gap). A track whose first object
  came out of a division has a parent, which ends before it starts.
- Tracks are numbered from 1 in the order of their first objects: a function of objects and links.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from volsam.errors import VolsamError

Ints = npt.NDArray[np.int64]
Ids = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]


def find_rows(
    ids: npt.NDArray[Any], wanted: npt.NDArray[Any]
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Where ids stand in a column, and whether they do; 0 where not.

    Parameters
    ----------
    ids : (n,) array
        Each once, in any order.
    wanted : array
    """
    if not len(ids):
        return np.zeros(wanted.shape, np.int64), np.zeros(wanted.shape, np.bool_)
    order = np.argsort(ids, kind="stable")
    rows = order[np.searchsorted(ids, wanted, sorter=order).clip(max=len(ids) - 1)]
    known = ids[rows] == wanted
    return np.where(known, rows, 0), known


@dataclass(frozen=True)
class Objects:
    """Objects of a sequence, sorted by frame and id.

    Parameters
    ----------
    id : (n,) uint64
        Unique in the sequence, from 1.
    frame : (n,) int64
        Frame of each object, counted from 0.
    position : (n, 3) float64
        Centroid (z, y, x) in units of length; z is 0 in a sequence of planes.
    size : (n,) float64
        Area or volume, in units of length squared or cubed.
    values : mapping of str to (n,) or (n, k) array
        Further measurements: ``intensity`` (mean), ``embedding`` (mean over the object), …
    """

    id: Ids
    frame: Ints
    position: Floats
    size: Floats
    values: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        order = np.lexsort((self.id, self.frame))
        if not np.array_equal(order, np.arange(len(order))):
            raise ValueError("objects must be sorted by frame and id")

    def __len__(self) -> int:
        return len(self.id)

    @classmethod
    def sort(
        cls,
        id: npt.ArrayLike,
        frame: npt.ArrayLike,
        position: npt.ArrayLike,
        size: npt.ArrayLike,
        values: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> Objects:
        """Objects given in any order."""
        ids, frames = np.asarray(id, np.uint64), np.asarray(frame, np.int64)
        order = np.lexsort((ids, frames))
        return cls(
            ids[order],
            frames[order],
            np.asarray(position, np.float64).reshape(-1, 3)[order],
            np.asarray(size, np.float64)[order],
            {name: np.asarray(value)[order] for name, value in (values or {}).items()},
        )

    def take(self, chosen: npt.NDArray[Any]) -> Objects:
        """Some of the objects, by a mask or by increasing row numbers."""
        values = {name: value[chosen] for name, value in self.values.items()}
        return Objects(
            self.id[chosen], self.frame[chosen], self.position[chosen], self.size[chosen], values
        )

    def rows(self, ids: npt.ArrayLike) -> Ints:
        """Row of each id.

        Raises
        ------
        VolsamError
            If there is no object of an id.
        """
        wanted = np.asarray(ids, np.uint64)
        rows, known = find_rows(self.id, wanted)
        if not known.all():
            raise VolsamError(
                f"There is no object {wanted[~known].ravel()[0]} in the sequence; use ids of its table."
            )
        return rows


@dataclass(frozen=True)
class Lineage:
    """Tracks of a sequence.

    Parameters
    ----------
    objects : Objects
        All objects; each is in a track.
    track : (n,) int64
        Track of each object, from 1.
    parent : (tracks,) int64
        Parent of track i + 1, 0 where it has none.
    """

    objects: Objects
    track: Ints
    parent: Ints

    @classmethod
    def of(cls, objects: Objects, links: npt.ArrayLike) -> Lineage:
        """Tracks that links make.

        Parameters
        ----------
        objects : Objects
        links : (m, 2) ids
            Object and successor.

        Raises
        ------
        VolsamError
            If a link goes back in time or an object has two predecessors.
        """
        rows = objects.rows(np.asarray(links, np.uint64).reshape(-1, 2))
        source, target = rows.T
        back = objects.frame[source] >= objects.frame[target]
        if back.any():
            a, b = objects.id[rows[back][0]]
            raise VolsamError(
                f"The link from object {a} to object {b} does not go forward in time; leave it out."
            )
        predecessors = np.bincount(target, minlength=len(objects))
        if (predecessors > 1).any():
            many = objects.id[np.argmax(predecessors > 1)]
            raise VolsamError(f"Object {many} has several predecessors; keep one of its links.")
        before = np.full(len(objects), -1)
        before[target] = source
        successors = np.bincount(source, minlength=len(objects))
        goes_on = (before >= 0) & (successors[before] == 1)
        track = np.zeros(len(objects), np.int64)
        parent = []
        # Rows are sorted by frame, so a predecessor's track is known when its successor comes.
        for row in range(len(objects)):
            if goes_on[row]:
                track[row] = track[before[row]]
                continue
            parent.append(track[before[row]] if before[row] >= 0 else 0)
            track[row] = len(parent)
        return cls(objects, track, np.asarray(parent, np.int64))

    def __len__(self) -> int:
        """Number of tracks."""
        return len(self.parent)

    def links(self) -> Ids:
        """All links, (m, 2) ids of object and successor, sorted by rows of the successors."""
        order = np.argsort(self.track, kind="stable")
        same = self.track[order][1:] == self.track[order][:-1]
        before = np.full(len(self.objects), -1)
        before[order[1:][same]] = order[:-1][same]
        start, end = self.ends()
        born = np.flatnonzero(self.parent)
        before[start[born]] = end[self.parent[born] - 1]
        target = np.flatnonzero(before >= 0)
        return np.stack([self.objects.id[before[target]], self.objects.id[target]], axis=1)

    def ends(self) -> tuple[Ints, Ints]:
        """Rows of the first and of the last object of each track."""
        rows = np.arange(len(self.objects))
        start = np.full(len(self), len(rows))
        end = np.full(len(self), -1)
        np.minimum.at(start, self.track - 1, rows)
        np.maximum.at(end, self.track - 1, rows)
        return start, end

    def frames(self) -> tuple[Ints, Ints]:
        """First and last frame of each track."""
        start, end = self.ends()
        return self.objects.frame[start], self.objects.frame[end]

    def family(self) -> Ints:
        """Family of each track: the number of its first ancestor."""
        found = np.zeros(len(self), np.int64)
        for number, parent in enumerate(self.parent, start=1):  # parents have lower numbers
            found[number - 1] = found[parent - 1] if parent else number
        return found

    def divisions(self) -> dict[int, Ints]:
        """Daughter tracks of each track that divides."""
        born = np.flatnonzero(self.parent)
        born = born[np.argsort(self.parent[born], kind="stable")]
        mothers, first = np.unique(self.parent[born], return_index=True)
        return (
            {
                int(mother): daughters + 1
                for mother, daughters in zip(mothers, np.split(born, first[1:]), strict=True)
            }
            if len(mothers)
            else {}
        )
