"""Neurite scores against scikit-image, against the definitions, and on cases known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.metrics import adapted_rand_error, variation_of_information

from volsam.evaluate.contingency import Contingency
from volsam.evaluate.neurites import neurite_scores


def noise(seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 30, (40, 60, 50)), rng.integers(0, 20, (40, 60, 50))


def neurites(seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Voronoi cells with membranes, and the same with splits, merges and shifted borders."""
    rng = np.random.default_rng(seed)
    shape = (12, 96, 96)
    seeds = np.ones(shape, bool)
    seeds[tuple(rng.integers(0, n, 60) for n in shape)] = False
    nearest = ndi.distance_transform_edt(seeds, return_distances=False, return_indices=True)
    truth = np.ravel_multi_index(tuple(nearest), shape)
    truth = np.unique(truth, return_inverse=True)[1].reshape(shape) + 1
    labels = np.where(truth <= 20, (truth + 1) // 2, truth)  # merges
    labels = labels + 100 * ((labels > 40) & (np.arange(shape[2]) > 48))  # splits
    labels = np.roll(labels, 2, axis=1)
    edge = ndi.grey_dilation(truth, 3) != ndi.grey_erosion(truth, 3)
    labels[ndi.grey_dilation(labels, (1, 3, 3)) != labels] = 0
    return labels, np.where(edge, 0, truth)


@pytest.mark.parametrize("make", [noise, neurites])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_scikit_image(make, seed: int) -> None:
    labels, truth = make(seed)
    ours = neurite_scores(Contingency.of(labels, truth))
    kept = truth != 0
    split, merge = variation_of_information(truth[kept], labels[kept])
    assert (ours.vi_split, ours.vi_merge) == pytest.approx((split, merge), abs=1e-9)
    assert ours.vi == pytest.approx(split + merge)
    # scikit-image leaves out pairs of a voxel with itself, and exchanges precision and recall.
    error, recall, precision = adapted_rand_error(truth, labels, ignore_labels=(0,))
    assert ours.rand_error == pytest.approx(error, abs=1e-3)
    assert ours.rand_precision == pytest.approx(precision, abs=1e-3)
    assert ours.rand_recall == pytest.approx(recall, abs=1e-3)
    assert ours.voxels == kept.sum()


@pytest.mark.parametrize("seed", range(3))
def test_singletons_and_ignore_are_what_they_say(seed: int) -> None:
    labels, truth = neurites(seed)
    alone = labels.copy()
    alone[labels == 0] = labels.max() + 1 + np.arange((labels == 0).sum())
    expected = neurite_scores(Contingency.of(alone, truth)).to_json()
    found = neurite_scores(Contingency.of(labels, truth), background="singletons").to_json()
    assert found == pytest.approx(expected)
    expected = neurite_scores(Contingency.of(labels, truth, labels != 0)).to_json()
    found = neurite_scores(Contingency.of(labels, truth), background="ignore").to_json()
    assert found == pytest.approx(expected)


def test_known_by_hand() -> None:
    truth = np.array([1] * 8)
    halves = neurite_scores(Contingency.of(np.array([1] * 4 + [2] * 4), truth))
    assert (halves.vi_split, halves.vi_merge) == (1, 0)
    assert (halves.rand_precision, halves.rand_recall) == (1, 0.5)
    merged = neurite_scores(Contingency.of(truth, np.array([1] * 4 + [2] * 4)))
    assert (merged.vi_split, merged.vi_merge) == (0, 1)
    assert merged.rand_error == pytest.approx(1 / 3)


@pytest.mark.parametrize("background", ["segment", "singletons", "ignore"])
def test_equal_and_empty(background) -> None:
    truth = np.arange(24).reshape(4, 6)
    for table in (Contingency.of(truth, truth), Contingency.empty()):
        scores = neurite_scores(table, background)
        assert (scores.vi, scores.rand_error) == (0, 0)
        assert (scores.rand_precision, scores.rand_recall) == (1, 1)


def test_sum_of_blocks_is_the_whole() -> None:
    labels, truth = neurites(7)
    whole = neurite_scores(Contingency.of(labels, truth))
    blocks = neurite_scores(Contingency.blockwise(labels, truth, (5, 40, 17)))
    assert blocks == whole
