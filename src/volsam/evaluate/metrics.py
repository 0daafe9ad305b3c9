"""Instance scores from a contingency table.

Matching is by intersection over union (IoU): a label and a truth object match at a threshold t if
their IoU is at least t, each object in at most one match. Segmentation accuracy is
SA = TP / (TP + FP + FN), mSA its mean over the thresholds 0.5, 0.55 … 0.95 (the scores of the
Cellpose and Segment Anything for Microscopy papers). Where neither labels nor truth hold an object,
nothing is wrong and every score is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from volsam.evaluate.contingency import Contingency

THRESHOLDS: tuple[float, ...] = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))


@dataclass(frozen=True)
class Overlaps:
    """Pairs of a label and a truth object that share a voxel (background left out).

    Attributes
    ----------
    label, truth : uint64 (n,)
        Ids.
    iou : float64 (n,)
        Intersection over union.
    n_labels, n_truth : int
        Objects on either side, with or without an overlap.
    """

    label: NDArray[np.uint64]
    truth: NDArray[np.uint64]
    iou: NDArray[np.float64]
    n_labels: int
    n_truth: int


def overlaps(table: Contingency) -> Overlaps:
    """IoU of every pair of objects that meet."""
    labels, label_size = table.label_sizes()
    truths, truth_size = table.truth_sizes()
    both = (table.label != 0) & (table.truth != 0)
    label, truth, common = table.label[both], table.truth[both], table.count[both]
    union = (
        label_size[np.searchsorted(labels, label)]
        + truth_size[np.searchsorted(truths, truth)]
        - common
    )
    return Overlaps(
        label, truth, common / union, int((labels != 0).sum()), int((truths != 0).sum())
    )


def matches(pairs: Overlaps, threshold: float) -> NDArray[np.intp]:
    """Rows of `pairs` in a largest one-to-one matching of IoU at least `threshold`.

    Above 0.5 an object can have one partner only; at 0.5 and below ties are resolved so that the
    number of matches is largest.
    """
    rows = np.flatnonzero(pairs.iou >= threshold)
    labels, i = np.unique(pairs.label[rows], return_inverse=True)
    truths, j = np.unique(pairs.truth[rows], return_inverse=True)
    if rows.size == labels.size == truths.size:
        return rows
    graph = csr_array((np.ones(rows.size, np.int8), (i, j)), shape=(labels.size, truths.size))
    partner = maximum_bipartite_matching(graph, perm_type="column")
    return rows[partner[i] == j]


def score(table: Contingency, thresholds: Sequence[float] = THRESHOLDS) -> dict[str, Any]:
    """Scores of a contingency table.

    Parameters
    ----------
    table : Contingency
        Of labels against truth.
    thresholds : sequence of float
        IoU thresholds over which mSA is averaged.

    Returns
    -------
    dict
        ``mSA``, ``SA50``, ``SA75`` (always at 0.5 and 0.75); ``precision``, ``recall``, ``f1``,
        ``tp``, ``fp``, ``fn`` and ``matched_iou`` (mean IoU of the matches, None without one) at
        IoU 0.5; ``objects``, ``truth_objects``; ``SA``, a mapping of threshold ("0.50") to SA.
    """
    pairs = overlaps(table)
    accuracy = {t: _accuracy(pairs, t) for t in {*thresholds, 0.5, 0.75}}
    matched = matches(pairs, 0.5)
    tp = int(matched.size)
    fp, fn = pairs.n_labels - tp, pairs.n_truth - tp
    return {
        "mSA": float(np.mean([accuracy[t] for t in thresholds])),
        "SA50": accuracy[0.5],
        "SA75": accuracy[0.75],
        "precision": _ratio(tp, tp + fp, empty=float(fn == 0)),
        "recall": _ratio(tp, tp + fn, empty=float(fp == 0)),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "matched_iou": float(pairs.iou[matched].mean()) if tp else None,
        "objects": pairs.n_labels,
        "truth_objects": pairs.n_truth,
        "SA": {f"{t:.2f}": accuracy[t] for t in thresholds},
    }


def segmentation_accuracy(
    labels: NDArray[Any],
    truth: NDArray[Any],
    thresholds: Sequence[float] = THRESHOLDS,
    mask: NDArray[Any] | None = None,
) -> dict[str, Any]:
    """Scores of one image or volume in memory.

    Parameters
    ----------
    labels, truth : integer array, 2D or 3D, same shape
        Object ids, 0 = background.
    thresholds : sequence of float
        IoU thresholds of mSA.
    mask : bool array, optional
        Voxels that count.

    Returns
    -------
    dict
        As `score`. For volumes larger than memory use ``score(Contingency.blockwise(...))``.
    """
    return score(Contingency.of(labels, truth, mask), thresholds)


def _accuracy(pairs: Overlaps, threshold: float) -> float:
    tp = int(matches(pairs, threshold).size)
    return _ratio(tp, pairs.n_labels + pairs.n_truth - tp)


def _ratio(part: int, whole: int, empty: float = 1.0) -> float:
    return part / whole if whole else empty
