"""Motion from images and from neighbours."""

import numpy as np
from scipy import ndimage as ndi

from volsam.track.motion import flow, mutual, neighbourly

UNIT = (1.0, 2.0, 2.0)


def picture(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(1, 160, 200))
    return ndi.gaussian_filter(noise, (0, 3, 3)) * 100


def test_drift_of_the_whole_image() -> None:
    image = picture()
    moved = np.roll(image, (4, -7), (1, 2))
    found = flow(image, moved, UNIT).at(np.array([[0.0, 100, 200], [0, 200, 260]]))
    np.testing.assert_allclose(found, [[0, 8, -14], [0, 8, -14]], atol=1)


def test_halves_that_move_apart() -> None:
    image = picture()
    moved = image.copy()
    moved[:, :, :100] = np.roll(image, 3, 1)[:, :, :100]
    moved[:, :, 100:] = np.roll(image, -3, 1)[:, :, 100:]
    found = flow(image, moved, UNIT).at(np.array([[0.0, 160, 40], [0, 160, 360]]))
    np.testing.assert_allclose(found, [[0, 6, 0], [0, -6, 0]], atol=1.5)


def test_images_that_have_nothing_in_common_tell_little_motion() -> None:
    found = flow(picture(0), picture(1), UNIT)
    assert found.shift.any(axis=1).mean() < 0.25  # a block may agree by chance
    flat = np.zeros((1, 64, 64))
    assert not flow(flat, flat, UNIT).shift.any()
    assert flow(flat, flat, UNIT).at(np.zeros((0, 3))).shape == (0, 3)


def test_neighbours_tell_what_images_do_not() -> None:
    random = np.random.default_rng(0)
    before = np.column_stack([np.zeros(100), random.uniform(0, 100, (100, 2))])
    after = before + [0, 2, 1] + random.normal(0, 0.1, (100, 3)) * [0, 1, 1]
    still = np.zeros_like(before)
    found = neighbourly(before, after, still, 8)
    assert np.quantile(np.linalg.norm(found - [0, 2, 1], axis=1), 0.9) < 0.5
    assert np.array_equal(neighbourly(before[:3], after[:3], still[:3], 8), still[:3])
    alone = before + random.normal(0, 1, (100, 3)) * [0, 1, 1]
    agreed = neighbourly(before, alone, still, 8)
    assert np.linalg.norm(agreed, axis=1).mean() < 0.5


def test_mutual_neighbours() -> None:
    a, b, apart = mutual(np.array([[0.0, 0, 0], [0, 0, 9]]), np.array([[0.0, 0, 1]]), 5)
    assert (a.tolist(), b.tolist(), apart.tolist()) == ([0], [0], [1])
    assert len(mutual(np.zeros((0, 3)), np.zeros((2, 3)), 5)[0]) == 0
