"""Two objects that several tiles see above each other are compared once.

What lies in the halo of two tiles has a fragment in both, and its overlap with the next slice a row
in both. Counted twice, a pair of slices would weigh more at a tile border than elsewhere. Of the rows
that say the same, the one of the tile that sees most counts; with a halo that covers an object this is
the row an image without tiles has.

Invariants
----------
- Tile edges stay; of the edges between slices at least one stays for each pair of sections.
- The result depends on the set of edges alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from volsam.stitch.graph import Edges
from volsam.stitch.overlaps import TILE_EDGE

SAME = 0.75
"""Intersection over union, in the common halo, from which two tiles surely see one object."""


def distinct_views(edges: Edges, n_fragments: int) -> NDArray[np.bool_]:
    """Find edges between slices that do not repeat what another tile sees better.

    Parameters
    ----------
    edges : Edges
        Sorted.
    n_fragments : int
        Number of nodes.

    Returns
    -------
    bool (m,)
        Which edges to keep.
    """
    keep = np.ones(len(edges), np.bool_)
    same = (edges.kind == TILE_EDGE) & (edges.iou >= SAME)
    if not same.any():
        return keep
    section = _sections(edges, same, n_fragments)
    shared = np.bincount(section) > 1
    section_u, section_v = section[edges.u], section[edges.v]
    # Only between two sections that several tiles see can there be a second row.
    candidates = np.flatnonzero((edges.kind != TILE_EDGE) & shared[section_u] & shared[section_v])
    u, v, kind = section_u[candidates], section_v[candidates], edges.kind[candidates]
    # Edges are in order and the sort is stable: of equally good views the first one stays.
    seen, iou = edges.seen[candidates].astype(np.int64), edges.iou[candidates]
    order = np.lexsort((-iou, -seen, kind, v, u))
    repeated = np.zeros(order.size, np.bool_)
    a, b = order[:-1], order[1:]
    repeated[1:] = (u[a] == u[b]) & (v[a] == v[b]) & (kind[a] == kind[b])
    keep[candidates[order[repeated]]] = False
    return keep


def _sections(edges: Edges, same: NDArray[np.bool_], n_fragments: int) -> NDArray[np.int32]:
    """The section of each fragment: fragments of one slice that tiles agree about."""
    ends = edges.u[same].astype(np.int32), edges.v[same].astype(np.int32)
    graph = coo_array((np.ones(ends[0].size, np.bool_), ends), shape=(n_fragments, n_fragments))
    _, section = connected_components(graph, directed=False)
    return section
