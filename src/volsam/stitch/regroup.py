"""Objects that a user merged or split, wherever the segmentation puts their borders.

A user says of two points that they lie in one object (merge) or in two (split). Points are given, objects
come and go, so the same demands hold for every segmentation in which the points lie in objects:

- Points that merges join, directly or through others, are one part.
- An object that holds points of several parts which splits speak of is cut: each of its voxels goes to
  the nearest point, and so to that point's part. A part that no split speaks of sides with the nearest
  one there that a split does speak of.
- Any other object belongs, as a whole, to all parts that have points in it.

What a split demands of points in different objects, and a merge of points in one, is there already.

Invariants
----------
- Corrected objects are numbered 1..n in the order of the least object that they are made of; the pieces
  of a cut object in the order of their first points. Without demands nothing changes.
- A voxel's new number follows from its object and its place alone, so blocks may be chosen freely; of
  equally near points the first counts.
- Memory is that of the points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from volsam.errors import VolsamError

Voxel = tuple[int, int, int]
Ints = npt.NDArray[np.int64]
Ids = npt.NDArray[np.uint64]
Links = list[tuple[int, int]]


class Demand(NamedTuple):
    """What a user says of two voxels: that they lie in one object, or in two.

    Attributes
    ----------
    together : bool
    first, second : (z, y, x)
    name : str
        For messages: ``Line 4 of corrections.csv``.
    """

    together: bool
    first: Voxel
    second: Voxel
    name: str


@dataclass(frozen=True)
class Regrouping:
    """The points that were spoken of, sorted by object.

    Parameters
    ----------
    object : (p,) uint64
        Object in which each point lies, before the correction.
    place : (p, 3) int64
        Voxels, zyx.
    id : (p,) uint64
        Its object after the correction.
    """

    object: Ids
    place: Ints
    id: Ids

    @cached_property
    def touched(self) -> Ids:
        """Objects that hold points, sorted, (t,)."""
        return np.unique(self.object)

    @cached_property
    def _first(self) -> Ints:
        """Where the points of each touched object start, and the end, (t + 1,)."""
        return np.append(np.searchsorted(self.object, self.touched), len(self.object))

    @cached_property
    def _whole(self) -> Ids:
        """New number of each touched object, 0 if it is cut, (t,)."""
        start = self._first[:-1]
        least, most = np.minimum.reduceat(self.id, start), np.maximum.reduceat(self.id, start)
        return np.where(least == most, least, np.uint64(0))

    @cached_property
    def _shift(self) -> Ints:
        """What is added to the number of an object that follows k touched ones, (t + 1,)."""
        order = np.lexsort((self.object, self.id))
        _, first = np.unique(self.id[order], return_index=True)
        made = np.searchsorted(self.touched, self.object[order[first]])  # of which, at least
        below = np.searchsorted(np.sort(made), np.arange(len(self.touched) + 1))
        return below - np.arange(len(self.touched) + 1)

    @property
    def more(self) -> int:
        """How many objects there are more than before."""
        return int(self._shift[-1])

    def of_whole(self, objects: Ids) -> Ids:
        """Corrected objects of objects as they were found, (n,); 0 for those that are cut."""
        below = np.searchsorted(self.touched, objects)
        result = objects + self._shift[below].astype(np.uint64)  # wraps around where it is negative
        here = np.flatnonzero(np.isin(objects, self.touched))
        result[here] = self._whole[below[here]]
        result[objects == 0] = 0
        return result

    def apply(
        self, objects: Ids, start: Sequence[int], spacing: Sequence[float]
    ) -> npt.NDArray[np.uint64]:
        """Corrected objects of a box.

        Parameters
        ----------
        objects : (z, y, x) uint64
            As they were found, 0 is background.
        start : (z, y, x)
            First voxel of the box.
        spacing : (z, y, x)
            Edge lengths of a voxel.

        Returns
        -------
        (z, y, x) uint64
        """
        result = objects.copy()
        if not len(self.touched):
            return result
        for z, plane in enumerate(objects):
            below = np.searchsorted(self.touched, plane)
            result[z] += self._shift[below].astype(np.uint64)  # wraps around where it is negative
            here = self.touched[below.clip(max=len(self.touched) - 1)] == plane
            result[z][here] = self._whole[below[here]]
            rows, columns = np.nonzero(here & (result[z] == 0))
            number = below[rows, columns]
            order = np.argsort(number, kind="stable")
            cuts, first = np.unique(number[order], return_index=True)
            for cut, place in zip(cuts, np.split(order, first)[1:], strict=True):
                y, x = rows[place], columns[place]
                where = (start[0] + z, start[1] + y, start[2] + x)
                result[z][y, x] = self._nearest(int(cut), where, spacing)
        return result

    def _nearest(self, number: int, where: tuple[Any, ...], spacing: Sequence[float]) -> Ids:
        """New numbers of voxels of a touched object that is cut."""
        points = slice(self._first[number], self._first[number + 1])
        best = np.full(len(where[1]), np.inf)
        found = np.zeros(len(where[1]), np.uint64)
        for place, new in zip(self.place[points], self.id[points], strict=True):
            z, y, x = (((w - p) * s) ** 2 for w, p, s in zip(where, place, spacing, strict=True))
            apart = z + y + x
            nearer = apart < best
            best[nearer], found[nearer] = apart[nearer], new
        return found


def regroup(
    demands: Sequence[Demand], object_of: Mapping[Voxel, int], spacing: Sequence[float]
) -> Regrouping:
    """Objects that demands make of those that were found.

    Parameters
    ----------
    demands : sequence of Demand
    object_of : mapping
        Object in which each voxel lies that the demands speak of, from 1.
    spacing : (z, y, x)
        Edge lengths of a voxel.

    Raises
    ------
    VolsamError
        If demands contradict each other.
    """
    voxels = list(dict.fromkeys(voxel for d in demands for voxel in (d.first, d.second)))
    number = {voxel: n for n, voxel in enumerate(voxels)}
    place = np.asarray(voxels, np.int64).reshape(-1, 3)
    objects = np.asarray([object_of[voxel] for voxel in voxels], np.uint64)
    merges = [d for d in demands if d.together]
    splits = [d for d in demands if not d.together]
    links = [(number[d.first], number[d.second]) for d in merges]
    joined = _joined(len(voxels), links)
    ends_of_all = [number[voxel] for d in splits for voxel in (d.first, d.second)]
    spoken = np.isin(joined, joined[np.asarray(ends_of_all, np.int64)])
    given = _sides(objects, joined, spoken, place * np.asarray(spacing, np.float64))
    part = _joined(len(voxels), given + links)
    for split in splits:
        ends = [number[split.first], number[split.second]]
        if np.ptp(part[ends]):
            continue
        if split.first == split.second:
            raise VolsamError(f"{split.name} splits an object at one point; give one in each part.")
        # The first merge that brings the ends together, if need be by way of objects.
        base = given if np.ptp(joined[ends]) else []
        used = 1
        while np.ptp(_joined(len(voxels), base + links[:used])[ends]):
            used += 1
        other = merges[used - 1].name
        raise VolsamError(
            f"{split.name} splits what {other[0].lower()}{other[1:]} merges; remove one of them, or "
            "split what lies between as well."
        )
    order = np.argsort(objects, kind="stable")
    return Regrouping(objects[order], place[order], _numbers(objects, part)[order])


def _sides(objects: Ids, joined: Ints, spoken: npt.NDArray[np.bool_], position: Any) -> Links:
    """Points of one part because they lie in one object."""
    found: Links = []
    order = np.argsort(objects, kind="stable")
    starts = np.unique(objects[order], return_index=True)[1]
    for start, stop in zip(starts, np.append(starts, len(order))[1:], strict=True):
        points = order[start:stop]
        anchors = points[spoken[points]]
        if len(np.unique(joined[anchors])) < 2:
            found += [(int(points[0]), int(other)) for other in points[1:]]
            continue
        for part in np.unique(joined[points[~spoken[points]]]):
            own = points[joined[points] == part]
            apart = cdist(position[own], position[anchors])
            one, other = np.unravel_index(np.argmin(apart), apart.shape)
            found.append((int(own[one]), int(anchors[other])))
    return found


def _numbers(objects: Ids, part: Ints) -> Ids:
    """New number of each point's object."""
    _, first, of = np.unique(part, return_index=True, return_inverse=True)
    least = np.full(len(first), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(least, of, objects)
    order = np.lexsort((first, least))
    rank = np.zeros(len(first), np.int64)
    rank[order] = np.arange(len(first))
    # Before a part are the parts of lower rank, and the objects without points.
    before = rank - np.searchsorted(np.unique(objects), least)
    return (least + before.astype(np.uint64))[of]


def _joined(count: int, links: Links) -> Ints:
    """Component of each of `count` nodes."""
    u, v = np.asarray(links, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(u)), (u, v)), shape=(count, count))
    labels: Ints = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels
