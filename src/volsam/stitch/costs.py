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

    Attributes
    ----------
    tile_threshold : float
        Intersection over union, in the common band of two tiles, above which pieces join.
    slice_threshold : float
        Intersection over union of cross-sections in neighbouring slices above which they join.
    max_gap : int
        Slices that an object may be missing from; 0 joins direct neighbours only.
    gap_penalty : float
        Log-odds by which each missing slice weakens an edge.
    repulsion : float
        Log-odds against joining two fragments of one slice and tile that compete for a third one in
        the next slice, so that one fused cross-section does not fuse two columns; 0 switches it off.
    min_extent : int
        Objects in fewer slices are dropped (unless the volume has fewer).
    min_size, max_size : int
        Voxels; smaller and larger objects are dropped. `max_size` 0 means no limit.
    """

    tile_threshold: float = 0.4
    slice_threshold: float = 0.3
    max_gap: int = 1
    gap_penalty: float = 0.5
    repulsion: float = 1.0
    min_extent: int = 2
    min_size: int = 0
    max_size: int = 0


def intersection_over_union(
    overlap: NDArray[np.integer], size_u: NDArray[np.integer], size_v: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Similarity of every edge, 0..1."""
    union = size_u.astype(np.float32) + size_v - overlap
    return (overlap / union).astype(np.float32)


def edge_costs(
    similarity: NDArray[np.float32], kind: NDArray[np.uint8], parameters: StitchParameters
) -> NDArray[np.float32]:
    """Cost of cutting each edge: positive attracts, negative repels.

    Parameters
    ----------
    similarity : float32 (m,)
        Intersection over union.
    kind : uint8 (m,)
        `TILE_EDGE` or the distance in slices.
    parameters : StitchParameters
    """
    # One table of offsets by kind, so that no array but the result has the edges' length.
    offset = _logit(np.full(256, parameters.slice_threshold, np.float32))
    offset += parameters.gap_penalty * np.maximum(np.arange(256, dtype=np.float32) - 1, 0)
    offset[TILE_EDGE] = _logit(np.float32(parameters.tile_threshold))
    cost = _logit(similarity) - offset[kind]
    # Across a gap only agreement is evidence: what lies between usually hides most of an overlap.
    np.maximum(cost, 0, out=cost, where=kind > 1)
    return cost


def _logit(p: NDArray[np.float32] | np.float32) -> NDArray[np.float32]:
    p = np.clip(p, _FLOOR, 1 - _FLOOR)
    return np.log(p / (1 - p)).astype(np.float32)


def competing_pairs(
    u: NDArray[np.integer],
    v: NDArray[np.integer],
    kind: NDArray[np.uint8],
    cost: NDArray[np.float32],
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Fragments of one slice and tile that attract the same fragment of the next slice.

    Only attractive edges between direct neighbours count. A fragment shares more than a third of
    its union with at most a few others, so there are few pairs; all of them are returned.

    Returns
    -------
    first, second : int (p,)
        Pairs with ``first < second``, sorted and without repetition.
    """
    direct = (kind == 1) & (cost > 0)
    u, v = u[direct], v[direct]
    firsts, seconds = [], []
    for hub, rival in ((u, v), (v, u)):
        order = np.lexsort((rival, hub))
        hub, rival = hub[order], rival[order]
        step = 1
        while step < hub.size:
            same = hub[step:] == hub[:-step]
            if not same.any():
                break
            firsts.append(rival[:-step][same])
            seconds.append(rival[step:][same])
            step += 1
    if not firsts:
        return u[:0], v[:0]
    pairs = np.unique(np.stack([np.concatenate(firsts), np.concatenate(seconds)], axis=1), axis=0)
    return pairs[:, 0], pairs[:, 1]
