"""The choice among candidates."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volsam.track import solve as solvers
from volsam.track.candidates import Divisions, Links
from volsam.track.solve import Problem, exact, matching, stepwise


def problem(
    links: list[tuple[int, int, float]], divisions: list[tuple[int, int, int, float]]
) -> Problem:
    a = np.asarray(links, float).reshape(-1, 3)
    d = np.asarray(divisions, float).reshape(-1, 4)
    return Problem(
        Links(*a[:, :2].T.astype(np.int64)),
        a[:, 2],
        Divisions(*d[:, :3].T.astype(np.int64)),
        d[:, 3],
    )


def allowed(slots: np.ndarray, chosen: np.ndarray) -> bool:
    taken = slots[chosen]
    taken = taken[taken >= 0]
    return len(taken) == len(np.unique(taken))


def best(given: Problem) -> float:
    """By trying everything."""
    slots, gain = given.slots(), given.gain
    choices = (np.array(bits, bool) for bits in product((0, 1), repeat=len(gain)))
    return max(gain[chosen].sum() for chosen in choices if allowed(slots, chosen))


GAIN = st.integers(-3, 9).map(float)
LINKS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(3, 6), GAIN), max_size=7, unique_by=lambda x: x[:2]
)
DIVISIONS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(3, 4), st.integers(5, 6), GAIN),
    max_size=4,
    unique_by=lambda x: x[:3],
)


@settings(max_examples=60, deadline=None)
@given(LINKS, DIVISIONS)
def test_exact_is_best(links: list, divisions: list) -> None:
    given = problem(links, divisions)
    chosen = exact(given)
    assert allowed(given.slots(), chosen)
    assert given.gain[chosen].sum() == best(given)


@settings(max_examples=60, deadline=None)
@given(LINKS, DIVISIONS)
def test_stepwise_is_allowed_and_no_better(links: list, divisions: list) -> None:
    given = problem(links, divisions)
    chosen = stepwise(given, np.ones(len(given.links), np.int64))
    assert allowed(given.slots(), chosen)
    assert (given.gain[chosen] > 0).all()
    assert given.gain[chosen].sum() <= best(given)


@settings(max_examples=60, deadline=None)
@given(LINKS)
def test_matching_is_best(links: list) -> None:
    given = problem(links, [])
    chosen = matching(given.links.source, given.links.target, given.link_gain)
    assert allowed(given.slots(), chosen)
    assert given.gain[chosen].sum() == best(given)


def crowd(random: np.random.Generator, links: int, divisions: int, objects: int = 9) -> Problem:
    """Candidates among a few objects of a frame and of the next."""
    a = np.unique(random.integers(0, objects, (links, 2)), axis=0)
    d = np.unique(np.sort(random.integers(0, objects, (divisions, 3))), axis=0)
    d = d[(d[:, 1] < d[:, 2])]
    a[:, 1] += objects
    d[:, 1:] += objects
    return Problem(
        Links(*a.T), random.uniform(0.1, 5, len(a)), Divisions(*d.T), random.uniform(1, 9, len(d))
    )


@pytest.mark.parametrize("seed", range(20))
def test_searching_finds_what_the_integer_program_does(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(seed)
    given = crowd(random, *random.integers(1, 25, 2))
    slots, gain = given.slots(), given.gain
    chosen = solvers._integer(slots, gain).tolist()
    found = solvers._searched(slots, gain)
    assert found is not None
    assert found.tolist() == chosen
    monkeypatch.setattr(solvers, "SETS", 2)
    assert len(gain) < 2 or solvers._searched(slots, gain) is None
    assert exact(given).tolist() == chosen


def test_ties_go_to_the_first() -> None:
    given = problem([(0, 2, 3.0), (0, 3, 3.0), (1, 2, 3.0), (1, 3, 3.0)], [(0, 2, 3, 6.0)])
    assert exact(given).tolist() == [True, False, False, True, False]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.sampled_from((0, 4, 64)))
def test_shares_make_the_whole(seed: int, parts: int, small: int) -> None:
    random = np.random.default_rng(seed)
    several = [crowd(random, 12, 6, 5) for _ in range(random.integers(1, 6))]
    joined = Problem.join([moved(each, 20 * number) for number, each in enumerate(several)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solvers, "SMALL", small)
        whole = exact(joined)
        shares = np.array([exact(joined, part, parts) for part in range(parts)])
        assert (shares.sum(axis=0) == whole).all()


def moved(given: Problem, by: int) -> Problem:
    """The same between other objects."""
    a, d = given.links, given.divisions
    return Problem(
        Links(a.source + by, a.target + by),
        given.link_gain,
        Divisions(d.mother + by, d.first + by, d.second + by),
        given.division_gain,
    )


def test_components_do_not_matter_to_each_other() -> None:
    random = np.random.default_rng(0)

    def one(offset: int) -> tuple[list, list]:
        links = [
            (offset + a, offset + 5 + b, float(random.normal(2, 1)))
            for a in range(4)
            for b in range(5)
        ]
        divisions = [
            (offset + a, offset + 5 + a, offset + 6 + a, float(random.normal(3, 1)))
            for a in range(4)
        ]
        return links, divisions

    parts = [one(20 * k) for k in range(5)]
    alone = [exact(problem(*part)) for part in parts]
    together = exact(problem([x for p in parts for x in p[0]], [x for p in parts for x in p[1]]))
    links = sum(len(p[0]) for p in parts)
    assert np.array_equal(together[:links], np.concatenate([a[:20] for a in alone]))
    assert np.array_equal(together[links:], np.concatenate([a[20:] for a in alone]))


def test_stepwise_divides_and_closes_gaps() -> None:
    given = problem([(0, 1, 5.0), (0, 2, 4.0), (3, 4, 1.0), (3, 5, 6.0)], [(0, 1, 2, 7.0)])
    chosen = stepwise(given, np.array([1, 1, 1, 2]))
    assert chosen.tolist() == [False, False, True, False, True]  # what is near in time goes first
    assert exact(given).tolist() == [False, False, False, True, True]


def test_gain_of_a_lineage() -> None:
    given = problem([(0, 1, 5.0), (0, 2, 4.0), (3, 4, 1.0)], [(0, 1, 2, 7.0)])
    assert given.total(np.array([[0, 1], [3, 4]])) == 6
    assert given.total(np.array([[0, 1], [0, 2]])) == 7
    pairs, gain = given.pairs(exact(given))
    assert (pairs.tolist(), gain.tolist()) == ([[3, 4], [0, 1], [0, 2]], [1, 7, 7])
    assert given.total(np.zeros((0, 2), np.int64)) == 0


def test_more_candidates() -> None:
    given = problem([(0, 1, 5.0)], [(0, 2, 1, 7.0)])
    more = given.with_links(np.array([0, 0]), np.array([1, 2]))
    more = more.with_divisions(np.array([0, 3]), np.array([1, 4]), np.array([2, 5]))
    assert (len(more.links), len(more.divisions)) == (2, 2)
    assert more.gain.tolist() == [5, 0, 7, 0]


@pytest.mark.parametrize("solve", [exact, lambda p: stepwise(p, np.zeros(0, np.int64))])
def test_nothing(solve) -> None:  # type: ignore[no-untyped-def]
    assert not len(solve(problem([], [])))
