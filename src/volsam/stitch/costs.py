"""From overlaps to multicut costs, and the settings of stitching.

The cost of an edge is the log-odds of its similarity against a threshold, so that an isolated pair
merges exactly if the similarity exceeds it. Similarities are symmetric: it does not matter which
tile or slice is looked at first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volsam.stitch.overlaps import TILE_EDGE

_FLOOR = 1e-3  # similarities are kept this far from 0 and 1, which bounds a cost to about ±7


@dataclass(frozen=True)
class StitchParameters:
    """What merges and what is kept.

    The defaults were chosen on slices cut from 3D truth (mouse embryo nuclei, neurites,
    mitochondria), clean and with one-slice errors: missing, split, fused, shifted outlines.

    Attributes
    ----------
    tile_threshold : float
        Intersection over union, in the common band of two tiles, above which pieces join.
    slice_threshold : float
        Similarity of cross-sections in neighbouring slices above which they join: the mean of their
        intersection over union and of the overlap over the smaller one, so that the shrinking end
        of an object belongs to it.
    skip_threshold : float
        The same for cross-sections further apart. Only agreement counts here, and it is asked to be
        higher: such edges mend slices where an object is missing, split or fused with another.
    max_gap : int
        Slices that may be skipped; 0 compares direct neighbours only.
    dip_weight : float
        How much a dip of brightness between slices repels, where fragments have a signal; times the
        logarithm of the dip (`volsam.stitch.dips`).
    min_extent : int
        Objects in fewer slices are dropped (unless the volume has fewer).
    min_size, max_size : int
        Voxels; smaller and larger objects are dropped. `max_size` 0 means no limit.
    """

    tile_threshold: float = 0.4
    slice_threshold: float = 0.45
    skip_threshold: float = 0.5
    max_gap: int = 1
    dip_weight: float = 4.0
    min_extent: int = 2
    min_size: int = 0
    max_size: int = 0


def edge_costs(
    iou: NDArray[np.float32],
    containment: NDArray[np.float32],
    kind: NDArray[np.uint8],
    parameters: StitchParameters,
    dips: NDArray[np.float32] | float = 0.0,
) -> NDArray[np.float32]:
    """Cost of cutting each edge: positive attracts, negative repels.

    Parameters
    ----------
    iou, containment : float32 (m,)
        Overlap as a fraction of the union and of the smaller fragment.
    kind : uint8 (m,)
        `TILE_EDGE` or the distance in slices.
    parameters : StitchParameters
    dips : float32 (m,), optional
        Weighted logarithms of dips of brightness, 0 or negative, added to the costs.
    """
    # One table of offsets by kind, so that few arrays have the edges' length.
    threshold = np.full(256, parameters.skip_threshold, np.float32)
    threshold[TILE_EDGE], threshold[1] = parameters.tile_threshold, parameters.slice_threshold
    similarity = np.where(kind == TILE_EDGE, iou, (iou + containment) / 2)
    cost = _logit(similarity) - _logit(threshold)[kind] + dips
    # A skipped slice may well be where another object begins: disagreement across it says little.
    np.maximum(cost, 0, out=cost, where=kind > 1)
    return cost


def _logit(p: NDArray[np.float32]) -> NDArray[np.float32]:
    p = np.clip(p, _FLOOR, 1 - _FLOOR)
    return np.log(p / (1 - p)).astype(np.float32)
