"""From objects to links: the one entry of linking.

What candidates gain is found frame by frame (`gained`). A window's links are chosen among them
(`choose`), all at once or in shares of its independent components.

Invariants
----------
- Links are a function of objects, overlaps, constraints and settings: not of the order of objects within
  a frame, nor of who looks at which frames, or links which share of which window, when.
- Pairs that must be linked are, and pairs that must not be are not, whatever it costs.
- Memory is that of the tables, of one frame's candidates, and of those of one window that gain something.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from volsam.errors import VolsamError
from volsam.track.associations import Associations
from volsam.track.candidates import candidates
from volsam.track.defaults import DEFAULTS
from volsam.track.lineage import Floats, Ids, Ints, Objects
from volsam.track.scene import Overlaps, Scene
from volsam.track.settings import Track
from volsam.track.solve import FORCE, Problem, exact, stepwise
from volsam.track.weights import Weights, gains
from volsam.track.windows import Window, windows


class Found(NamedTuple):
    """Links of a window: rows of source and target, and what the candidate they are part of gains."""

    pairs: Ints
    gain: Floats


@dataclass(frozen=True)
class Constraints:
    """What a user corrected.

    Parameters
    ----------
    must, never : (m, 2) int64
        Rows of source and target.
    """

    must: Ints
    never: Ints

    @classmethod
    def of(
        cls, objects: Objects, must: npt.ArrayLike | None, never: npt.ArrayLike | None
    ) -> Constraints:
        """Constraints from ids of pairs.

        Raises
        ------
        VolsamError
            If there is no such object or the pairs cannot all be in a lineage.
        """
        rows = [
            objects.rows(np.asarray([] if ids is None else ids, np.uint64).reshape(-1, 2))
            for ids in (must, never)
        ]
        forced = np.unique(rows[0], axis=0)
        source, target = forced.T

        def check(wrong: npt.NDArray[np.bool_], what: str) -> None:
            if wrong.any():
                a, b = objects.id[forced[np.argmax(wrong)]]
                raise VolsamError(f"The correction that links object {a} to object {b} {what}.")

        check(
            objects.frame[source] >= objects.frame[target],
            "does not go forward in time; leave it out",
        )
        n = len(objects)
        check(np.isin(source * n + target, rows[1] @ [n, 1]), "is forbidden by another; keep one")
        check(np.bincount(target, minlength=n)[target] > 1, "gives it two pasts; keep one")
        check(
            np.bincount(source, minlength=n)[source] > 2,
            "gives it more than two daughters; keep two",
        )
        return cls(forced, rows[1])


def link(
    objects: Objects,
    overlaps: Overlaps | None = None,
    settings: Track | None = None,
    must: npt.ArrayLike | None = None,
    never: npt.ArrayLike | None = None,
    associations: Associations | None = None,
) -> Ids:
    """Link objects to lineages.

    Parameters
    ----------
    objects : Objects
        ``motion``, ``intensity``, ``deviation``, ``elongation`` and ``border`` among their values are
        used if there (`measure`).
    overlaps : Overlaps, optional
        Which objects cover each other, between frames up to ``max_gap`` + 1 apart.
    settings : Track, optional
    must, never : (m, 2) ids, optional
        Pairs that a user linked, or cut.
    associations : Associations, optional
        What a model says of the pasts of objects (`associate`).

    Returns
    -------
    (m, 2) uint64
        Ids of object and successor, sorted by rows of the successors.

    Raises
    ------
    VolsamError
        If weights cannot be read or constraints contradict each other.
    """
    settings = settings or Track()
    scene = Scene(objects, overlaps, associations)
    constraints = Constraints.of(objects, must, never)
    weights = choose_weights(settings, scene)
    parts = [
        link_window(scene, window, settings, weights, constraints)
        for window in windows(scene.frames, settings.window, settings.overlap)
    ]
    return objects.id[join(parts)]


def choose_weights(settings: Track, scene: Scene) -> Weights:
    """Weights that the settings name."""
    if settings.weights is not None:
        return Weights.read(Path(settings.weights))
    if settings.kind == "auto":
        return DEFAULTS["general" if scene.covers else "points"]
    return DEFAULTS[settings.kind]


def link_window(
    scene: Scene, window: Window, settings: Track, weights: Weights, constraints: Constraints
) -> Found:
    """Links from the objects of a window's own frames."""
    found = [gained(scene, frame, settings, weights, constraints) for frame in window.seen]
    return choose(Problem.join(found), scene.objects.frame, window, settings)


