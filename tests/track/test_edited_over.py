"""Edits of the present labels are told from edits of earlier ones."""

from __future__ import annotations

import numpy as np
import pytest

from volsam.track.edited_labels import Frame
from volsam.track.edited_over import Likeness, likeness

SPACING = (1.0, 1.0, 1.0)


def grid(rows: int = 6, edge: int = 8, shift: int = 0) -> np.ndarray:
    """Squares with two pixels between them, numbered from 1."""
    labels = np.zeros((1, rows * (edge + 2), rows * (edge + 2)), np.uint64)
    for number in range(rows**2):
        y, x = ((edge + 2) * n + 1 for n in divmod(number, rows))
        labels[:, y : y + edge - shift, x + shift : x + edge] = number + 1
    return labels


def numbered(labels: np.ndarray) -> np.ndarray:
    """Without holes, as results are."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.uint64)


def merged(labels: np.ndarray, *pairs: tuple[int, int]) -> np.ndarray:
    result = labels.copy()
    for one, other in pairs:
        result[labels == other] = one
    return result


def split(labels: np.ndarray, *numbers: int) -> np.ndarray:
    """Left halves become objects of their own."""
    result = labels.copy()
    for number in numbers:
        columns = np.nonzero(labels == number)[2]
        half = (labels == number) & (np.indices(labels.shape)[2] < columns.mean())
        result[half] = result.max() + 1
    return result


def compare(before: np.ndarray, after: np.ndarray, found: np.ndarray | None = None) -> Likeness:
    return likeness(Frame(0, before if found is None else found, before, after, SPACING))


def test_an_edit_of_the_present_result_is_none_of_an_earlier() -> None:
    before = grid()
    after = split(merged(before, (1, 2), (9, 10), (9, 11)), 20, 30)
    after[:, 0:3, 20:24] = 17  # a stroke that goes astray
    like = compare(before, after)
    assert like == Likeness(36, 2, 9, 0)
    assert like.earlier(1) is None
    assert like.doubt is None
    # All of it may be merged and split, and all of it erased.
    numbers = range(1, 37)
    many = compare(before, merged(before, *zip(numbers[::2], numbers[1::2], strict=True)))
    assert many == Likeness(36, 0, 36, 0)
    assert many.earlier(0) is None
    assert many.doubt == "36 of 36 objects differ from the present result"
    nothing = compare(before, np.zeros_like(before))
    assert (nothing, nothing.earlier(0), nothing.doubt) == (Likeness(), None, None)
    # So may the few objects of a small volume.
    few = compare(grid(3), grid(3, shift=1))
    assert (few.redrawn, few.earlier(0)) == (9, None)


def test_other_outlines_are_another_segmentation() -> None:
    like = compare(grid(), merged(grid(shift=1), (3, 4)))
    assert like.redrawn == 36
    assert like.earlier(0) == "36 of 36 objects have another outline"


@pytest.mark.parametrize("splits", [(), (30,), (3,)])
def test_numbers_of_before_the_corrections(splits: tuple[int, ...]) -> None:
    found = grid()
    before = numbered(split(merged(found, (7, 8)), *splits))
    copy = merged(found, (20, 21))  # what was edited is the copy of before
    assert "the numbers of before" in str(compare(before, copy, found).earlier(1))
    # By hand it is undone with another number.
    undone = before.copy()
    undone[found == 8] = before.max() + 1
    like = compare(before, undone, found)
    assert like.given == 1
    assert like.earlier(1) is None


def test_other_numbers_are_told_and_refused_if_they_undo() -> None:
    found = grid()
    first = numbered(merged(found, (1, 2)))
    before = numbered(merged(first, (5, 6)))
    like = compare(before, merged(first, (20, 21)), found)
    assert like.as_found == 0
    assert like.earlier(undone=1) == (
        "27 objects that nobody touched have other numbers, and 1 corrections are undone"
    )
    assert like.earlier(undone=0) is None
    assert like.doubt == "27 of 34 objects have other numbers than at present"
    assert not compare(before, split(before, 3), found).numbered_anew


def test_frames_add_up() -> None:
    one, other = compare(grid(), split(grid(), 3)), compare(grid(3), grid(3, shift=1))
    assert one.plus(other) == Likeness(45, 9, 10, 0)
