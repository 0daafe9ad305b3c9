"""Sections that several tiles see are compared once between slices."""

from __future__ import annotations

import numpy as np

from volsam.stitch.graph import Edges
from volsam.stitch.overlaps import OVERLAP_DTYPE
from volsam.stitch.views import distinct_views


def kept(rows: list[tuple[int, ...]], n: int = 8) -> list[tuple[int, int, int]]:
    edges = Edges.from_rows(np.array(rows, OVERLAP_DTYPE), n)
    edges = edges.take(distinct_views(edges, n))
    return list(zip(edges.u.tolist(), edges.v.tolist(), edges.kind.tolist(), strict=True))


# Two tiles see one object in slice 0 (fragments 0 and 1) and in slice 1 (2 and 3).
SAME = [(0, 1, 0, 40, 41, 40), (2, 3, 0, 40, 40, 42)]


def test_the_tile_that_sees_most_decides() -> None:
    rows = [*SAME, (0, 2, 1, 50, 60, 60), (1, 3, 1, 80, 90, 90)]
    assert kept(rows) == [(0, 1, 0), (1, 3, 1), (2, 3, 0)]


def test_of_equal_views_the_first_stays() -> None:
    rows = [*SAME, (0, 2, 1, 50, 60, 60), (1, 3, 1, 50, 60, 60)]
    assert (0, 2, 1) in kept(rows)
    assert (1, 3, 1) not in kept(rows)
    assert kept(rows) == kept(rows[::-1])


def test_tiles_that_disagree_both_count() -> None:
    rows = [(0, 1, 0, 10, 40, 40), SAME[1], (0, 2, 1, 50, 60, 60), (1, 3, 1, 80, 90, 90)]
    assert len(kept(rows)) == 4


def test_other_distances_and_other_pairs_stay() -> None:
    rows = [*SAME, (0, 2, 1, 50, 60, 60), (0, 3, 2, 50, 60, 60), (1, 4, 1, 50, 60, 60)]
    assert len(kept(rows)) == 5
