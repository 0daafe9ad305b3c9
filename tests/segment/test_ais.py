"""AIS post-processing against recorded results of micro-sam, and at its edges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from volsam.errors import VolsamError
from volsam.segment.ais import AisParameters, segment_ais

ORACLE = np.load(Path(__file__).with_name("ais_oracle.npz"))


@pytest.mark.parametrize("name", [n for n in ORACLE.files if n.startswith("labels-")])
def test_identical_to_micro_sam(name: str) -> None:
    _, case, *options = name.split("-")
    maps = ORACLE[f"maps-{case}"].astype(np.float32) / 255
    parameters = AisParameters(*map(float, options[:-1]), min_size=int(options[-1]))
    labels = segment_ais(*maps, parameters)
    assert labels.dtype == np.uint32
    np.testing.assert_array_equal(labels, ORACLE[name])


def _blob() -> np.ndarray:
    maps = ORACLE["maps-1"].astype(np.float32) / 255
    maps.setflags(write=False)
    return maps


def test_labels_are_consecutive_and_respect_min_size() -> None:
    sizes = np.bincount(segment_ais(*_blob(), AisParameters(min_size=150)).ravel())[1:]
    assert sizes.size > 3
    assert sizes.min() >= 150


def _three() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three squares: a sure one, a faint one, and one whose centre is not predicted."""
    foreground = np.zeros((20, 70), np.float32)
    center, boundary = np.ones((2, 20, 70), np.float32)
    for number, (signal, deepest) in enumerate(((1.0, 0.0), (0.6, 0.0), (1.0, 0.45))):
        place = (slice(4, 16), slice(4 + 22 * number, 16 + 22 * number))
        foreground[place], center[place], boundary[place] = signal, deepest, 0
    return foreground, center, boundary


@pytest.mark.parametrize(
    ("stated", "kept"),
    [
        ({}, [0, 1, 2]),
        ({"min_foreground": 0.8}, [0, 2]),
        ({"max_center": 0.3}, [0, 1]),
        ({"min_foreground": 0.8, "max_center": 0.3}, [0]),
        ({"min_foreground": 0.8, "max_center": 0.3, "min_size": 200}, []),
    ],
)
def test_doubtful_objects_are_dropped(stated: dict[str, float], kept: list[int]) -> None:
    raw = {"foreground_smoothing": 0, "distance_smoothing": 0}
    labels = segment_ais(*_three(), AisParameters(**{**raw, **stated}))  # type: ignore[arg-type]
    found = labels[10, [10, 32, 54]]
    np.testing.assert_array_equal(found.nonzero()[0], kept)
    np.testing.assert_array_equal(found[kept], 1 + np.arange(len(kept)))
    assert labels.max() == len(kept)


def test_no_foreground_gives_no_labels() -> None:
    foreground, center, boundary = _blob()
    assert not segment_ais(foreground * 0.4, center, boundary).any()
    assert segment_ais(*np.zeros((3, 0, 5), np.float32)).shape == (0, 5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 2)])
def test_images_smaller_than_the_gaussian(shape: tuple[int, int]) -> None:
    inside, near = np.ones(shape, np.float32), np.zeros(shape, np.float32)
    assert (segment_ais(inside, near, near) == 1).all()


def test_smoothing_can_be_switched_off_and_dtype_does_not_matter() -> None:
    raw = AisParameters(foreground_smoothing=0, distance_smoothing=0)
    maps = _blob()
    np.testing.assert_array_equal(
        segment_ais(*maps, raw), segment_ais(*maps.astype(np.float64), raw)
    )


@pytest.mark.parametrize("channel", range(3))
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_overflowed_predictions_are_refused(channel: int, bad: float) -> None:
    maps = _blob().copy()
    maps[channel, 3, 4] = bad
    with pytest.raises(VolsamError, match="NaN or infinity"):
        segment_ais(*maps)


def test_maps_of_different_shapes_are_refused() -> None:
    foreground, center, boundary = _blob()
    with pytest.raises(VolsamError, match="one shape"):
        segment_ais(foreground, center[1:], boundary)
