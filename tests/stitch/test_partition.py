"""Decomposition, hierarchy, filters, numbering, and independence of how edges are stored."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from volsam.errors import VolsamError
from volsam.stitch.cluster import Cells, cluster
from volsam.stitch.costs import StitchParameters, edge_costs
from volsam.stitch.graph import Edges, Fragments
from volsam.stitch.multicut import energy, solve_multicut
from volsam.stitch.overlaps import OVERLAP_DTYPE, to_table
from volsam.stitch.partition import partition

ALL = StitchParameters(min_extent=1)


def _rows(*edges: tuple[int, int, int, int]) -> np.ndarray:
    """Rows from (u, v, kind, overlap) where every fragment has 100 pixels."""
    return np.array([(*edge, 100, 100) for edge in edges], OVERLAP_DTYPE)


def _random(seed: int, depth: int = 12) -> tuple[Fragments, np.ndarray]:
    """A dense graph of columns with noisy overlaps, on 3 x 3 tiles."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(5, 12, (depth, 3, 3))
    start = np.concatenate([[0], np.cumsum(counts)])[:-1].reshape(counts.shape)
    size = rng.integers(50, 100, counts.sum()).astype(np.uint32)
    rows = []
    for z, y, x in np.ndindex(counts.shape):
        for dz, dy, dx in ((1, 0, 0), (2, 0, 0), (0, 0, 1), (0, 1, 0)):
            other = z + dz, y + dy, x + dx
            if other[0] < depth and other[1] < 3 and other[2] < 3:
                n = 14
                u = start[z, y, x] + rng.integers(0, counts[z, y, x], n)
                v = start[other] + rng.integers(0, counts[other], n)
                rows += zip(
                    u, v, [dz] * n, rng.integers(1, 100, n), [100] * n, [100] * n, strict=True
                )
    return Fragments.from_counts(counts, size), np.array(rows, OVERLAP_DTYPE)


def test_more_tables_than_a_process_may_open(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    paths = [tmp_path / f"{number}.parquet" for number in range(100)]
    for number, path in enumerate(paths):
        pq.write_table(to_table(_rows((number, number + 1, 1, 50))), path)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 20, hard)
    )
    try:
        edges = Edges.from_parquet(paths, 101)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert edges.u.tolist() == list(range(100))


def test_result_does_not_depend_on_order_or_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for seed in range(10):
        fragments, rows = _random(seed)
        direct = int(rng.choice([20, 100, 10**6]))
        expected = partition(
            fragments, Edges.from_rows(rows, len(fragments)), ALL, direct_nodes=direct
        )
        shuffled = rows[rng.permutation(rows.size)]
        paths = []
        for i, part in enumerate(np.array_split(shuffled, int(rng.integers(1, 6)))):
            paths.append(tmp_path / f"{seed}-{i}.parquet")
            pq.write_table(to_table(part), paths[-1], row_group_size=int(rng.integers(1, 400)))
        edges = Edges.from_parquet(paths, len(fragments))
        found = partition(fragments, edges, ALL, direct_nodes=direct)
        np.testing.assert_array_equal(found.objects, expected.objects)


def test_hierarchy_loses_little_energy_and_respects_repulsion() -> None:
    rng = np.random.default_rng(3)
    shape = (40, 6, 6, 4)
    index = np.arange(np.prod(shape)).reshape(shape)
    pairs = [
        (index[:-1], index[1:]),
        (index[:, :-1], index[:, 1:]),
        (index[..., :-1], index[..., 1:]),
    ]
    u, v = (np.concatenate([p[i].ravel() for p in pairs]) for i in (0, 1))
    cost = rng.normal(0.3, 1, u.size)
    cells = Cells(np.stack(np.unravel_index(index.ravel(), shape))[:3].astype(np.int32), (4, 2, 2))
    whole = energy(u, v, cost, solve_multicut(index.size, u, v, cost))
    cut = cluster(index.size, u, v, cost, cells, direct_nodes=300)
    assert energy(u, v, cost, cut) < 0.9 * whole < 0  # costs of a good cut are negative
    greedy = cluster(index.size, u, v, cost, None, direct_nodes=300)
    assert energy(u, v, cost, greedy) < 0.95 * whole


