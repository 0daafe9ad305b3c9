"""All fragments and overlaps of a volume → objects, and what the seam report says about them.

Steps: costs (`volsam.stitch.costs`) with dips of brightness (`volsam.stitch.dips`), one edge for each
pair of sections (`volsam.stitch.views`), multicut (`volsam.stitch.cluster`), filters by size and
extent, numbering 1..N by first fragment.

Invariants
----------
- The result is a function of fragments, edges and settings: not of the order of the edges, nor of
  blocks, workers or threads.
- An object has at least one painted voxel; fragments seen only in halos never make an object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volsam.errors import VolsamError
from volsam.stitch.cluster import DIRECT_NODES, Cells, cluster
from volsam.stitch.costs import StitchParameters, edge_costs
from volsam.stitch.dips import log_dips
from volsam.stitch.graph import Edges, Fragments
from volsam.stitch.overlaps import TILE_EDGE
from volsam.stitch.views import distinct_views

_BINS = 20


@dataclass(frozen=True)
class SeamStatistics:
    """What happened at the borders, for the seam report.

    Attributes
    ----------
    edges, merged, cut : dict of str to int
        Overlapping pairs, those that ended in one object, and attractive pairs that were separated
        nevertheless; by border: ``tiles`` or ``slices+k``.
    iou_tiles, iou_slices : int64 (20,)
        Histograms over 0..1 of the intersection over union, of tile edges and direct slice edges.
    fragments_cut : int
        Fragments with an attractive edge that was cut.
    objects, objects_across_tiles, objects_across_slices : int
        Objects kept, and those of them with fragments in several tiles or slices.
    dropped_small, dropped_large, dropped_thin : int
        Objects removed by the filters (each counted once, in this order).
    """

    edges: dict[str, int]
    merged: dict[str, int]
    cut: dict[str, int]
    iou_tiles: NDArray[np.int64]
    iou_slices: NDArray[np.int64]
    fragments_cut: int
    objects: int
    objects_across_tiles: int
    objects_across_slices: int
    dropped_small: int
    dropped_large: int
    dropped_thin: int


@dataclass(frozen=True)
class Partition:
    """Objects of a volume.

    Attributes
    ----------
    objects : uint64 (n_fragments,)
        Object of each fragment: 1..N by first fragment, 0 where dropped.
    statistics : SeamStatistics
    """

    objects: NDArray[np.uint64]
    statistics: SeamStatistics


def partition(
    fragments: Fragments,
    edges: Edges,
    parameters: StitchParameters | None = None,
    *,
    direct_nodes: int = DIRECT_NODES,
) -> Partition:
    """Join fragments to objects.

    Parameters
    ----------
    fragments : Fragments
    edges : Edges
        Sorted, as its constructors leave them.
    parameters : StitchParameters, optional
    direct_nodes : int
        Connected components of more fragments are solved hierarchically (`volsam.stitch.cluster`).

    Raises
    ------
    VolsamError
        If there are 2**31 fragments or more.
    """
    p = parameters or StitchParameters()
    n = len(fragments)
    if n >= 2**31:
        raise VolsamError(
            f"{n} fragments are more than the stitcher can number; raise min_size or split the "
            "volume by a region of interest."
        )
    # What a tile saw only in its halo it saw in part, and a partial view must not glue what it meets.
    painted = fragments.size > 0
    if not painted.all():
        edges = edges.take(painted[edges.u] & painted[edges.v])
    dips = log_dips(fragments, edges) * np.float32(p.dip_weight)
    distinct = distinct_views(edges, n)
    if not distinct.all():
        edges, dips = edges.take(distinct), dips[distinct]
    cost = edge_costs(edges.iou, edges.containment, edges.kind, p, dips)
    cells = Cells(fragments.position)
    labels = cluster(n, edges.u, edges.v, cost, cells, direct_nodes=direct_nodes)
    keep, dropped = _filter(labels, fragments, p)
    number = np.where(keep, np.cumsum(keep), 0).astype(np.uint64)
    objects = number[labels]
    return Partition(objects, _statistics(fragments, edges, cost, labels, objects, dropped))


def _filter(
    labels: NDArray[np.int64], fragments: Fragments, p: StitchParameters
) -> tuple[NDArray[np.bool_], tuple[int, int, int]]:
    """Which clusters to keep, and how many are too small, too large or too thin."""
    n_clusters = int(labels.max(initial=-1)) + 1
    voxels = np.bincount(labels, weights=fragments.size, minlength=n_clusters)
    small = voxels < max(1, p.min_size)
    large = (voxels > p.max_size) & ~small if p.max_size else np.zeros_like(small)
    # A volume of few slices, a 2D image above all, cannot ask for objects in more slices.
    thin = extents(labels, fragments.slice) < min(p.min_extent, fragments.n_slices)
    thin &= ~small & ~large
    dropped = int((small & (voxels > 0)).sum()), int(large.sum()), int(thin.sum())
    return ~(small | large | thin), dropped


def extents(labels: NDArray[np.integer], slices: NDArray[np.integer]) -> NDArray[np.int64]:
    """Slices from the first to the last of each label, both included; `slices` never decreases."""
    first = np.zeros(int(labels.max(initial=-1)) + 1, np.int64)
    last = first.copy()
    # Of repeated indices numpy keeps the last one assigned, and slices come in order.
    last[labels] = slices
    first[labels[::-1]] = slices[::-1]
    return last - first + 1


def _statistics(
    fragments: Fragments,
    edges: Edges,
    cost: NDArray[np.float32],
    labels: NDArray[np.int64],
    objects: NDArray[np.uint64],
    dropped: tuple[int, int, int],
) -> SeamStatistics:
    together = labels[edges.u] == labels[edges.v]
    separated = ~together & (cost > 0)
    kinds = np.unique(edges.kind)
    names = {int(k): "tiles" if k == TILE_EDGE else f"slices+{k}" for k in kinds}

    def per_border(chosen: NDArray[np.bool_] | slice) -> dict[str, int]:
        count = np.bincount(edges.kind[chosen], minlength=256)
        return {name: int(count[kind]) for kind, name in names.items()}

    touched = np.zeros(len(fragments), np.bool_)
    touched[edges.u[separated]] = True
    touched[edges.v[separated]] = True
    n_objects = int(objects.max(initial=0))
    kept = objects > 0
    of, where = objects[kept].astype(np.int64) - 1, fragments.position[:, kept]
    tile = where[1].astype(np.int64) << 32 | where[2]
    return SeamStatistics(
        edges=per_border(slice(None)),
        merged=per_border(together),
        cut=per_border(separated),
        iou_tiles=_histogram(edges.iou[edges.kind == TILE_EDGE]),
        iou_slices=_histogram(edges.iou[edges.kind == 1]),
        fragments_cut=int(touched.sum()),
        objects=n_objects,
        objects_across_tiles=_varying(of, tile, n_objects),
        objects_across_slices=_varying(of, where[0], n_objects),
        dropped_small=dropped[0],
        dropped_large=dropped[1],
        dropped_thin=dropped[2],
    )


def _histogram(iou: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.histogram(iou, bins=_BINS, range=(0, 1))[0]


def _varying(of: NDArray[np.int64], value: NDArray[np.integer], n: int) -> int:
    """How many of n objects have fragments of different values."""
    one = np.zeros(n, np.int64)
    one[of] = value
    varies = np.zeros(n, np.bool_)
    varies[of[one[of] != value]] = True
    return int(varies.sum())
