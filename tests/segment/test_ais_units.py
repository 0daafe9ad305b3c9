"""Parameters in pixels of the network, and of images that are shown to it at another scale."""

import pytest

from volsam.evaluate.grid import AIS_GRID
from volsam.segment.ais import grid_in_pixels, in_pixels


@pytest.mark.parametrize("scale", [0.143, 0.635, 1.0, 1.32])
def test_there_and_back(scale: float) -> None:
    for name, values in AIS_GRID.items():
        for value, other in zip(values, grid_in_pixels(AIS_GRID, scale)[name], strict=True):
            back = in_pixels({name: other}, 1 / scale)[name]
            assert back == pytest.approx(value, abs=1e-5 if name != "min_size" else 1)


def test_a_large_object_is_smoothed_over_more_pixels() -> None:
    tuned = {"distance_smoothing": 1.2, "min_size": 30, "center_threshold": 0.4}
    assert in_pixels(tuned, 0.5) == {
        "distance_smoothing": 2.4,
        "min_size": 120,
        "center_threshold": 0.4,
    }
