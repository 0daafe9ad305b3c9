"""The choice among candidate links and divisions: one exact, one in steps.

Every object has one past and one future: at most one candidate that leads to it and at most one that
leads on may be chosen. The best choice has the greatest sum of gains. That is an integer program
after Jug et al. (2014) and Malin-Mayer et al. (2023); without divisions it is a matching.

Invariants
----------
- Candidates without gain are never chosen.
- What is chosen is a function of the candidates and their gains, and of each connected component by
  itself: neither order nor what else is solved along with it matters, nor who solves which component.
  Ties go to the candidate that comes first.
- Constraints hold exactly, whatever tolerance a solver has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

from volsam.track.candidates import Divisions, Links
from volsam.track.lineage import Floats, Ints

Mask = npt.NDArray[np.bool_]

_OPTIMALITY = 1e-9  # relative distance from the best choice at which HiGHS may stop

SMALL, SETS = 64, 10_000
"""Candidates of a component up to which the best choice is searched for, and sets of them after which the
search is given up; most take fewer than a hundred."""

FORCE = 1e4
"""Gain of what a user demands: more than any set of rivals gains."""


@dataclass(frozen=True)
class Problem:
    """Candidates and what each would gain.

    Parameters
    ----------
    links : Links
    link_gain : (m,) float64
    divisions : Divisions
    division_gain : (k,) float64
    """

    links: Links
    link_gain: Floats
    divisions: Divisions
    division_gain: Floats

    @property
    def gain(self) -> Floats:
        """Gains of links, then of divisions."""
        return np.concatenate([self.link_gain, self.division_gain])

    @classmethod
    def join(cls, parts: Sequence[Problem]) -> Problem:
        """The candidates of all parts, in their order."""

        def side(*names: str) -> npt.NDArray[Any]:
            found = [reduce(getattr, names, part) for part in parts]
            none = np.zeros(0, np.float64 if len(names) == 1 else np.int64)
            return np.concatenate([none, *found])

        return cls(
            Links(*(side("links", name) for name in ("source", "target"))),
            side("link_gain"),
            Divisions(*(side("divisions", name) for name in ("mother", "first", "second"))),
            side("division_gain"),
        )

    def only(self, link: Mask, division: Mask) -> Problem:
        """Some of the candidates."""
        a, d = self.links, self.divisions
        return Problem(
            Links(a.source[link], a.target[link]),
            self.link_gain[link],
            Divisions(d.mother[division], d.first[division], d.second[division]),
            self.division_gain[division],
        )

    def slots(self) -> Ints:
        """Pasts and futures that each candidate takes, (m + k, 3) int64.

        Slot 2 r is the future of row r, slot 2 r + 1 its past; a link's third slot is -1.
        """
        a, d = self.links, self.divisions
        none = np.full(len(a), -1)
        link = np.stack([2 * a.source, 2 * a.target + 1, none], axis=1)
        division = np.stack([2 * d.mother, 2 * d.first + 1, 2 * d.second + 1], axis=1)
        return np.concatenate([link, division])

    def pairs(self, chosen: Mask) -> tuple[Ints, Floats]:
        """Links that a choice makes: (m, 2) rows of source and target, and gain of their candidate."""
        a, d = self.links, self.divisions
        link, divided = chosen[: len(a)], chosen[len(a) :]
        source = np.concatenate([a.source[link], d.mother[divided], d.mother[divided]])
        target = np.concatenate([a.target[link], d.first[divided], d.second[divided]])
        gain = self.division_gain[divided]
        gain = np.concatenate([self.link_gain[link], gain, gain])
        return np.stack([source, target], axis=1), gain

    def total(self, pairs: Ints) -> float:
        """Gain of a lineage by its links, (m, 2) rows; pairs that are no candidates gain nothing."""
        a, d = self.links, self.divisions
        rows = 1 + int(max(side.max(initial=0) for side in (pairs, a.target, d.second, d.first)))
        known = pairs @ [rows, 1]
        alone = np.bincount(pairs[:, 0], minlength=rows) == 1
        linked = np.isin(a.source * rows + a.target, known) & alone[a.source]
        divided = np.isin(d.mother * rows + d.first, known)
        divided &= np.isin(d.mother * rows + d.second, known)
        return float(self.link_gain[linked].sum() + self.division_gain[divided].sum())

    def with_links(self, source: Ints, target: Ints) -> Problem:
        """More candidate links, which gain nothing; those that are candidates already are left out."""
        a = self.links
        known = set(zip(a.source.tolist(), a.target.tolist(), strict=True))
        pairs = zip(source.tolist(), target.tolist(), strict=True)
        new = np.asarray([pair for pair in pairs if pair not in known], np.int64).reshape(-1, 2)
        links = Links(np.append(a.source, new[:, 0]), np.append(a.target, new[:, 1]))
        return replace(self, links=links, link_gain=np.append(self.link_gain, np.zeros(len(new))))

    def with_divisions(self, mother: Ints, one: Ints, other: Ints) -> Problem:
        """More candidate divisions, which gain nothing; see `with_links`."""
        d = self.divisions
        sisters = zip(d.first.tolist(), d.second.tolist(), strict=True)
        known = {(m, frozenset(s)) for m, s in zip(d.mother.tolist(), sisters, strict=True)}
        rows = zip(mother.tolist(), one.tolist(), other.tolist(), strict=True)
        new = [row for row in rows if (row[0], frozenset(row[1:])) not in known]
        extra = np.asarray(new, np.int64).reshape(-1, 3)
        sides = zip((d.mother, d.first, d.second), extra.T, strict=True)
        divisions = Divisions(*(np.append(side, more) for side, more in sides))
        none = np.zeros(len(extra))
        return replace(self, divisions=divisions, division_gain=np.append(self.division_gain, none))


def exact(problem: Problem, part: int = 0, parts: int = 1) -> Mask:
    """The best choice.

    Candidates that must be part of a best choice are taken first; what remains is solved one connected
    component at a time.

    Parameters
    ----------
    problem : Problem
    part, parts : int
        Which share of the components is solved, of how many; what is certain comes with the first. The
        best choice is what all shares choose.

    Returns
    -------
    (m + k,) bool
        Whether each link, then each division, is chosen.
    """
    slots, gain = problem.slots(), problem.gain
    chosen, open_ = _certain(slots, gain)
    if part:
        chosen[:] = False
    left = np.flatnonzero(open_)
    for component in _share(_components(slots[left]), part, parts):
        members = left[component]
        found = _searched(slots[members], gain[members]) if len(members) <= SMALL else None
        chosen[members] = _integer(slots[members], gain[members]) if found is None else found
    return chosen


def _share(components: list[Ints], part: int, parts: int) -> Iterator[Ints]:
    """Components of one of `parts` about equal shares."""
    total, before = sum(map(len, components)), 0
    for component in components:
        if before * parts // total == part:
            yield component
        before += len(component)


def stepwise(problem: Problem, span: Ints) -> Mask:
    """A good choice in three steps: links between neighbouring frames, divisions, gaps.

    Each step is an assignment problem on what earlier steps left free, as in Jaqaman et al. (2008).

    Parameters
    ----------
    problem : Problem
    span : (m,) int64
        Frames that each link spans.

    Returns
    -------
    (m + k,) bool
        Whether each link, then each division, is chosen.
    """
    a, d, gain = problem.links, problem.divisions, problem.link_gain
    # What a user demands comes first, and leaves the rest without the objects it takes.
    demanded = problem.division_gain >= FORCE / 2
    taken = np.concatenate([d.first[demanded], d.second[demanded]])
    gain = np.where(np.isin(a.source, d.mother[demanded]) | np.isin(a.target, taken), 0.0, gain)
    chosen = matching(a.source, a.target, np.where(span == 1, gain, 0.0))
    # A division keeps the link of its mother and joins an object that is free.
    sides = (a.source, a.target, d.mother, d.first, d.second)
    rows = 1 + max(int(side.max(initial=-1)) for side in sides)
    successor, gained = np.full(rows, -1), np.zeros(rows)
    successor[a.source[chosen]], gained[a.source[chosen]] = a.target[chosen], gain[chosen]
    free = np.ones(rows, np.bool_)
    free[a.target[chosen]] = free[taken] = False
    kept = successor[d.mother]
    joined = np.where(kept == d.first, d.second, d.first)
    fits = ((kept == d.first) | (kept == d.second)) & free[joined]
    extra = np.where(fits, problem.division_gain - gained[d.mother], 0.0)
    divided = matching(d.mother, joined, extra) | demanded
    chosen &= ~np.isin(a.source, d.mother[divided])
    ends = ~np.isin(a.source, np.concatenate([a.source[chosen], d.mother[divided]]))
    free[joined[divided]] = False
    chosen |= matching(a.source, a.target, np.where(ends & free[a.target], gain, 0.0))
    return np.concatenate([chosen, divided])


def matching(source: Ints, target: Ints, gain: Floats) -> Mask:
    """Pairs of greatest total gain, each source and each target in one at most, (m,) bool."""
    chosen, open_ = _certain(np.stack([2 * source, 2 * target + 1], axis=1), gain)
    left = np.flatnonzero(open_)
    if not len(left):
        return chosen
    _, row = np.unique(source[left], return_inverse=True)
    _, column = np.unique(target[left], return_inverse=True)
    n, m = int(row.max()) + 1, int(column.max()) + 1
    # Each source may stay alone, with a partner of its own; a constant keeps all weights positive.
    worst = 2 * float(gain[left].max())
    weight = np.concatenate([worst - gain[left], np.full(n, worst)])
    row = np.concatenate([row, np.arange(n)])
    column = np.concatenate([column, m + np.arange(n)])
    graph = sparse.csr_array((weight, (row, column)), shape=(n, m + n))
    partner = np.empty(n, np.int64)
    one, other = min_weight_full_bipartite_matching(graph)
    partner[one] = other
    chosen[left] = partner[row[: len(left)]] == column[: len(left)]
    return chosen


def _certain(slots: Ints, gain: Floats) -> tuple[Mask, Mask]:
    """Candidates that a best choice holds, and those that are neither in it nor out yet.

    A candidate that gains as much as the best rivals for all its slots together can replace them.
    """
    chosen, open_ = np.zeros(len(gain), np.bool_), gain > 0
    taken = np.zeros(int(slots.max(initial=-1)) + 2, np.bool_)  # the last one stands for no slot
    while open_.any():
        index = np.flatnonzero(open_)
        entry, column = np.nonzero(slots[index] >= 0)
        slot, worth = slots[index[entry], column], gain[index[entry]]
        order = np.lexsort((entry, -worth, slot))
        entry, slot, worth = entry[order], slot[order], worth[order]
        first = np.concatenate([[True], slot[1:] != slot[:-1]])
        best = np.maximum.accumulate(np.where(first, np.arange(len(slot)), 0))
        second = np.minimum(best + 1, len(slot) - 1)
        rival = np.where(first, np.where(slot[second] == slot, worth[second], 0.0), worth[best])
        rival[first & (second == best)] = 0.0
        total = np.bincount(entry, rival, len(index))
        ahead = np.bincount(entry, first, len(index)) == np.bincount(entry, minlength=len(index))
        safe = ahead & (gain[index] >= total)
        if not safe.any():
            break
        chosen[index[safe]] = True
        taken[slots[index[safe]]] = True
        taken[-1] = False
        open_[index] = ~taken[slots[index]].any(axis=1)
    return chosen, open_


def _components(slots: Ints) -> list[Ints]:
    """Candidates that compete, directly or through others, as sorted lists."""
    if not len(slots):
        return []
    entry, column = np.nonzero(slots >= 0)
    _, slot = np.unique(slots[entry, column], return_inverse=True)
    n, m = len(slots), int(slot.max()) + 1
    graph = sparse.csr_array((np.ones(len(entry)), (entry, n + slot)), shape=(n + m, n + m))
    _, label = connected_components(graph, directed=False)
    order = np.argsort(label[:n], kind="stable")
    cuts = np.flatnonzero(np.diff(label[order])) + 1
    return np.split(order, cuts)


def _searched(slots: Ints, gain: Floats) -> Mask | None:
    """The best choice by looking at all; none if that takes too long.

    What is left of the candidates when others are taken or not is a set of bits, and is looked at once.
    From source to source few such sets come up: a solver of integer programs takes a hundred times as
    long for most components.
    """
    order = np.argsort(slots[:, 0], kind="stable")
    rows, gains = slots[order].tolist(), gain[order].tolist()
    users: dict[int, int] = {}  # candidates that take each slot
    for number, row in enumerate(rows):
        for slot in row:
            users[slot] = users.get(slot, 0) | 1 << number
    users[-1] = 0
    rivals = [reduce(or_, (users[slot] for slot in row)) for row in rows]  # and itself
    known = {0: (0.0, 0)}  # the greatest gain from what is left, and by which candidates

    def best(left: int) -> tuple[float, int]:
        if left not in known:
            if len(known) >= SETS:
                raise _TooManyError
            first = left & -left
            number = first.bit_length() - 1
            gain, others = best(left & ~rivals[number])
            taken = gain + gains[number], others | first
            without = best(left & ~first)
            known[left] = taken if taken[0] >= without[0] else without
        return known[left]

    try:
        _, found = best((1 << len(rows)) - 1)
    except _TooManyError:
        return None
    chosen = np.empty(len(rows), np.bool_)
    chosen[order] = [found >> number & 1 for number in range(len(rows))]
    return chosen


class _TooManyError(Exception):
    """A search takes too long."""


def _integer(slots: Ints, gain: Floats) -> Mask:
    """The best choice by HiGHS: branch and bound on the linear relaxation."""
    entry, column = np.nonzero(slots >= 0)
    _, slot = np.unique(slots[entry, column], return_inverse=True)
    ones = np.ones(len(entry))
    takes = sparse.csr_array((ones, (slot, entry)), shape=(int(slot.max()) + 1, len(gain)))
    found = milp(
        -gain,
        integrality=np.ones(len(gain)),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(takes, -np.inf, 1),
        options={"mip_rel_gap": _OPTIMALITY},
    )
    chosen: Mask = found.x > 0.5
    return chosen
