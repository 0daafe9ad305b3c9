"""Scores against an independent brute force: dense IoU matrix and optimal assignment."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label
from scipy.optimize import linear_sum_assignment

from volsam.evaluate.contingency import Contingency
from volsam.evaluate.metrics import (
    THRESHOLDS,
    matches,
    overlaps,
    score,
    segmentation_accuracy,
)
from volsam.evaluate.neurites import neurite_scores


def blobs(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return label(gaussian_filter(rng.normal(size=shape), 1.3) > 0.03)[0]


def brute_force(labels: np.ndarray, truth: np.ndarray, threshold: float) -> tuple[int, int, int]:
    p = [i for i in np.unique(labels) if i]
    t = [i for i in np.unique(truth) if i]
    iou = np.zeros((len(p), len(t)))
    for i, x in enumerate(p):
        for j, y in enumerate(t):
            either = ((labels == x) | (truth == y)).sum()
            iou[i, j] = ((labels == x) & (truth == y)).sum() / either
    good = iou >= threshold
    rows, columns = linear_sum_assignment(good, maximize=True)
    tp = int(good[rows, columns].sum())
    return tp, len(p) - tp, len(t) - tp


@pytest.mark.parametrize("shape", [(40, 50), (10, 20, 24)])
@pytest.mark.parametrize("seed", range(5))
def test_equals_brute_force(shape: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = blobs(rng, shape)
    labels = np.roll(truth, 1, 0)  # partly overlapping, partly split and merged
    labels[truth % 4 == 1] = 0
    labels[..., ::7] = 0
    labels = label(labels)[0]
    result = segmentation_accuracy(labels, truth)
    for t in THRESHOLDS:
        tp, fp, fn = brute_force(labels, truth, t)
        assert result["SA"][f"{t:.2f}"] == pytest.approx(tp / (tp + fp + fn))
    tp, fp, fn = brute_force(labels, truth, 0.5)
    assert (result["tp"], result["fp"], result["fn"]) == (tp, fp, fn)
    assert result["precision"] == pytest.approx(tp / (tp + fp))
    assert result["recall"] == pytest.approx(tp / (tp + fn))
    assert result["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert result["SA75"] == result["SA"]["0.75"]
    assert result["mSA"] == pytest.approx(np.mean(list(result["SA"].values())))
    low = segmentation_accuracy(labels, truth, thresholds=[0.2])
    tp, fp, fn = brute_force(labels, truth, 0.2)
    assert low["mSA"] == pytest.approx(tp / (tp + fp + fn))


def test_ties_at_one_half_give_one_match_each() -> None:
    truth = np.array([[1, 1, 2, 2, 0, 3, 3, 3, 3]])
    labels = np.array([[5, 5, 5, 5, 0, 6, 6, 7, 7]])
    result = segmentation_accuracy(labels, truth)
    assert (result["tp"], result["fp"], result["fn"]) == (2, 1, 1)
    assert matches(overlaps(Contingency.of(labels, truth)), 0.51).size == 0


def test_perfect_with_large_ids_and_blocks() -> None:
    truth = blobs(np.random.default_rng(7), (8, 20, 20))
    big = np.where(truth, truth.astype(np.uint64) + np.uint64(2**40), 0)
    result = score(Contingency.blockwise(big, truth, (3, 9, 9)))
    assert result["mSA"] == result["f1"] == result["matched_iou"] == 1
    assert result["objects"] == result["truth_objects"] == truth.max()


def test_empty_sides() -> None:
    none, one = np.zeros((4, 4), int), np.eye(4, dtype=int)
    both = segmentation_accuracy(none, none)
    assert both["mSA"] == both["precision"] == both["recall"] == both["f1"] == 1
    assert both["matched_iou"] is None
    missed, invented = segmentation_accuracy(none, one), segmentation_accuracy(one, none)
    for result in (missed, invented):
        assert result["mSA"] == result["precision"] == result["recall"] == result["f1"] == 0
    assert segmentation_accuracy(one, one, mask=none.astype(bool))["mSA"] == 1


def test_partition_distance_against_definitions() -> None:
    rng = np.random.default_rng(3)
    truth, labels = rng.integers(0, 4, 60), rng.integers(0, 5, 60)
    result = neurite_scores(Contingency.of(labels, truth)).to_json()
    a, b = labels[truth > 0], truth[truth > 0]

    def entropy(x: np.ndarray) -> float:
        p = np.unique(x, return_counts=True)[1] / x.size
        return float(-(p * np.log2(p)).sum())

    assert result["vi_split"] == pytest.approx(entropy(a * 10 + b) - entropy(b))
    assert result["vi_merge"] == pytest.approx(entropy(a * 10 + b) - entropy(a))
    same_a, same_b = a[:, None] == a, b[:, None] == b
    precision, recall = (
        (same_a & same_b).sum() / same_a.sum(),
        (same_a & same_b).sum() / same_b.sum(),
    )
    assert result["rand_error"] == pytest.approx(1 - 2 * precision * recall / (precision + recall))
    perfect = neurite_scores(Contingency.of(truth, truth)).to_json()
    assert all(perfect[key] == pytest.approx(0) for key in ("vi_split", "vi_merge", "rand_error"))
    assert neurite_scores(Contingency.empty()).rand_error == 0
