"""Corrections of objects from edited labels."""

from __future__ import annotations

import numpy as np
import pytest

from volsam.errors import VolsamError
from volsam.stitch.regroup import Demand, regroup
from volsam.track.correction_table import Row
from volsam.track.edited_labels import Frame, edits

SPACING = (2.0, 0.5, 0.5)
FRAME = 3


def squares(depth: int = 1) -> np.ndarray:
    """Nine squares of 8 x 8, numbered from 1, with a pixel between them."""
    labels = np.zeros((depth, 28, 28), np.uint64)
    for number in range(9):
        y, x = divmod(number, 3)
        labels[:, 9 * y + 1 : 9 * y + 9, 9 * x + 1 : 9 * x + 9] = number + 1
    return labels


def corrected(found: np.ndarray, rows: list[Row]) -> np.ndarray:
    """Result of a run with these rows."""
    demands = []
    for number, row in enumerate(rows, start=2):
        voxels = [place.voxel(SPACING) for place in (row.first, row.second)]
        demands.append(Demand(row.action == "merge", voxels[0], voxels[1], f"Line {number}"))
    object_of = {v: int(found[v]) for d in demands for v in (d.first, d.second)}
    assert all(object_of.values())
    return regroup(demands, object_of, SPACING).apply(found, (0, 0, 0), SPACING)


def edit(found: np.ndarray, after: np.ndarray, rows: list[Row] | None = None) -> list[Row]:
    """Rows after an edit of the result that known rows gave."""
    known = rows or []
    new, untold = edits(Frame(FRAME, found, corrected(found, known), after, SPACING), known)
    assert not untold
    assert {place.frame for row in new for place in (row.first, row.second)} <= {FRAME}
    return new


def same(one: np.ndarray, other: np.ndarray, wrong: float = 0.0) -> bool:
    """Whether labels are the same objects, but for a fraction of their voxels."""
    pairs, count = np.unique(np.stack([one[one > 0], other[one > 0]]), axis=1, return_counts=True)
    best = {p: c for c, p in sorted(zip(count.tolist(), pairs[0].tolist(), strict=True))}
    numbers = len(np.unique(one)) == len(np.unique(other))
    return numbers and sum(best.values()) >= (1 - wrong) * count.sum()


@pytest.mark.parametrize("depth", [1, 4])
def test_merges_and_splits(depth: int) -> None:
    found = squares(depth)
    after = found.copy()
    after[after == 2] = 1
    after[:, 10:18, 14:18] = 77  # right half of 5
    after[found == 9] = 8
    after[found == 7] = 8
    rows = edit(found, after)
    assert sorted(row.action for row in rows) == ["merge", "merge", "merge", "split"]
    assert np.array_equal(corrected(found, rows) > 0, found > 0)
    assert same(corrected(found, rows), after)
    # The points lie deep inside of what they stand for.
    split = next(row for row in rows if row.action == "split")
    for place, columns in ((split.first, (10, 14)), (split.second, (14, 18))):
        z, y, x = place.voxel(SPACING)
        assert 12 <= y < 16
        assert columns[0] < x < columns[1] - 1
        assert z == 0 if depth == 1 else 0 < z < depth - 1
    assert edit(found, after, rows) == rows  # nothing more is to be said


def test_numbers_mean_nothing() -> None:
    found = squares()
    numbers = np.array([0, 3, 9, 1, 7, 5, 2**40, 4, 2, 11], np.uint64)
    assert edit(found, numbers[found]) == []


def test_strokes_that_go_astray_say_nothing() -> None:
    found = squares()
    after = found.copy()
    after[:, 1:9, 9:11] = 1  # beyond its edge, over the next one
    after[:, 18:20, 1:9] = 4
    assert edit(found, after) == []


def test_small_parts_of_an_object_count_if_they_are_drawn_as_such() -> None:
    found = np.zeros((1, 20, 70), np.uint64)
    found[:, 5:15, 5:65] = 1
    clump = found.copy()
    for cell in range(8):
        clump[:, 5:15, 5 + 7 * cell : 65] = cell + 2
    assert same(corrected(found, edit(found, clump)), clump, 0.05)
    for small in (5, 55):  # a narrow part is drawn, or left where the rest is drawn
        parted = found.copy()
        parted[:, 5:15, 5 : 5 + small] = 9
        assert [row.action for row in edit(found, parted)] == ["split"]


def test_objects_that_come_and_go_cannot_be_told() -> None:
    found = squares()
    after = found.copy()
    after[found == 4] = 0
    after[:, :, 27] = 40
    assert edits(Frame(0, found, found, after, SPACING), []) == ([], 2)


def test_an_edit_of_a_result_that_was_corrected() -> None:
    found = squares()
    after = found.copy()
    after[np.isin(found, [1, 2, 3])] = 1
    after[:, 10:18, 14:18] = 50
    first = edit(found, after)
    # The long one is cut elsewhere, and one half of the square is halved again and given away.
    again = corrected(found, first)
    again[:, 1:9, 14:28] = 60
    again[:, 14:18, 14:18] = 61
    again[found == 6] = 61
    second = edit(found, again, first)
    assert same(corrected(found, second), again, 0.05)
    # All is undone.
    third = edit(found, found, second)
    assert third == []


def test_what_was_not_applied_yet_stays() -> None:
    """Two edits of the same result, one after the other."""
    found = squares()
    one, other = found.copy(), found.copy()
    one[:, 10:18, 14:18] = 50
    other[np.isin(found, [5, 6])] = 5
    first, _ = edits(Frame(FRAME, found, found, one, SPACING), [])
    both, _ = edits(Frame(FRAME, found, found, other, SPACING), first)
    assert both[: len(first)] == first
    labels = corrected(found, both)
    assert len(np.unique(labels[found == 5])) == 2
    assert len(np.unique(labels[np.isin(found, [5, 6])])) == 2
    assert edits(Frame(FRAME, found, found, one, SPACING), first)[0] == first


def test_random_edits_hold() -> None:
    """Edits of edits, each cutting and joining at random: what comes out is what was drawn."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        found = squares()
        rows: list[Row] = []
        for _ in range(4):
            labels = corrected(found, rows)
            for _ in range(rng.integers(1, 3)):
                numbers = np.unique(labels)[1:]
                a, b = rng.choice(numbers, 2, replace=False)
                if rng.random() < 0.5:
                    labels[labels == b] = a
                else:
                    place = np.argwhere(labels == a)
                    axis = int(np.argmax(np.ptp(place, axis=0)))
                    middle = np.median(place[:, axis])
                    half = place[place[:, axis] > middle]
                    labels[tuple(half.T)] = numbers.max() + 1
            try:
                rows = edit(found, labels, rows)
                assert same(corrected(found, rows), labels, 0.15)
            except VolsamError as error:  # rows of ours never contradict each other
                raise AssertionError(rows) from error
