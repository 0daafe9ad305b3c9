"""Candidate links and divisions between two frames.

Invariants
----------
- Objects that overlap, or that a model associates, are candidates at any distance; others if they are
  near after motion and among the nearest of either.
- A division is one candidate: a mother and a pair of daughters in one frame, nearer one first.
- No two candidates are the same, and they are sorted by rows: a function of the objects only.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy.spatial import KDTree

from volsam.track.lineage import Floats, Ints
from volsam.track.scene import Scene
from volsam.track.settings import Track

NEAREST = 5
"""Objects of the other frame that an object may be linked to, besides those it overlaps."""
DAUGHTERS = 6
"""Candidate links of a mother, the nearest, of which pairs are made."""
_LATE = 2  # the same as `NEAREST`, for links that leave frames out


@dataclass(frozen=True)
class Links:
    """Candidate links.

    Parameters
    ----------
    source, target : (m,) int64
        Rows of the objects.
    """

    source: Ints
    target: Ints

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True)
class Divisions:
    """Candidate divisions.

    Parameters
    ----------
    mother, first, second : (m,) int64
        Rows of the objects.
    """

    mother: Ints
    first: Ints
    second: Ints

    def __len__(self) -> int:
        return len(self.mother)


def candidates(
    scene: Scene, frames: range, settings: Track, sources: range | None = None
) -> tuple[Links, Divisions]:
    """All candidates whose objects lie in consecutive `frames`.

    Parameters
    ----------
    scene : Scene
    frames : range
    settings : Track
        Longest gap, radius, and whether there are divisions; over gaps only the global solver makes them.
    sources : range, optional
        Frames among them of the objects that candidates start from, all by default.
    """
    reach = scene.reach if settings.radius is None else settings.radius * scene.units.diameter
    found, divided = [], []
    for frame in frames[:-1] if sources is None else sources:
        for gap in range(1, min(settings.max_gap + 1, frames[-1] - frame) + 1):
            found.append(links(scene, frame, gap, reach))
            if settings.divisions and (gap == 1 or settings.solver == "global"):
                divided.append(divisions(scene, found[-1], reach))
    none = np.zeros(0, np.int64)
    return (
        Links(*(np.concatenate([none, *(getattr(x, k) for x in found)]) for k in _sides(Links))),
        Divisions(
            *(np.concatenate([none, *(getattr(x, k) for x in divided)]) for k in _sides(Divisions))
        ),
    )


def _sides(kind: type[Links] | type[Divisions]) -> list[str]:
    return [field.name for field in fields(kind)]


def links(scene: Scene, frame: int, gap: int, radius: float) -> Links:
    """Candidate links from a frame to the one `gap` frames later.

    Parameters
    ----------
    scene : Scene
    frame : int
        Frame of the sources.
    gap : int
        Frames that a link spans, 1 where it leaves none out.
    radius : float
        Distance after motion up to which objects are linked, in units of length.
    """
    sources, targets = scene.rows(frame), scene.rows(frame + gap)
    near_source, near_target = near(
        scene.expected(sources, gap),
        scene.objects.position[targets],
        radius,
        NEAREST if gap == 1 else _LATE,
    )
    cover_source, cover_target, _ = scene.overlapping(frame, gap)
    pairs = np.concatenate(
        [
            np.stack([sources[near_source], targets[near_target]], axis=1),
            np.stack([cover_source, cover_target], axis=1),
        ]
    )
    if gap == 1 and scene.pasts is not None:
        scored = scene.pasts.pairs(*scene.span(range(frame, frame + 1)))
        pairs = np.concatenate([pairs, scored])
    pairs = np.unique(pairs, axis=0)
    return Links(pairs[:, 0], pairs[:, 1])


def near(before: Floats, after: Floats, radius: float, many: int) -> tuple[Ints, Ints]:
    """Pairs within `radius` of which one is among the other's `many` nearest."""
    if not len(before) or not len(after):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    found = []
    for here, there, turned in ((before, after, False), (after, before, True)):
        # k as a range: the answer has two axes even if there is one neighbour
        k = np.arange(1, min(many, len(there)) + 1)
        apart, index = KDTree(there).query(here, k=k, distance_upper_bound=radius)
        row, column = np.nonzero(np.isfinite(apart))
        pair = (row, index[row, column])
        found.append(pair[::-1] if turned else pair)
    one, other = (np.concatenate(side).astype(np.int64) for side in zip(*found, strict=True))
    return one, other


def divisions(scene: Scene, found: Links, radius: float) -> Divisions:
    """Pairs of the nearest candidate links of each source.

    Parameters
    ----------
    scene : Scene
    found : Links
        Candidate links between two frames.
    radius : float
        Distance after motion up to which daughters lie from their mother.
    """
    apart = scene.apart(found.source, found.target)
    order = np.lexsort((found.target, apart, found.source))
    source, target, apart = found.source[order], found.target[order], apart[order]
    first_of = np.searchsorted(source, source)  # where the run of this source starts
    rank = np.arange(len(source)) - first_of
    keep = (rank < DAUGHTERS) & (apart <= radius)
    source, target, rank = source[keep], target[keep], rank[keep]
    # What is kept of a source is still sorted by distance, so partners lie k further down.
    pairs = []
    for k in range(1, DAUGHTERS):
        same = source[k:] == source[:-k]
        pairs.append(np.stack([source[k:], target[:-k], target[k:]], axis=1)[same])
    rows = np.concatenate(pairs) if pairs else np.zeros((0, 3), np.int64)
    rows = rows[np.lexsort(rows.T[::-1])]
    return Divisions(*rows.T)