def gained(
    scene: Scene, frame: int, settings: Track, weights: Weights, constraints: Constraints
) -> Problem:
    """Candidates from the objects of one frame that gain something; no others are ever chosen."""
    frames = range(frame, min(frame + settings.max_gap + 2, scene.frames))
    found = candidates(scene, frames, settings, sources=frames[:1])
    problem = constrain(gains(scene, *found, weights), scene.objects, frame, constraints)
    return problem.only(problem.link_gain > 0, problem.division_gain > 0)


def choose(
    problem: Problem, frame: Ints, window: Window, settings: Track, part: int = 0, parts: int = 1
) -> Found:
    """Links from the objects of a window's own frames, by what candidates gain.

    Parameters
    ----------
    problem : Problem
        Candidates from the frames that the window sees, or from more.
    frame : (n,) int64
        Frame of each row.
    window : Window
    settings : Track
    part, parts : int
        Which share is chosen, of how many; see `exact`. The solver in steps knows no shares.
    """
    problem = _within(problem, frame, window.seen)
    if settings.solver == "global":
        chosen = exact(problem, part, parts)
    else:
        chosen = stepwise(problem, frame[problem.links.target] - frame[problem.links.source])
    pairs, gain = problem.pairs(chosen)
    first, stop = np.searchsorted(frame, [window.own.start, window.own.stop])
    own = (pairs[:, 0] >= first) & (pairs[:, 0] < stop)
    return Found(pairs[own], gain[own])


def _within(problem: Problem, frame: Ints, seen: range) -> Problem:
    """Candidates whose objects lie in some frames; what is demanded of these may lead farther."""
    first, stop = np.searchsorted(frame, [seen.start, seen.stop])

    def inside(gain: Floats, source: Ints, *targets: Ints) -> npt.NDArray[np.bool_]:
        ends = np.logical_and.reduce([target < stop for target in targets])
        kept: npt.NDArray[np.bool_] = (source >= first) & (source < stop)
        return kept & (ends | (gain >= FORCE / 2))

    a, d = problem.links, problem.divisions
    return problem.only(
        inside(problem.link_gain, a.source, a.target),
        inside(problem.division_gain, d.mother, d.first, d.second),
    )


def constrain(problem: Problem, objects: Objects, frame: int, constraints: Constraints) -> Problem:
    """Leave out what constraints forbid of a frame's candidates; what they demand outweighs all."""
    if not len(constraints.must) and not len(constraints.never):
        return problem
    n = len(objects)
    source, target = constraints.must.T
    here = objects.frame[source] == frame
    problem = problem.with_links(source[here], target[here])
    twice = np.flatnonzero((source[1:] == source[:-1]) & here[1:])
    problem = problem.with_divisions(source[twice], target[twice], target[twice + 1])
    demanded, forbidden = source * n + target, constraints.never @ [n, 1]
    many = np.bincount(source, minlength=n)  # links that an object must have

    def gain(base: Floats, mother: Ints, *daughters: Ints) -> Floats:
        pairs = [mother * n + daughter for daughter in daughters]
        kept = sum(np.isin(pair, demanded).astype(np.int64) for pair in pairs)
        # Another past of a daughter that has one, fewer daughters than are demanded, or a cut pair.
        wrong = kept < many[mother]
        for pair, daughter in zip(pairs, daughters, strict=True):
            wrong |= np.isin(pair, forbidden)
            wrong |= np.isin(daughter, target) & ~np.isin(pair, demanded)
        value: Floats = np.where(wrong, -1.0, np.where(kept > 0, FORCE + base, base))
        return value

    a, d = problem.links, problem.divisions
    return Problem(
        a,
        gain(problem.link_gain, a.source, a.target),
        d,
        gain(problem.division_gain, d.mother, d.first, d.second),
    )


def join(parts: list[Found]) -> Ints:
    """Links of all windows, (m, 2) rows sorted by target; of two to one target, the greater gain."""
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *(part.pairs for part in parts)])
    gain = np.concatenate([np.zeros(0), *(part.gain for part in parts)])
    order = np.lexsort((pairs[:, 0], -gain, pairs[:, 1]))
    _, first = np.unique(pairs[order, 1], return_index=True)
    best: Ints = pairs[order[first]]
    return best
