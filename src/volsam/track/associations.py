"""What a model of association says of the pasts of objects, as odds that linking adds up.

A model scores pairs of neighbouring frames: the probability that the one is the past of the other, its
predecessor or its mother. The scores of an object's candidates and of having none add up to one.

Invariants
----------
- Odds are of a past against none, as are the gains that they become part of.
- Odds are bounded: no model is surer than `SUREST`.
- Of pairs that the model has not looked at nothing is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from volsam.track.lineage import Floats, Ids, Ints, Objects

SUREST = 0.99
"""Highest probability that is believed; what it leaves is the lowest."""


@dataclass(frozen=True)
class Associations:
    """Scores of pairs of objects of neighbouring frames.

    Parameters
    ----------
    source, target : (m,) uint64
        Ids of the earlier and the later object; pairs that are left out score nothing.
    score : (m,) float64
        Probability that the source is the past of the target, 0 to 1.
    seen : (n,) uint64, optional
        Ids of the objects that the model looked at; all of them by default.
    """

    source: Ids
    target: Ids
    score: Floats
    seen: Ids | None = None


class Pasts:
    """Odds of the pasts of the objects of a sequence.

    Parameters
    ----------
    objects : Objects
    found : Associations
    """

    def __init__(self, objects: Objects, found: Associations) -> None:
        source, target = (objects.rows(ids) for ids in (found.source, found.target))
        order = np.lexsort((target, source))
        self._frame = objects.frame
        self._source, self._target = source[order], target[order]
        self._score = found.score[order]
        self._key = self._source * len(objects) + self._target
        total = np.bincount(self._target, self._score, len(objects))
        self._none = np.clip(1 - total, 1 - SUREST, 1.0)
        self._seen = np.ones(len(objects), np.bool_)
        if found.seen is not None:
            self._seen = np.isin(objects.id, found.seen)

    def pairs(self, first: int, last: int) -> Ints:
        """Pairs with a score whose sources are the rows from `first` to before `last`, (m, 2)."""
        run = slice(*np.searchsorted(self._source, [first, last]))
        return np.stack([self._source[run], self._target[run]], axis=1)

    def known(self, source: Ints, target: Ints) -> npt.NDArray[np.bool_]:
        """Which pairs of rows the model has looked at."""
        near = self._frame[target] - self._frame[source] == 1
        looked: npt.NDArray[np.bool_] = near & self._seen[source] & self._seen[target]
        return looked

    def odds(self, source: Ints, target: Ints) -> Floats:
        """Log of the odds that sources are the pasts of targets, against these having none."""
        score = np.zeros(len(source))
        if len(self._key):
            wanted = source * len(self._frame) + target
            place = np.searchsorted(self._key, wanted).clip(max=len(self._key) - 1)
            score = np.where(self._key[place] == wanted, self._score[place], 0.0)
        odds: Floats = np.log(np.clip(score, 1 - SUREST, SUREST) / self._none[target])
        return odds
