"""Weights fitted from tracked truth.

The fit maximises the likelihood of what objects chose in the truth, past and future (`weights`): a
composite likelihood (Lindsay 1988), concave in the weights, with a Gaussian prior around the weights one
starts from. So a little truth changes them little.

Invariants
----------
- The same truth gives the same weights, whatever its order.
- A choice of the truth that is no candidate counts as none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from volsam.errors import VolsamError
from volsam.track.candidates import Divisions, Links, candidates
from volsam.track.features import division_features, end_features, link_features
from volsam.track.lineage import Floats, Ids, Ints
from volsam.track.scene import Scene
from volsam.track.settings import Track
from volsam.track.weights import Weights, places

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Example:
    """A sequence with its truth.

    Parameters
    ----------
    scene : Scene
    links : (m, 2) ids
        True links; all of the objects that are `known`.
    known : (n,) bool, optional
        Objects whose choices are learnt from, all by default.
    settings : Track, optional
        For the candidates.
    """

    scene: Scene
    links: Ids
    known: Mask | None = None
    settings: Track = field(default_factory=Track)


@dataclass(frozen=True)
class _Choices:
    """Choices of many objects: scores are `features` @ weights, options of a choice stand together.

    `first` is where each choice starts, `choice` the number of each option's choice, and `taken` the
    sum of the features of the options that were chosen.
    """

    features: Floats
    first: Ints
    choice: Ints
    taken: Floats


def fit(
    examples: Sequence[Example],
    start: Weights,
    strength: float = 3.0,
    free: Mask | None = None,
) -> Weights:
    """Fit weights.

    Parameters
    ----------
    examples : sequence of Example
    start : Weights
        Where the prior is centred.
    strength : float
        Precision of the prior: 1 expects weights within about 1 of those of `start`, 4 within a half.
    free : (k,) bool, optional
        Weights that may change, all by default.

    Raises
    ------
    VolsamError
        If no example has a link to learn from.
    """
    parts = [part for example in examples for part in _choices(example)]
    if not any(len(part.first) for part in parts):
        raise VolsamError(
            "There is nothing to fit weights from; give truth with at least one link."
        )

    def loss(weights: Floats) -> tuple[float, Floats]:
        away = weights - start.vector
        value, slope = 0.5 * strength * float(away @ away), strength * away
        for part in parts:
            if not len(part.first):
                continue
            score = part.features @ weights
            top = np.maximum.reduceat(score, part.first)
            odds = np.exp(score - top[part.choice])
            total = np.add.reduceat(odds, part.first)
            value += float((np.log(total) + top).sum() - part.taken @ weights)
            slope += part.features.T @ (odds / total[part.choice]) - part.taken
        return value, slope if free is None else slope * free

    found = minimize(loss, start.vector, jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    return Weights(found.x)


def truth(scene: Scene, links: Links, divisions: Divisions, true: Ids) -> tuple[Mask, Mask]:
    """Which candidates are true: of an object's several successors the nearest in time."""
    rows = scene.objects.rows(np.asarray(true, np.uint64).reshape(-1, 2))
    n = len(scene.objects)
    known = np.sort(rows[:, 0] * n + rows[:, 1])

    def holds(source: Ints, target: Ints) -> Mask:
        place = np.searchsorted(known, source * n + target).clip(max=max(0, len(known) - 1))
        found: Mask = (
            known[place] == source * n + target if len(known) else np.zeros(len(source), bool)
        )
        return found

    divided = holds(divisions.mother, divisions.first) & holds(divisions.mother, divisions.second)
    linked = holds(links.source, links.target) & ~np.isin(links.source, divisions.mother[divided])
    order = np.flatnonzero(linked)
    order = order[np.lexsort((links.target[order], links.source[order]))]
    _, nearest = np.unique(links.source[order], return_index=True)
    linked[:] = False
    linked[order[nearest]] = True
    return linked, divided


def _choices(example: Example) -> list[_Choices]:
    """Futures and pasts of an example's objects."""
    scene = example.scene
    links, divisions = candidates(scene, range(scene.frames), example.settings)
    linked, divided = truth(scene, links, divisions, example.links)
    rows, frame = np.arange(len(scene.objects)), scene.objects.frame
    known = np.ones(len(rows), np.bool_) if example.known is None else example.known
    ends, of_link = end_features(scene, rows), link_features(scene, links)
    of_division = division_features(scene, divisions)
    return [
        _gather(
            known & (frame < scene.frames - 1),
            [
                ("end", ends, rows),
                ("link", of_link, links.source),
                ("division", of_division, divisions.mother),
            ],
            [linked, divided],
        ),
        _gather(
            known & (frame > 0),
            [
                ("start", ends, rows),
                ("link", of_link, links.target),
                ("division", of_division, divisions.first),
                ("division", of_division, divisions.second),
            ],
            [linked, divided, divided],
        ),
    ]


def _gather(known: Mask, options: list[tuple[str, Floats, Ints]], true: list[Mask]) -> _Choices:
    """Options of all choices, sorted by the row whose choice it is; the first kind is to have none."""
    chooser = np.concatenate([row for _, _, row in options])
    chosen = np.concatenate([np.zeros(len(known), np.bool_), *true])
    has = np.zeros(len(known), np.bool_)
    has[chooser[chosen]] = True
    chosen[: len(known)] = ~has
    width = places("end").stop
    features = np.zeros((len(chooser), width))
    at = 0
    for name, columns, row in options:
        features[at : at + len(row), places(name)] = columns
        at += len(row)
    kept = np.flatnonzero(known[chooser])
    kept = kept[np.argsort(chooser[kept], kind="stable")]
    features, chooser, chosen = features[kept], chooser[kept], chosen[kept]
    _, first, choice = np.unique(chooser, return_index=True, return_inverse=True)
    return _Choices(features, first, choice, features[chosen].sum(axis=0))
