"""The multicut adapter against brute force, and its independence of order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from volsam.stitch.multicut import energy, merge_parallel, number_by_first, solve_multicut


def _partitions(n: int, used: int = 0) -> Iterator[list[int]]:
    """All ways to label n nodes by clusters numbered by first node."""
    if n == 0:
        yield []
        return
    for first in range(used + 1):
        for rest in _partitions(n - 1, max(used, first + 1)):
            yield [first, *rest]


def _random_graph(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    u, v = np.triu_indices(n, 1)
    chosen = rng.random(u.size) < 0.6
    return u[chosen], v[chosen], rng.normal(0, 1, int(chosen.sum()))


def test_close_to_brute_force() -> None:
    rng = np.random.default_rng(0)
    labelings = np.array(list(_partitions(7)))
    optimal = 0
    for _ in range(40):
        u, v, cost = _random_graph(rng, 7)
        best = min((labelings[:, u] != labelings[:, v]) @ cost)
        found = energy(u, v, cost, solve_multicut(7, u, v, cost))
        assert found >= best - 1e-6
        optimal += found <= best + 1e-6
    assert optimal >= 37


def test_order_and_direction_of_edges_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    u, v, cost = (np.concatenate([x, x]) for x in _random_graph(rng, 60))
    cost = rng.normal(0.05, 1, cost.size).astype(np.float32)
    expected = solve_multicut(60, u, v, cost)
    for _ in range(5):
        order = rng.permutation(u.size)
        flip = rng.random(u.size) < 0.5
        a, b = np.where(flip, v, u)[order], np.where(flip, u, v)[order]
        np.testing.assert_array_equal(solve_multicut(60, a, b, cost[order]), expected)


def test_parallel_edges_are_summed_and_loops_ignored() -> None:
    u, v, cost = merge_parallel(4, np.array([2, 1, 3, 1]), np.array([1, 2, 3, 0]), np.ones(4))
    assert (u.tolist(), v.tolist(), cost.tolist()) == ([0, 1], [1, 2], [1, 2])


def test_without_edges_every_node_is_alone() -> None:
    none = np.empty(0, int)
    assert solve_multicut(3, none, none, none.astype(float)).tolist() == [0, 1, 2]


def test_number_by_first() -> None:
    assert number_by_first(np.array([7, 2, 7, 0])).tolist() == [0, 1, 0, 2]
