"""Merge 2D labels of slices into 3D objects, slice by slice: the stitcher without tiles.

Invariants
----------
- Besides input and output, which may be zarr arrays, only a window of slices is held.
- Input is never modified; output is numbered 1..N by first occurrence (slice, then id).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from volsam.errors import VolsamError
from volsam.stitch import micro_sam
from volsam.stitch.costs import StitchParameters
from volsam.stitch.dips import are_bright, mean_signal
from volsam.stitch.graph import Edges, Fragments
from volsam.stitch.micro_sam import Slice, SliceStack, read_slice
from volsam.stitch.overlaps import map_labels, present_labels, stacked_overlaps
from volsam.stitch.partition import extents, partition


def merge_slices(
    labels: SliceStack,
    out: Any = None,
    *,
    method: Literal["volsam", "micro-sam"] = "volsam",
    parameters: StitchParameters | None = None,
    gap_closing: int | None = None,
    min_z_extent: int | None = None,
    unique_ids: bool = True,
    image: SliceStack | None = None,
) -> Any:
    """Merge the labels of slices into 3D objects.

    Parameters
    ----------
    labels : (z, y, x) array of unsigned integers
        2D labels of each slice, 0 is background; anything with ``shape`` that gives a slice for an
        index.
    out : (z, y, x) array, optional
        Where the result goes, not `labels` itself; by default a new uint32 array.
    method : "volsam" or "micro-sam"
        Symmetric multicut of this package, or an exact reproduction of micro-sam's
        ``merge_instance_segmentation_3d``.
    parameters : StitchParameters, optional
        For "volsam".
    gap_closing : int, optional
        Slices an object may be missing from; with "micro-sam" the iterations of its closing, which
        also paints the gap. Overrides ``parameters.max_gap``.
    min_z_extent : int, optional
        Drop objects of fewer slices. Overrides ``parameters.min_extent``.
    unique_ids : bool
        Whether an id occurs in one slice only; matters to "micro-sam", which needs it. If not, each
        slice's ids are shifted past those of the slice before.
    image : (z, y, x) array, optional
        Normalised intensities, for "volsam": a dip of brightness between slices separates
        objects (``parameters.dip_weight``).

    Returns
    -------
    out
    """
    if len(labels.shape) != 3:
        raise VolsamError(f"Slice merging needs a (z, y, x) array but got shape {labels.shape}.")
    if out is None:
        out = np.zeros(labels.shape, np.uint32)
    if method == "micro-sam":
        source = labels if unique_ids else _ShiftedIds(labels)
        return _merge_like_micro_sam(source, out, gap_closing or 0, min_z_extent or 0)
    if method != "volsam":
        raise VolsamError(f"Merging method '{method}' is unknown; use 'volsam' or 'micro-sam'.")
    p = parameters or StitchParameters()
    overrides = {"max_gap": gap_closing, "min_extent": min_z_extent}
    stated = {k: v for k, v in overrides.items() if v is not None}
    return _merge(labels, out, replace(p, **stated), image)


def _merge(
    labels: SliceStack, out: Any, parameters: StitchParameters, image: SliceStack | None
) -> Any:
    """One graph over all slices, then the objects painted slice by slice."""
    depth = labels.shape[0]
    ids: list[NDArray[np.int64]] = []
    sizes: list[NDArray[np.int64]] = []
    rows: list[NDArray[np.void]] = []
    signals: list[NDArray[np.float32]] = []
    window: deque[Slice] = deque()
    offsets: deque[int] = deque()
    known: deque[NDArray[np.int64]] = deque()  # pixels by label, of the slices in the window
    offset = 0
    for z in range(depth):
        current = read_slice(labels, z)
        present, size = present_labels(current)
        window.append(map_labels(current, present, np.arange(1, present.size + 1, dtype=np.uint32)))
        offsets.append(offset)
        known.append(np.concatenate([[0], size]))
        if image is not None:
            signals.append(mean_signal(window[-1], image[z]))
        ids.append(present)
        sizes.append(size)
        offset += present.size
        if len(window) == parameters.max_gap + 2:
            rows.append(stacked_overlaps(window, offsets, known))
            for passed in (window, offsets, known):
                passed.popleft()
    while window:
        rows.append(stacked_overlaps(window, offsets, known))
        for passed in (window, offsets, known):
            passed.popleft()
    counts = np.array([i.size for i in ids]).reshape(-1, 1, 1)
    pixels = np.concatenate(sizes).astype(np.uint32)
    signal = _signal(signals, pixels) if signals else None
    fragments = Fragments.from_counts(counts, pixels, signal)
    edges = Edges.from_rows(np.concatenate(rows), offset)
    objects = partition(fragments, edges, parameters).objects
    start = 0
    for z in range(depth):
        stop = start + ids[z].size
        out[z] = map_labels(read_slice(labels, z), ids[z], objects[start:stop].astype(out.dtype))
        start = stop
    return out


def _signal(
    means: list[NDArray[np.float32]], size: NDArray[np.uint32]
) -> NDArray[np.float32] | None:
    """Signal of all fragments from the means of each slice, if it says something."""
    signal = np.concatenate([mean[1:] for mean in means])
    background = np.concatenate([np.full(mean.size - 1, mean[0]) for mean in means])
    return signal if are_bright(signal, background, size) else None


def _merge_like_micro_sam(labels: SliceStack, out: Any, gap_closing: int, min_z_extent: int) -> Any:
    """Pass 1 finds the edges (and writes closed slices to `out`), pass 2 paints the clusters."""
    depth = labels.shape[0]
    closing = gap_closing > 0
    stack = (
        micro_sam.closed_slices(labels, gap_closing)
        if closing
        else (read_slice(labels, z) for z in range(depth))
    )
    edges: list[NDArray[np.void]] = []
    ids: list[NDArray[np.int64]] = []
    size: NDArray[np.int64] = np.empty(0, np.int64)  # of the slice below
    below: Slice | None = None
    for z, current in enumerate(stack):
        if below is not None:
            edges.append(micro_sam.edges_between(below, current, ids[-1], size))
        present, size = present_labels(current)
        ids.append(present)
        if closing:
            out[z] = current
        below = current
    max_id = max((int(i[-1]) for i in ids if i.size), default=0)
    node: NDArray[Any] = np.arange(max_id + 1)
    if any(e.size for e in edges):
        node = micro_sam.solve(np.concatenate(edges), max_id)
    objects = _number(node, ids, min_z_extent if any(e.size for e in edges) else 0)
    source = out if closing else labels
    for z in range(depth):
        out[z] = map_labels(read_slice(source, z), ids[z], objects[ids[z]].astype(out.dtype))
    return out


def _number(
    cluster: NDArray[np.integer], ids: Sequence[NDArray[np.int64]], min_extent: int
) -> NDArray[np.int64]:
    """Object of each id: 1..N by first occurrence, 0 where its cluster spans too few slices."""
    of = cluster[np.concatenate(ids)]
    z = np.repeat(np.arange(len(ids)), [i.size for i in ids])
    clusters, first, dense = np.unique(of, return_index=True, return_inverse=True)
    thin = extents(dense, z) < min_extent
    order = np.argsort(first)
    number = np.zeros(clusters.size, np.int64)
    kept = order[~thin[order]]
    number[kept] = np.arange(1, kept.size + 1)
    objects = np.zeros(cluster.size, np.int64)
    objects[np.concatenate(ids)] = number[dense]
    return objects


class _ShiftedIds:
    """View of slice labels whose ids are made unique by shifting, as micro-sam does."""

    def __init__(self, labels: SliceStack) -> None:
        self.shape = labels.shape
        self._labels = labels
        self._offset = {0: 0}

    def __getitem__(self, z: int, /) -> Slice:
        # Slices are read in order first; later passes find their offsets known.
        current = read_slice(self._labels, z)
        self._offset.setdefault(z + 1, self._offset[z] + int(current.max(initial=0)))
        return np.where(current == 0, 0, current + current.dtype.type(self._offset[z]))
