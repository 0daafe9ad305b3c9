"""Dips of brightness along z: what separates two objects that lie on top of each other.

Cross-sections of stacked, touching nuclei overlap as well as those of one nucleus do, because light
spreads along z. But a column of fragments through two nuclei is bright, dims, and is bright again,
and through one nucleus it is not. Texture and stripes of membranes give no dip: a fragment's mean
is compared with the brightest on either side. Where objects are not brighter than what is around them
(electron microscopy, stained membranes, phase contrast), brightness says nothing and there are no dips.

Invariants
----------
- Only ratios count, so an attenuation with depth, which has no dip, changes nothing.
- The result depends on the set of edges alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from volsam.stitch.graph import Edges, Fragments

REACH = 8
"""Slices that are looked through on either side."""
BRIGHT = 0.9
"""Share of the painted pixels that are in bright fragments, from which dips count."""
_FLOOR = 0.02  # of the normalised range: less is noise


def mean_signal(
    labels: NDArray[np.unsignedinteger], image: NDArray[np.number]
) -> NDArray[np.float32]:
    """Mean intensity of the background (0 without unlabelled pixels) and of each label.

    Parameters
    ----------
    labels : (h, w) integers
        Labels 1..n, each of which occurs; 0 is background.
    image : (h, w) array
        Normalised intensities.

    Returns
    -------
    float32 (n + 1,)
    """
    flat = labels.ravel()
    return (np.bincount(flat, image.ravel()) / np.maximum(np.bincount(flat), 1)).astype(np.float32)


def are_bright(
    signal: NDArray[np.float32], background: NDArray[np.float32], size: NDArray[np.integer]
) -> bool:
    """Tell whether fragments are brighter than unlabelled pixels around them: if not, give no signal.

    Parameters
    ----------
    signal, background : float32 (n,)
        Mean of each fragment, and of the unlabelled pixels of its tile.
    size : int (n,)
        Weight of each fragment.
    """
    return bool(size[signal > background].sum(dtype=np.int64) > BRIGHT * size.sum(dtype=np.int64))


def log_dips(fragments: Fragments, edges: Edges) -> NDArray[np.float32]:
    """Logarithm of how deep brightness dips at each edge between slices.

    Of an edge from u up to v, the dimmer of both is compared with the peak of the column that ends in u
    and that of the column that starts in v, whichever is lower. A column follows, from slice to
    slice, the fragment that overlaps most.

    Parameters
    ----------
    fragments : Fragments
        Without a signal there are no dips.
    edges : Edges
        Sorted; all views of a pair, so that columns are unbroken in every tile.

    Returns
    -------
    float32 (m,)
        0 without a dip, negative with one; 0 for edges within a slice.
    """
    dips = np.zeros(len(edges), np.float32)
    if fragments.signal is None:
        return dips
    signal = np.maximum(fragments.signal, np.float32(_FLOOR))
    direct = np.flatnonzero(edges.kind == 1)
    u, v = edges.u[direct], edges.v[direct]
    likeness = edges.iou[direct] + edges.containment[direct]
    above = _peaks(signal, _best(signal.size, u, v, likeness))
    below = _peaks(signal, _best(signal.size, v, u, likeness))
    between = np.flatnonzero(edges.kind > 0)
    u, v = edges.u[between], edges.v[between]
    dimmer = np.minimum(signal[u], signal[v])
    dips[between] = np.log(dimmer / np.minimum(below[u], above[v]))
    return dips


def _best(
    n: int,
    source: NDArray[np.integer],
    target: NDArray[np.integer],
    likeness: NDArray[np.float32],
) -> NDArray[np.int64]:
    """Most similar target of each node, the first of equals; itself where it has none."""
    order = np.lexsort((-target.astype(np.int64), likeness, source))
    best = np.arange(n, dtype=np.int64)
    # Of repeated indices numpy keeps the last one assigned.
    best[source[order]] = target[order]
    return best


def _peaks(signal: NDArray[np.float32], following: NDArray[np.int64]) -> NDArray[np.float32]:
    """Largest signal of each node and the `REACH` ones that follow it."""
    peaks = signal
    for _ in range(REACH):
        peaks = np.maximum(signal, peaks[following])
    return peaks
