"""The objects of a sequence as linking looks at them: by frame, moved, and in units of themselves.

Invariants
----------
- Lengths are compared with the median diameter of the objects and with how far objects usually move;
  brightness with its spread. So no cost knows of pixels, micrometres or grey values.
- These units are of the whole sequence, whichever part of it is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from volsam.track.associations import Associations, Pasts
from volsam.track.lineage import Floats, Ids, Ints, Objects
from volsam.track.measure import edge_distance, radius
from volsam.track.motion import mutual, neighbourly

_SAMPLE = 200  # pairs of frames from which the usual displacement is taken
_RANKED = ("intensity", "deviation")
_REACH = 2.0  # how far an object gets from where it is expected, in diameters
_RUN = 6.0  # the same, in usual displacements
_RARE = 0.003  # shares and rates below tell nothing


@dataclass(frozen=True)
class Overlaps:
    """Voxels that moved objects of a frame have in common with objects of a later frame.

    Parameters
    ----------
    source, target : (m,) uint64
        Ids of the objects.
    size : (m,) float64
        Common size, in the unit of `Objects.size`.
    """

    source: Ids
    target: Ids
    size: Floats


@dataclass(frozen=True)
class Units:
    """What is usual in a sequence.

    Parameters
    ----------
    diameter : float
        Median diameter of the disc or ball as large as an object; where all sizes are the same, half the
        median distance of nearest neighbours.
    step : float
        Median displacement between neighbouring frames after motion, of objects that are each other's
        nearest.
    size : float
        Median size.
    planar : bool
        All objects lie in one plane.
    loose : float
        How many objects have no mutual nearest in the next frame; log of the share, 0 for none.
    population : float
        How fast objects become more; log of the rate per frame, 0 where they do not.
    """

    diameter: float
    step: float
    size: float
    planar: bool
    loose: float = 0.0
    population: float = 0.0


class Scene:
    """Objects by frame, where they are expected, and what they cover.

    Parameters
    ----------
    objects : Objects
        ``motion`` (n, 3) among its values is the displacement to the next frame that images tell, and
        ``embedding`` (n, d) what a network makes of them, NaN where that is not known.
    overlaps : Overlaps, optional
        Between frames up to the longest gap apart.
    associations : Associations, optional
        Scores of a model; `pasts` has their odds.
    """

    def __init__(
        self,
        objects: Objects,
        overlaps: Overlaps | None = None,
        associations: Associations | None = None,
    ) -> None:
        self.objects = objects
        self.pasts = None if associations is None else Pasts(objects, associations)
        self._overlap_rows = self._sorted(overlaps)
        self._overlap_key = np.zeros(0, np.int64)
        if self._overlap_rows is not None:
            self._overlap_key = self._overlap_rows[0] * len(objects) + self._overlap_rows[1]
        last = int(objects.frame[-1]) if len(objects) else -1
        self.frames = last + 1
        self._start = np.searchsorted(objects.frame, np.arange(last + 2))
        position, size = objects.position, objects.size
        planar = bool(np.ptp(position[:, 0]) == 0) if len(objects) else True
        self.radius = radius(size, planar)
        self.motion = np.array(objects.values.get("motion", np.zeros((len(objects), 3))), float)
        self.reach, self.units = 0.0, self._units(planar)
        for frame in range(self.frames - 1):
            here, there = self.rows(frame), self.rows(frame + 1)
            self.motion[here] = neighbourly(
                position[here], position[there], self.motion[here], self.reach
            )
        self.units = replace(
            self._units(planar), loose=self._loose(), population=self._population()
        )
        self._claims = self._claimed()
        self._ranks = {
            name: _ranks(objects.values[name]) for name in _RANKED if name in objects.values
        }
        self.border = objects.values.get("border", self._border())
        self._looks = objects.values.get("embedding")
        self._usual = self._usually_unlike()

    def _units(self, planar: bool) -> Units:
        """Units of the sequence; how far objects may get follows from them."""
        o = self.objects
        if not len(o):
            return Units(1.0, 1.0, 1.0, planar)
        steps, spacing = [np.zeros(0)], [np.zeros(0)]
        for frame in self._sampled(self.frames):
            here, there = self.rows(frame), self.rows(frame + 1)
            steps.append(mutual(self.expected(here, 1), o.position[there], np.inf)[2])
            if len(here) > 1:
                spacing.append(KDTree(o.position[here]).query(o.position[here], k=2)[0][:, 1])
        size, step, free = (
            float(np.median(x)) if len(x) else 0.0
            for x in (o.size, np.concatenate(steps), np.concatenate(spacing))
        )
        diameter = 2 * float(np.median(self.radius))
        if np.ptp(o.size) == 0 and free:
            diameter = free / 2
        step = max(step, 0.01 * diameter)
        self.reach = max(_REACH * diameter, _RUN * step)
        return Units(diameter, step, size, planar)

    def _sampled(self, stop: int) -> range:
        """Frames before `stop` from which what is usual is taken."""
        return range(0, stop, max(1, self.frames // _SAMPLE))

    def _loose(self) -> float:
        o, single, total = self.objects, 0, 0
        for frame in self._sampled(self.frames - 1):
            here, there = self.rows(frame), self.rows(frame + 1)
            pairs, *_ = mutual(self.expected(here, 1), o.position[there], self.reach)
            single, total = single + len(here) - len(pairs), total + len(here)
        return _often(single / max(1, total))

    def _population(self) -> float:
        frames, count = np.unique(self.objects.frame, return_counts=True)
        if not len(frames):
            return 0.0
        count, time = np.log(count), frames - frames.mean()
        return _often(float(time @ count) / max(1.0, float(time @ time)))

    def _claimed(self) -> tuple[Ints, Floats, Floats]:
        """Who claims each object, its nearest in the frame before: the row of the nearest of them, its
        distance, and that of the next one."""
        o = self.objects
        first = np.full(len(o), -1)
        near, next_ = np.full(len(o), np.inf), np.full(len(o), np.inf)
        for frame in range(self.frames - 1):
            here, there = self.rows(frame), self.rows(frame + 1)
            if not len(here) or not len(there):
                continue
            apart, nearest = KDTree(o.position[there]).query(self.expected(here, 1))
            order = np.lexsort((here, apart, nearest))
            target, start = np.unique(nearest[order], return_index=True)
            first[there[target]] = here[order[start]]
            near[there[target]] = apart[order[start]]
            several = np.diff(np.append(start, len(order))) > 1
            next_[there[target[several]]] = apart[order[start[several] + 1]]
        return first, near, next_

    def _usually_unlike(self) -> float:
        """Usual distance of the embeddings of objects that are each other's nearest in the next frame."""
        if self._looks is None:
            return 0.0
        found = [np.zeros(0)]
        for frame in self._sampled(self.frames - 1):
            here, there = self.rows(frame), self.rows(frame + 1)
            a, b, _ = mutual(self.expected(here, 1), self.objects.position[there], np.inf)
            found.append(np.linalg.norm(self._looks[here[a]] - self._looks[there[b]], axis=1))
        distance = np.concatenate(found)
        distance = distance[distance > 0]  # nor NaN
        return float(np.median(distance)) if len(distance) else 0.0

    def _border(self) -> Floats:
        """Distance from where the field ends, if that is where the outermost objects are."""
        position = self.objects.position
        if not len(position):
            return np.zeros(0)
        low = position.min(axis=0)
        border: Floats = edge_distance(position - low, position.max(axis=0) - low)
        return border

    def _sorted(self, overlaps: Overlaps | None) -> tuple[Ints, Ints, Floats] | None:
        """Rows and common size of objects that overlap, sorted by rows."""
        if overlaps is None:
            return None
        source, target = (self.objects.rows(ids) for ids in (overlaps.source, overlaps.target))
        order = np.lexsort((target, source))
        return source[order], target[order], overlaps.size[order]

    @property
    def covers(self) -> bool:
        """Whether overlaps are known."""
        return self._overlap_rows is not None

    def rank(self, name: str) -> Floats:
        """Rank of a measured value among all objects, (n,) from -1 to 1; 0 where it was not measured."""
        return self._ranks.get(name, np.zeros(len(self.objects)))

    def unlike(self, one: Ints, other: Ints) -> Floats:
        """How unlike objects look to a network: as a log of the odds, 0 at what is usual of an object in
        two frames, and where it is not known."""
        if self._looks is None or not self._usual:
            return np.zeros(len(one))
        apart = (self._looks[one] - self._looks[other]).astype(np.float64) / self._usual
        log: Floats = np.log1p((apart**2).sum(axis=1)) - np.log(2)
        return np.nan_to_num(log, nan=0.0)

    def rows(self, frame: int) -> Ints:
        """Rows of the objects of a frame."""
        if not 0 <= frame < self.frames:
            return np.zeros(0, np.int64)
        return np.arange(self._start[frame], self._start[frame + 1])

    def span(self, frames: range) -> tuple[int, int]:
        """First row of consecutive frames, and the one after their last."""
        return int(self._start[frames[0]]), int(self._start[frames[-1] + 1])

    def expected(self, rows: Ints, gap: float | Floats) -> Floats:
        """Where objects are expected `gap` frames later, (n, 3)."""
        moved: Floats = self.objects.position[rows] + np.reshape(gap, (-1, 1)) * self.motion[rows]
        return moved

    def apart(self, source: Ints, target: Ints) -> Floats:
        """Distance of targets from where their sources are expected."""
        o = self.objects
        where = self.expected(source, (o.frame[target] - o.frame[source]).astype(np.float64))
        distance: Floats = np.linalg.norm(o.position[target] - where, axis=1)
        return distance

    def claimed(self, source: Ints, target: Ints) -> Floats:
        """Distance of the nearest object of the frame before, `source` aside, to which nothing is nearer
        than `target`; infinite where there is none."""
        first, near, next_ = self._claims
        distance: Floats = np.where(first[target] == source, next_[target], near[target])
        return distance

    def overlapping(self, frame: int, gap: int) -> tuple[Ints, Ints, Floats]:
        """Rows and common size of the objects of two frames that overlap."""
        none = np.zeros(0, np.int64)
        if self._overlap_rows is None:
            return none, none, np.zeros(0)
        source, target, size = self._overlap_rows
        if not 0 <= frame < self.frames - gap:
            return none, none, np.zeros(0)
        run = slice(*np.searchsorted(source, self._start[frame : frame + 2]))
        chosen = self.objects.frame[target[run]] == frame + gap
        return source[run][chosen], target[run][chosen], size[run][chosen]

    def overlap(self, source: Ints, target: Ints) -> Floats:
        """Common size of pairs of rows, 0 where they do not overlap."""
        if self._overlap_rows is None or not len(self._overlap_key):
            return np.zeros(len(source))
        wanted = source * len(self.objects) + target
        place = np.searchsorted(self._overlap_key, wanted).clip(max=len(self._overlap_key) - 1)
        size: Floats = np.where(
            self._overlap_key[place] == wanted, self._overlap_rows[2][place], 0.0
        )
        return size


def _ranks(values: npt.NDArray[Any]) -> Floats:
    """Rank of each value, to a half per cent."""
    if not len(values):
        return np.zeros(0)
    place = np.linspace(0, 1, 201)
    rank: Floats = np.interp(values, np.quantile(values, place), 2 * place - 1)
    return rank


def _often(rate: float) -> float:
    """Decades by which a rate is above what is rare."""
    return float(np.log10(max(0.0, rate) / _RARE + 1))