def test_components_without_repulsion_need_no_solver_and_others_equal_the_whole() -> None:
    rng = np.random.default_rng(5)
    u, v = rng.integers(0, 300, (2, 400))
    cost = rng.choice([-1.0, 0.7, 2.0], 400)
    found = cluster(300, u, v, cost, direct_nodes=40)
    whole = solve_multicut(300, u, v, cost)
    assert energy(u, v, cost, found) == pytest.approx(energy(u, v, cost, whole), rel=0.02)
    chain = np.arange(9)
    assert not cluster(10, chain, chain + 1, np.ones(9)).any()


def test_threshold_decides_an_isolated_pair_and_skips_only_attract() -> None:
    iou = np.array([0.24, 0.26, 0.39, 0.41, 0.1, 0.6], np.float32)
    containment = np.array([0.65, 0.65, 0.9, 0.1, 0.2, 0.7], np.float32)
    kind = np.array([1, 1, 0, 0, 2, 2], np.uint8)
    cost = edge_costs(iou, containment, kind, StitchParameters())
    assert (np.sign(cost) == [-1, 1, -1, 1, 0, 1]).all()


def test_filters_and_numbering() -> None:
    # Slices 0..3, one tile: a column of three, a pair, a single, and one unpainted fragment.
    counts = np.array([3, 2, 2, 0]).reshape(4, 1, 1)
    size = np.array([0, 10, 10, 10, 10, 30, 10], np.uint32)
    rows = _rows((1, 3, 1, 90), (3, 5, 1, 90), (2, 4, 1, 90))
    fragments, edges = Fragments.from_counts(counts, size), Edges.from_rows(rows, 7)

    def objects(**settings: int) -> list[int]:
        return partition(fragments, edges, replace(ALL, **settings)).objects.tolist()

    assert objects() == [0, 1, 2, 1, 2, 1, 3]
    assert objects(min_extent=2) == [0, 1, 2, 1, 2, 1, 0]
    assert objects(min_size=25) == [0, 1, 0, 1, 0, 1, 0]
    assert objects(max_size=25) == [0, 0, 1, 0, 1, 0, 2]
    statistics = partition(fragments, edges, replace(ALL, min_extent=3, max_size=49)).statistics
    dropped = statistics.dropped_small, statistics.dropped_large, statistics.dropped_thin
    assert (statistics.objects, dropped) == (0, (0, 1, 2))


def test_a_single_slice_keeps_its_objects() -> None:
    fragments = Fragments.from_counts(np.full((1, 1, 2), 2), np.full(4, 5, np.uint32))
    found = partition(fragments, Edges.from_rows(_rows((1, 2, 0, 80)), 4))
    assert found.objects.tolist() == [1, 2, 2, 3]
    assert found.statistics.objects_across_tiles == 1
    assert found.statistics.objects_across_slices == 0


def test_statistics_of_a_seam() -> None:
    # Fragments 0..5 in three slices; 0-2 and 2-4 attract weakly, 0-4 is one column by other edges.
    fragments = Fragments.from_counts(np.full((2, 1, 2), 1), np.full(4, 9, np.uint32))
    rows = _rows((0, 1, 0, 95), (0, 2, 1, 95), (1, 3, 1, 95), (2, 3, 0, 2))
    statistics = partition(fragments, Edges.from_rows(rows, 4), ALL).statistics
    assert statistics.edges == {"tiles": 2, "slices+1": 2}
    assert sum(statistics.merged.values()) + sum(statistics.cut.values()) >= 3
    assert statistics.iou_tiles[0] == 1
    assert statistics.iou_tiles.sum() == statistics.iou_slices.sum() == 2


def test_nothing_at_all() -> None:
    fragments = Fragments.from_counts(np.zeros((3, 1, 1), int), np.empty(0, np.uint32))
    found = partition(fragments, Edges.from_rows(_rows(), 0))
    assert found.objects.size == 0
    assert found.statistics.objects == 0


def test_tables_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "overlaps.parquet"
    pq.write_table(to_table(_rows((0, 5, 1, 50))), path)
    with pytest.raises(VolsamError, match="fragment 5"):
        Edges.from_parquet([path], 5)
    pq.write_table(to_table(_rows((0, 5, 1, 50))).drop_columns(["kind"]), path)
    with pytest.raises(VolsamError, match="kind"):
        Edges.from_parquet([path], 6)
    with pytest.raises(VolsamError, match="fragments"):
        Fragments.from_counts(np.ones((2, 1, 1), int), np.ones(3, np.uint32))
