"""Sequences seen as stacks of slices."""

from itertools import permutations

import numpy as np
import pytest

from volsam.geometry import Box
from volsam.volume.frames import FrameSlices, frame_stop, split_frames, stored_axes

ORDERS = [
    "".join(order)
    for letters in ("tyx", "tzyx", "tcyx", "tczyx")
    for order in permutations(letters)
]


@pytest.mark.parametrize("letters", ORDERS)
def test_any_order_of_axes_reads_and_writes_the_same_stack(letters: str) -> None:
    sizes = {"t": 3, "c": 2, "z": 4, "y": 5, "x": 6}
    canonical = "".join(a for a in "ctzyx" if a in letters)
    whole = np.arange(np.prod([sizes[a] for a in canonical])).reshape([sizes[a] for a in canonical])
    stored = whole.transpose([canonical.index(a) for a in letters]).copy()
    depth = sizes["z"] if "z" in letters else 1
    stack = whole.reshape(sizes["c"] if "c" in letters else 1, 3 * depth, 5, 6)
    view = FrameSlices(stored, letters)
    channel = (slice(None),) if "c" in letters else ()
    expected = stack if "c" in letters else stack[0]
    assert view.shape == expected.shape
    for start, stop in ((0, 3 * depth), (1, 2), (depth - 1, depth + 2), (2, 2)):
        index = (*channel, slice(start, stop), slice(1, 4), slice(2, 6))
        np.testing.assert_array_equal(view[index], expected[..., start:stop, 1:4, 2:6])
        target = np.zeros_like(stored)
        FrameSlices(target, letters)[index] = view[index]
        again = FrameSlices(target, letters)
        np.testing.assert_array_equal(again[index], expected[..., start:stop, 1:4, 2:6])
        assert np.count_nonzero(target) == np.count_nonzero(expected[..., start:stop, 1:4, 2:6])
    if channel:
        some = (1, slice(0, 2), slice(0, 5), slice(0, 6))
        np.testing.assert_array_equal(view[some], expected[1, 0:2])


def test_blocks_do_not_cross_frames() -> None:
    boxes = [box for _, box in split_frames((9, 4, 4), 3, (2, 4, 4))]
    assert sum(box.size for box in boxes) == 9 * 16
    assert all(frame_stop(box.start[0], 3) >= box.stop[0] for box in boxes)
    planes = [box for _, box in split_frames((9, 4, 4), 1, (4, 4, 4))]
    assert planes[0] == Box((0, 0, 0), (4, 4, 4))
    assert len({index for index, _ in split_frames((9, 4, 4), 3, (2, 2, 4))}) == 12


def test_axes_as_ome_zarr_orders_them() -> None:
    assert stored_axes((6, 4, 5), None) == ("zyx", (6, 4, 5))
    assert stored_axes((6, 4, 5), None, 2) == ("czyx", (2, 6, 4, 5))
    assert stored_axes((6, 4, 5), 6) == ("tyx", (6, 4, 5))
    assert stored_axes((6, 4, 5), 6, 2) == ("tcyx", (6, 2, 4, 5))
    assert stored_axes((6, 4, 5), 3) == ("tzyx", (3, 2, 4, 5))
    assert stored_axes((6, 4, 5), 3, 2) == ("tczyx", (3, 2, 2, 4, 5))
    assert stored_axes((1, 4, 5), 1) == ("tyx", (1, 4, 5))
