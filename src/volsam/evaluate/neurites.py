"""Scores of dense segmentations, where every voxel belongs to an object (EM neurites).

Both scores are functions of the contingency table alone, so volumes of any size are scored from the
sum of the tables of their blocks.

- Variation of information (Meilă, Comparing clusterings by the variation of information, COLT
  2003; J. Multivariate Anal. 98, 2007): VI = H(labels | truth) + H(truth | labels), in bits. The
  first part grows with false splits, the second with false merges.
- Adapted Rand error (Arganda-Carreras et al., Front. Neuroanat. 9:142, 2015): 1 − F of the pairs of
  voxels, drawn with replacement, that lie together: precision is the share of pairs together in the
  labels that are together in the truth, recall the reverse.

Voxels without truth (id 0) are left out, as the CREMI challenge does (https://cremi.org/metrics);
what the labels call background is treated as `Background` says.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from volsam.evaluate.contingency import Contingency

Background = Literal["segment", "singletons", "ignore"]


@dataclass(frozen=True)
class NeuriteScores:
    """Scores of one segmentation; of equal partitions, and of none, all errors are 0.

    Attributes
    ----------
    vi_split, vi_merge, vi : float
        H(labels | truth), H(truth | labels) and their sum, in bits.
    rand_error : float
        Adapted Rand error, 0 (best) to 1.
    rand_precision, rand_recall : float
        Its parts; low precision means merges, low recall splits.
    voxels : int
        Voxels that were compared.
    """

    vi_split: float
    vi_merge: float
    vi: float
    rand_error: float
    rand_precision: float
    rand_recall: float
    voxels: int

    def to_json(self) -> dict[str, float]:
        """The scores by name."""
        return asdict(self)


def neurite_scores(table: Contingency, background: Background = "segment") -> NeuriteScores:
    """Score a contingency table.

    Parameters
    ----------
    table : Contingency
        Of labels against truth.
    background : {"segment", "singletons", "ignore"}
        What voxels of label 0 are: one segment (CREMI's variation of information, scikit-image), each
        a segment of its own (the Rand error of SNEMI3D and CREMI), or left out.

    Returns
    -------
    NeuriteScores
    """
    keep = table.truth != 0
    if background == "ignore":
        keep &= table.label != 0
    label, truth, count = table.label[keep], table.truth[keep], table.count[keep]
    voxels = int(count.sum())
    if voxels == 0:
        return NeuriteScores(0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0)
    alone = 0
    joint, label_sizes, truth_sizes = count, _sizes(label, count), _sizes(truth, count)
    if background == "singletons":
        inside = label != 0
        alone = int(count[~inside].sum())
        joint, label_sizes = count[inside], _sizes(label[inside], count[inside])
    both = _Partition(joint, alone, voxels)
    labels, truths = _Partition(label_sizes, alone, voxels), _Partition(truth_sizes, 0, voxels)
    split = max(0.0, both.entropy - truths.entropy)
    merge = max(0.0, both.entropy - labels.entropy)
    return NeuriteScores(
        vi_split=split,
        vi_merge=merge,
        vi=split + merge,
        rand_error=max(0.0, 1 - 2 * both.together / (labels.together + truths.together)),
        rand_precision=both.together / labels.together,
        rand_recall=both.together / truths.together,
        voxels=voxels,
    )


class _Partition:
    """Entropy, and probability that two voxels lie together, of segments of given sizes.

    `alone` further segments have one voxel each.
    """

    def __init__(self, sizes: NDArray[np.int64], alone: int, voxels: int) -> None:
        p = sizes / voxels
        self.entropy = float(-(p * np.log2(p)).sum() + alone / voxels * np.log2(voxels))
        self.together = float((p**2).sum() + alone / voxels**2)


def _sizes(ids: NDArray[np.uint64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    unique, inverse = np.unique(ids, return_inverse=True)
    sizes = np.zeros(unique.size, np.int64)
    np.add.at(sizes, inverse, count)
    return sizes
