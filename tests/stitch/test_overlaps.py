"""Overlap counts against a naive count, and what tiles and the plane's border do to them."""

from __future__ import annotations

import numpy as np
import pytest

from volsam.geometry import Box, TileGrid
from volsam.stitch.overlaps import (
    count_overlaps,
    fragment_sizes,
    map_labels,
    present_labels,
    slice_overlaps,
    tile_overlaps,
)


def _naive(a: np.ndarray, b: np.ndarray) -> list[tuple[int, int, int]]:
    pairs = [(x, y) for x, y in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True) if x and y]
    return sorted((x, y, pairs.count((x, y))) for x, y in set(pairs))


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (0, 4, np.uint32),
        (10**6, 10**6 + 5, np.uint32),
        (0, 2**32, np.uint32),
        (0, 2**62, np.uint64),
    ],
)
def test_counts_equal_a_naive_count(low: int, high: int, dtype: type) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        ids = rng.integers(low, high, 6, dtype=dtype)
        ids[0] = 0
        a, b = ids[rng.integers(0, 6, (2, 9, 7))]
        assert list(zip(*(x.tolist() for x in count_overlaps(a, b)), strict=True)) == _naive(a, b)
        present, size = present_labels(a)
        unique, count = np.unique(a[a > 0], return_counts=True)
        np.testing.assert_array_equal(present, unique)
        np.testing.assert_array_equal(size, count)
        doubled = map_labels(a, present, np.arange(1, present.size + 1))
        np.testing.assert_array_equal(doubled, np.searchsorted(present, a) * (a > 0) + (a > 0))


def test_nothing_in_common() -> None:
    a = np.eye(4, dtype=np.uint32)
    assert all(x.size == 0 for x in count_overlaps(a, 1 - a))


@pytest.fixture(scope="module")
def tiled() -> tuple[TileGrid, np.ndarray, list[np.ndarray]]:
    """A plane of labels and its tiles, where pixels beyond the plane are one bogus label."""
    grid = TileGrid((50, 37), 16, 4)
    plane = np.random.default_rng(1).integers(0, 6, (10, 8)).repeat(5, 0).repeat(5, 1)[:50, :37]
    tiles = []
    for t in range(len(grid)):
        outer = grid.outer(t)
        tile = np.full(outer.shape, 1, np.uint32)
        part = outer.intersect(Box.of(grid.shape))
        tile[part.relative_to(outer).slices] = plane[part.slices]
        tiles.append(tile)
    return grid, plane, tiles


def test_tiles_are_compared_where_they_meet_inside_the_plane(tiled: tuple) -> None:
    grid, plane, tiles = tiled
    for a in range(len(grid)):
        for b in grid.neighbours(a):
            rows = tile_overlaps(tiles[a], tiles[b], grid, a, b, 10 * a, 10 * b)
            common = grid.outer(a).intersect(grid.outer(b)).intersect(Box.of(grid.shape))
            size = np.bincount(plane[common.slices].ravel(), minlength=6)
            assert (rows["kind"] == 0).all()
            assert (rows["u"] < rows["v"]).all()
            label = rows["u"].astype(int) - 10 * a + 1
            np.testing.assert_array_equal(label, rows["v"].astype(int) - 10 * b + 1)
            for name in ("overlap", "size_u", "size_v"):
                np.testing.assert_array_equal(rows[name], size[label])


def test_fragment_sizes_partition_the_plane(tiled: tuple) -> None:
    grid, plane, tiles = tiled
    total = sum(fragment_sizes(tiles[t], grid, t, 5).astype(int) for t in range(len(grid)))
    np.testing.assert_array_equal(total, np.bincount(plane.ravel(), minlength=6)[1:])


def test_slices_of_a_window(tiled: tuple) -> None:
    grid, plane, tiles = tiled
    corner = len(grid) - 1
    window = [tiles[corner], np.zeros_like(tiles[corner]), tiles[corner]]
    rows = slice_overlaps(window, [0, 100, 100], grid, corner)
    assert set(rows["kind"].tolist()) == {2}
    visible = grid.outer(corner).intersect(Box.of(grid.shape))
    size = np.bincount(plane[visible.slices].ravel(), minlength=6)
    np.testing.assert_array_equal(rows["overlap"], size[rows["u"].astype(int) + 1])
    assert slice_overlaps(window[:1], [0], grid, corner).size == 0
