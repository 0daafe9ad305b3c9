"""Objects that a user merged and split, by points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volsam.errors import VolsamError
from volsam.stitch.regroup import Demand, Regrouping, regroup

FLAT = (1.0, 1.0, 1.0)


def stripes(*widths: int) -> np.ndarray:
    """Objects 1, 2, … side by side along x, in one plane of four rows."""
    return np.repeat(np.arange(1, len(widths) + 1), widths)[None, None].repeat(4, 1).astype("u8")


def grouped(objects: np.ndarray, *rows: tuple[str, int, int]) -> Regrouping:
    """Demands on points of row 1, by their x."""
    demands = [
        Demand(action == "merge", (0, 1, a), (0, 1, b), f"Line {line} of t.csv")
        for line, (action, a, b) in enumerate(rows, start=2)
    ]
    voxels = {voxel for demand in demands for voxel in (demand.first, demand.second)}
    return regroup(demands, {voxel: int(objects[voxel]) for voxel in voxels}, FLAT)


def after(objects: np.ndarray, *rows: tuple[str, int, int]) -> list[int]:
    found = grouped(objects, *rows)
    labels = found.apply(objects, (0, 0, 0), FLAT)
    count = int(objects.max()) + found.more
    assert np.unique(labels[labels > 0]).tolist() == list(range(1, count + 1))
    return labels[0, 1].tolist()


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 4, 4]),
        # What is there already changes nothing.
        ([("merge", 0, 3), ("split", 3, 4)], [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 4, 4]),
        ([("merge", 5, 8)], [1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3]),
        ([("merge", 11, 1), ("merge", 8, 5)], [1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 1, 1]),
        # Of equally near points the first counts.
        ([("split", 4, 6)], [1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
        ([("split", 6, 4)], [1, 1, 1, 1, 3, 2, 2, 2, 4, 4, 5, 5]),
        ([("split", 4, 5), ("split", 5, 7)], [1, 1, 1, 1, 2, 3, 3, 4, 5, 5, 6, 6]),
        # Two points of one cell.
        ([("split", 4, 6), ("merge", 6, 7)], [1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
        ([("split", 4, 6), ("merge", 4, 7)], [1, 1, 1, 1, 2, 2, 3, 2, 4, 4, 5, 5]),
        # A merge sides with the nearest part of what is cut.
        ([("split", 4, 6), ("merge", 7, 8)], [1, 1, 1, 1, 2, 2, 3, 3, 3, 3, 4, 4]),
        # A border that lies wrong: two objects exchange a part.
        (
            [("split", 0, 3), ("merge", 3, 5)],
            [1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 4, 4],
        ),
        (
            [("split", 0, 3), ("split", 4, 7), ("merge", 0, 4), ("merge", 3, 7)],
            [1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4],
        ),
    ],
)
def test_points_say_what_is_one_object(rows: list, expected: list[int]) -> None:
    assert after(stripes(4, 4, 2, 2), *rows) == expected


@pytest.mark.parametrize("widths", [(12,), (6, 6), (4, 8), (3, 3, 6), (2, 2, 2, 6), (1,) * 12])
def test_demands_hold_wherever_borders_are(widths: tuple[int, ...]) -> None:
    """Cells at 0–3 and at 4–7, which are one of two parts; 8–11 another."""
    found = after(
        stripes(*widths), ("merge", 1, 2), ("merge", 5, 6), ("split", 2, 5), ("split", 6, 9)
    )
    assert found[1] == found[2] != found[5] == found[6] != found[9]
    assert found[1] != found[9]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("merge", 1, 5), ("split", 1, 5)], "Line 3 .* splits what line 2 .* merges"),
        ([("merge", 1, 5), ("merge", 5, 9), ("split", 9, 1)], "Line 4 .* what line 3 .* merges"),
        ([("merge", 0, 10), ("split", 0, 1), ("merge", 0, 1)], "Line 3 .* what line 4 .* merges"),
        # By way of objects: 1 and 5 are merged, and lie with 2 and 6.
        ([("split", 2, 6), ("merge", 9, 10), ("merge", 1, 5)], "Line 2 .* what line 4 .* merges"),
        ([("split", 2, 2)], "Line 2 .* at one point"),
    ],
)
def test_contradictions_name_their_lines(rows: list, message: str) -> None:
    with pytest.raises(VolsamError, match=message):
        grouped(stripes(4, 4, 4), *rows)


def test_nearest_in_units_of_length() -> None:
    objects = np.ones((5, 3, 9), np.uint64)
    points = (0, 1, 0), (4, 1, 4)
    demand = Demand(False, *points, "Line 2")
    labels = {}
    for spacing in ((1.0, 1.0, 1.0), (100.0, 1.0, 1.0)):
        found = regroup([demand], dict.fromkeys(points, 1), spacing)
        labels[spacing[0]] = found.apply(objects, (0, 0, 0), spacing)
    assert (labels[1.0][:, 1, 8] == 2).all()
    assert (labels[1.0][0] == labels[1.0][4]).any()
    assert (labels[100.0][:2] == 1).all()
    assert (labels[100.0][3:] == 2).all()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_block_is_part_of_the_whole(data: st.DataObject) -> None:
    """Whatever is demanded of random objects: dense numbers, and no voxel that depends on its block."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    shape = (3, 6, 7)
    objects = rng.integers(0, data.draw(st.integers(1, 9)), shape).astype(np.uint64)
    values, inverse = np.unique(objects, return_inverse=True)
    first = 0 if values[0] == 0 else 1
    objects = (inverse.reshape(shape) + first).astype(np.uint64)
    inside = np.argwhere(objects > 0)
    if not len(inside):
        return
    spacing = (2.0, 0.5, 0.5)
    demands = [
        Demand(
            bool(rng.random() < 0.5), *(tuple(map(int, rng.choice(inside))) for _ in "ab"), "Line 1"
        )
        for _ in range(data.draw(st.integers(0, 6)))
    ]
    voxels = {voxel for demand in demands for voxel in (demand.first, demand.second)}
    try:
        found = regroup(demands, {v: int(objects[v]) for v in voxels}, spacing)
    except VolsamError:
        return
    whole = found.apply(objects, (0, 0, 0), spacing)
    numbers = np.unique(objects)
    for number, new in zip(numbers, found.of_whole(numbers), strict=True):
        became = np.unique(whole[objects == number])
        assert new == (became[0] if len(became) == 1 else 0)
    ids = np.unique(whole[whole > 0])
    assert np.array_equal(whole > 0, objects > 0)
    assert ids.tolist() == list(range(1, int(objects.max()) + found.more + 1))
    # Numbers come in the order of the least object they are made of.
    least = [int(objects[whole == number].min()) for number in ids]
    assert least == sorted(least)
    for demand in demands:
        assert (whole[demand.first] == whole[demand.second]) == demand.together or (
            demand.first == demand.second
        )
    z, y, x = (data.draw(st.integers(1, n)) for n in shape)
    for start in np.ndindex(*(-(-n // s) for n, s in zip(shape, (z, y, x), strict=True))):
        corner = tuple(i * s for i, s in zip(start, (z, y, x), strict=True))
        box = tuple(slice(c, c + s) for c, s in zip(corner, (z, y, x), strict=True))
        assert np.array_equal(found.apply(objects[box], corner, spacing), whole[box])
