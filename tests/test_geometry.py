"""Boxes and tiles: inner boxes partition the plane, outer boxes are all of one size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volsam.geometry import Box, TileGrid, split, window_span

numbers = st.integers(1, 60)


def test_box() -> None:
    box = Box((1, 2), (4, 8))
    assert box.shape == (3, 6)
    assert box.size == 18
    assert box.slices == (slice(1, 4), slice(2, 8))
    assert box.shift((1, -2)) == Box((2, 0), (5, 6))
    assert box.relative_to(Box((1, 1), (9, 9))) == Box((0, 1), (3, 7))
    assert box.grow((1, 5), Box.of((4, 9))) == Box((0, 0), (4, 9))
    assert box.intersect(Box((3, 0), (9, 3))) == Box((3, 2), (4, 3))
    apart = box.intersect(Box((5, 0), (9, 9)))
    assert apart.size == 0
    assert min(apart.shape) == 0
    assert Box.of(np.zeros((2, 3)).shape) == Box((0, 0), (2, 3))


@settings(max_examples=300, derandomize=True, deadline=None)
@given(length=numbers, side=numbers, ends=st.tuples(numbers, numbers))
def test_window_span(length: int, side: int, ends: tuple[int, int]) -> None:
    start, stop = sorted(min(end, length) for end in ends)
    stop = min(stop, start + side)
    first, last = window_span(start, stop, length, side)
    assert last - first == min(length, side)
    assert 0 <= first <= start <= stop <= last <= length
    if 0 < first < length - side and stop - start <= side // 2:
        assert first % max(1, side // 2) == 0  # a window that others share


def test_split_refuses_other_dimensions() -> None:
    with pytest.raises(ValueError, match="argument 2 is"):
        list(split(Box.of((4, 4)), (2,)))


@settings(max_examples=100, derandomize=True, deadline=None)
@given(shape=st.tuples(numbers, numbers, numbers), size=st.tuples(numbers, numbers, numbers))
def test_split_covers_once(shape: tuple[int, ...], size: tuple[int, ...]) -> None:
    count = np.zeros(shape, np.uint8)
    indices = []
    for index, box in split(Box.of(shape), size):
        count[box.slices] += 1
        assert all(n <= s for n, s in zip(box.shape, size, strict=True))
        assert box.size
        indices.append(index)
    assert (count == 1).all()
    assert indices == sorted(indices)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    tile=st.integers(1, 40),
    halo=st.integers(0, 20),
)
def test_tiles(shape: tuple[int, int], tile: int, halo: int) -> None:
    grid = TileGrid(shape, tile, halo)
    owners = np.full(shape, -1)
    for number in range(len(grid)):
        inner, outer = grid.inner(number), grid.outer(number)
        assert (owners[inner.slices] == -1).all()
        owners[inner.slices] = number
        assert outer.shape == (grid.outer_size, grid.outer_size)
        assert inner.intersect(outer) == inner
        assert grid.index(*grid.position(number)) == number
    assert (owners >= 0).all()
    pairs = [(t, n) for t in range(len(grid)) for n in grid.neighbours(t)]
    assert len(set(pairs)) == len(pairs)
    assert all(a < b for a, b in pairs)
    rows, columns = grid.counts
    across = rows * (columns - 1) + columns * (rows - 1) + 2 * (rows - 1) * (columns - 1)
    assert len(pairs) == across
