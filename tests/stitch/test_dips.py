"""Dips of brightness separate what lies on top of each other, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from volsam.stitch.costs import StitchParameters
from volsam.stitch.dips import mean_signal
from volsam.stitch.slices import merge_slices

DISC = (np.hypot(*np.mgrid[-9:10, -9:10]) < 8).astype(np.uint32)


def column(profile: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """One disc per slice, and an image in which it has the given brightness."""
    labels = np.repeat(DISC[None], len(profile), axis=0)
    return labels, labels * np.array(profile)[:, None, None] + 0.02


def objects(profile: list[float], weight: float = 4.0) -> list[int]:
    labels, image = column(profile)
    out = merge_slices(
        labels, unique_ids=False, image=image, parameters=StitchParameters(dip_weight=weight)
    )
    return [int(plane.max()) for plane in out]


def test_a_dip_cuts_a_column_in_two() -> None:
    assert len(set(objects([0.4, 0.8, 0.7, 0.05, 0.6, 0.7, 0.3]))) == 2


@pytest.mark.parametrize(
    "profile",
    [
        [0.2, 0.5, 0.9, 0.9, 0.5, 0.2],  # one nucleus, dim at both ends
        [0.9, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1],  # attenuated with depth
        [0.8, 0.7, 0.75, 0.65, 0.8, 0.7],  # texture
    ],
)
def test_one_object_stays_one(profile: list[float]) -> None:
    assert objects(profile) == [1] * len(profile)


def test_weight_zero_and_no_image_ignore_brightness() -> None:
    profile = [0.8, 0.8, 0.05, 0.8, 0.8]
    assert objects(profile, weight=0) == [1] * 5
    labels, _ = column(profile)
    assert merge_slices(labels, unique_ids=False).max() == 1


def test_dark_objects_have_no_dips() -> None:
    labels, image = column([0.8, 0.8, 0.05, 0.8, 0.8])
    assert merge_slices(labels, unique_ids=False, image=1 - image).max() == 1


def test_means_start_with_the_unlabelled_pixels() -> None:
    labels = np.array([[0, 1, 1], [0, 2, 2]], np.uint32)
    image = np.array([[0.1, 0.5, 0.7], [0.3, 0.2, 0.0]], np.float32)
    np.testing.assert_allclose(mean_signal(labels, image), [0.2, 0.6, 0.1], atol=1e-6)
    np.testing.assert_allclose(mean_signal(np.ones((2, 2), np.uint32), np.ones((2, 2))), [0, 1])
