"""Whether edited labels were edited over the present result, or over an earlier one.

An edit touches few objects, and where it merges and splits their common outline stays. Labels of an
earlier segmentation have other outlines nearly everywhere. Labels of before some corrections have the
same outlines but other numbers, since objects are numbered through, and seem to undo them. So

- other outlines of most objects are another result, and so are the numbers of before the corrections, or
  many other numbers where corrections are undone;
- most objects changed in any way, or many other numbers alone, may be: some programs number anew.

Objects that were erased, or drawn where nothing was, tell nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from volsam.stitch.overlaps import count_overlaps, present_labels
from volsam.track.edited_labels import Frame, Labels

Ints = npt.NDArray[np.int64]
MANY = 10
"""Fewer objects than these may all have been drawn by hand."""


class Likeness(NamedTuple):
    """How many objects of a result are in edited labels as they were.

    Attributes
    ----------
    objects : int
        Objects of the result of which something is left.
    redrawn : int
        Of these: the outline of what they became part of, or were parted into, is another one.
    changed : int
        They are not there voxel by voxel.
    renumbered : int
        They are, with another number.
    given : int
        Objects as they were found, before any correction, which are there voxel by voxel and have a
        number that the result does not have in that place.
    as_found : int
        Of these: it is the number with which they were found.
    """

    objects: int = 0
    redrawn: int = 0
    changed: int = 0
    renumbered: int = 0
    given: int = 0
    as_found: int = 0

    def plus(self, other: Likeness) -> Likeness:
        """Of both."""
        return Likeness(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def numbered_anew(self) -> bool:
        """Whether more have another number than a few that the user gave it."""
        return self.renumbered >= MANY or 2 * self.renumbered > self.objects - self.changed

    def earlier(self, undone: int) -> str | None:
        """What shows that the labels are of an earlier result, if something does.

        Parameters
        ----------
        undone : int
            Corrections that hold in the result and not in the labels.
        """
        if self.redrawn >= MANY and 2 * self.redrawn > self.objects:
            return f"{self.redrawn} of {self.objects} objects have another outline"
        if self.as_found and 2 * self.as_found >= self.given:
            return f"{self.as_found} objects have the numbers of before their correction"
        if self.numbered_anew and undone:
            return (
                f"{self.renumbered} objects that nobody touched have other numbers, and {undone} "
                "corrections are undone"
            )
        return None

    @property
    def doubt(self) -> str | None:
        """What makes one think so, if something does."""
        if 2 * self.changed > self.objects:
            return f"{self.changed} of {self.objects} objects differ from the present result"
        if self.numbered_anew:
            return f"{self.renumbered} of {self.objects} objects have other numbers than at present"
        return None


class _Shared(NamedTuple):
    """Numbers of two label images, how many voxels each has, and those that pairs have in common."""

    numbers: tuple[Ints, Ints]
    size: tuple[Ints, Ints]
    pair: tuple[Ints, Ints]
    """Places in `numbers`."""
    common: Ints

    @classmethod
    def of(cls, one: Labels, other: Labels) -> _Shared:
        images = one.astype(np.int64), other.astype(np.int64)
        (a, size_a), (b, size_b) = (present_labels(image) for image in images)
        u, v, count = count_overlaps(*images)
        return cls((a, b), (size_a, size_b), (np.searchsorted(a, u), np.searchsorted(b, v)), count)

    def ends(self) -> list[tuple[int, int]]:
        """Numbers of the pairs."""
        ends = (numbers[at].tolist() for numbers, at in zip(self.numbers, self.pair, strict=True))
        return list(zip(*ends, strict=True))

    def same(self) -> dict[int, int]:
        """Number in the other image of what is the same object voxel by voxel."""
        sizes = (size[at] for size, at in zip(self.size, self.pair, strict=True))
        same = np.logical_and(*(self.common == size for size in sizes))
        return dict(ends for ends, alike in zip(self.ends(), same, strict=True) if alike)

    def redrawn(self) -> int:
        """Objects whose part of the graph of overlaps is not the same voxels in both."""
        (u, v), (size_u, size_v) = self.pair, self.size
        n = len(size_u) + len(size_v)
        graph = coo_array((self.common, (u, len(size_u) + v)), shape=(n, n))
        parts, part = connected_components(graph, directed=False)
        own, others = part[: len(size_u)], part[len(size_u) :]
        both = np.bincount(own[u], self.common, parts)
        differs = both > 0
        differs &= (np.bincount(own, size_u, parts) != both) | (
            np.bincount(others, size_v, parts) != both
        )
        return int(np.count_nonzero(differs[own]))


def likeness(frame: Frame) -> Likeness:
    """Compare a frame with what it was edited over."""
    shared = _Shared.of(frame.before, frame.after)
    same = shared.same()
    given: list[tuple[int, int]] = []
    if frame.found is not frame.before:
        there = set(_Shared.of(frame.found, frame.before).ends())
        found = _Shared.of(frame.found, frame.after).same()
        given = [ends for ends in found.items() if ends not in there]
    objects = len(np.unique(shared.pair[0]))
    return Likeness(
        objects,
        shared.redrawn(),
        objects - len(same),
        sum(object_ != number for object_, number in same.items()),
        len(given),
        sum(object_ == number for object_, number in given),
    )
