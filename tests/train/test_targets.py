"""Targets agree with a direct reading of torch_em's definition, object by object."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label, regionprops
from skimage.segmentation import find_boundaries

from volsam.train.targets import distance_targets


def reference(labels: np.ndarray) -> np.ndarray:
    """Compute the targets one object at a time, each in its bounding box."""
    objects = label(labels, connectivity=2)
    boundaries = find_boundaries(objects, mode="inner")
    targets = np.ones((3, *labels.shape), np.float32)
    targets[0] = objects > 0
    for region in regionprops(objects):
        box, mask = region.slice, region.image
        center = tuple(np.round(region.centroid).astype(int) - [s.start for s in box])
        depth = np.where(mask, ndimage.distance_transform_edt(~boundaries[box]), -1)
        deepest = np.unravel_index(np.argmax(depth), depth.shape)
        if not mask[center]:
            center = deepest
        seed = np.ones(mask.shape, bool)
        seed[center] = False
        for channel, distance in enumerate(
            (ndimage.distance_transform_edt(seed), depth[deepest] - depth), start=1
        ):
            distance = np.where(mask, distance, 0)
            targets[channel][box][mask] = (distance / (distance.max() + 1e-7))[mask]
    return targets


@pytest.mark.parametrize("seed", range(8))
def test_targets_equal_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(60, 70)), 3)
    labels = np.digitize(noise, np.quantile(noise, [0.5, 0.7, 0.85]))
    np.testing.assert_allclose(distance_targets(labels), reference(labels), atol=1e-6)


def test_centroid_outside_of_a_ring_moves_into_it() -> None:
    y, x = np.mgrid[-15:16, -15:16]
    ring = ((np.hypot(y, x) < 14) & (np.hypot(y, x) > 7)).astype(int)
    targets = distance_targets(ring)
    np.testing.assert_allclose(targets, reference(ring), atol=1e-6)
    assert (targets[1] == 0).sum() == 1
    assert ring[targets[1] == 0].all()


def test_background_is_zero_and_ones_and_small_objects_vanish() -> None:
    labels = np.zeros((20, 20), int)
    labels[2:4, 2:4] = 1
    labels[8:16, 8:16] = 7
    targets = distance_targets(labels, min_size=5)
    assert targets[0].sum() == 64
    assert (targets[1:, labels != 7] == 1).all()
    assert distance_targets(np.zeros((5, 5), int)).tolist() == [
        np.zeros((5, 5)).tolist(),
        np.ones((5, 5)).tolist(),
        np.ones((5, 5)).tolist(),
    ]


def test_one_object_that_fills_the_image_has_no_boundary() -> None:
    targets = distance_targets(np.ones((6, 6), int))
    assert np.isfinite(targets).all()
    assert (targets[2] == 0).all()
