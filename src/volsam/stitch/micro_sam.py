"""micro-sam's slice merging, reproduced exactly up to relabelling, in a window of slices.

Reference: ``merge_instance_segmentation_3d`` of micro-sam 1.8 (Archit et al. 2025,
https://doi.org/10.1038/s41592-024-02580-4), which holds several copies of the volume. Its
peculiarities are kept because a mode called exact must have them:

- The weight of an edge is the overlap as a fraction of the object in the *lower* slice, so the result
  depends on the direction of z; the object of the upper slice is not asked.
- A slice without background loses the edges of its smallest label.
- Gap closing renumbers slices and starts again from 1 after an empty slice among the first or last
  ``gap_closing`` ones, which can give two slices the same ids. Where that makes micro-sam fail, this
  raises `VolsamError`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from bioimage_cpp.graph import UndirectedGraph
from bioimage_cpp.graph.multicut import (
    KernighanLinMulticut,
    MulticutDecomposer,
    MulticutObjective,
)
from bioimage_cpp.segmentation import label
from numpy.typing import NDArray

from volsam.errors import VolsamError
from volsam.stitch.overlaps import count_overlaps, map_labels, present_labels

Slice = NDArray[np.unsignedinteger]
_EDGE = np.dtype([("lower", np.uint64), ("upper", np.uint64), ("fraction", np.float64)])


class SliceStack(Protocol):
    """What is needed of a volume: its shape, and one slice at a time (numpy or zarr)."""

    shape: tuple[int, ...]

    def __getitem__(self, z: int, /) -> Slice: ...


def read_slice(labels: SliceStack, z: int) -> Slice:
    """One slice, as uint32 at least: ids are unique over slices and outgrow small types."""
    current = np.asarray(labels[z])
    return current if current.dtype.itemsize >= 4 else current.astype(np.uint32)


def edges_between(
    lower: Slice, upper: Slice, present: NDArray[np.int64], size: NDArray[np.int64]
) -> NDArray[np.void]:
    """Overlaps of two neighbouring slices as fractions of the lower object.

    Parameters
    ----------
    lower, upper : (y, x) unsigned integers
    present, size : int64 (k,)
        Labels of the lower slice and their pixel counts, from `present_labels`.

    Returns
    -------
    (n,) structured array with fields lower, upper (uint64) and fraction (float64)
    """
    ids_lower, ids_upper, count = count_overlaps(lower, upper)
    if size.sum() == lower.size:  # no background: micro-sam drops the smallest label instead of 0
        keep = ids_lower != present[0]
        ids_lower, ids_upper, count = ids_lower[keep], ids_upper[keep], count[keep]
    edges = np.empty(count.size, _EDGE)
    edges["lower"], edges["upper"] = ids_lower, ids_upper
    edges["fraction"] = count / size[np.searchsorted(present, ids_lower)]
    return edges


def solve(edges: NDArray[np.void], max_id: int) -> NDArray[np.uint64]:
    """Cluster of every id 0..max_id by micro-sam's costs and solver.

    Parameters
    ----------
    edges : structured array of `edges_between`
        Of all slices, in order.
    max_id : int
        Largest id of the volume.

    Raises
    ------
    VolsamError
        If ids repeat over slices in a way that micro-sam cannot handle either.
    """
    uv = np.stack([edges["lower"], edges["upper"]], axis=1)
    if (uv[:, 0] == uv[:, 1]).any():
        raise VolsamError(_REPEATED_IDS)
    p = 0.998 * edges["fraction"] + 0.001
    attraction = 1.0 - np.log((1.0 - p) / p)
    graph = UndirectedGraph(max_id + 1)
    graph.insert_edges(uv)
    if graph.number_of_edges != len(edges):
        raise VolsamError(_REPEATED_IDS)
    solver = MulticutDecomposer(
        KernighanLinMulticut(), fallthrough_solver=KernighanLinMulticut(), number_of_threads=1
    )
    return solver.optimize(MulticutObjective(graph, attraction))


_REPEATED_IDS = (
    "The slice labels repeat ids in different slices, which micro-sam's merging cannot handle; "
    "pass unique_ids=False, or use method 'volsam' if gap closing made them repeat."
)


def closed_slices(labels: SliceStack, gap_closing: int) -> Iterator[Slice]:
    """Slice labels after closing gaps along z, one at a time.

    The binarised volume is closed along z by `gap_closing` iterations. A component of a closed slice
    replaces the labels in it unless it covers more than one of them. Only ``4 * gap_closing + 1``
    masks and ``2 * gap_closing + 1`` slices are held. The first and last `gap_closing` slices are
    renumbered but not closed.
    """
    n, depth = gap_closing, labels.shape[0]
    slices: deque[Slice] = deque(maxlen=2 * n + 1)  # z - n … z + n … as far as read
    masks: deque[NDArray[np.bool_]] = deque(maxlen=2 * n + 1)
    dilated: deque[NDArray[np.bool_]] = deque(maxlen=2 * n + 1)
    empty = np.zeros(labels.shape[1:], np.bool_)
    offset = 1
    for read in range(depth + 2 * n):
        # Slice `read` enters, the dilation of read - n is complete, the closing of read - 2n too.
        if read < depth:
            slices.append(read_slice(labels, read))
        masks.append(slices[-1] > 0 if read < depth else empty)
        if read >= n:
            dilated.append(np.logical_or.reduce(masks))
        z = read - 2 * n
        if z < 0:
            continue
        current = slices[0] if read < depth else slices[z - depth]
        if n <= z < depth - n:
            renumbered, offset = _replace_closed(current, np.logical_and.reduce(dilated), offset)
        else:
            renumbered, last = _renumber(current, offset)
            offset = last + 1
        yield renumbered


def _replace_closed(labels: Slice, closed: NDArray[np.bool_], offset: int) -> tuple[Slice, int]:
    """Take closed components, except where one would fuse several labels."""
    components = label(closed)
    of, inside, _ = count_overlaps(components, labels)
    n_components = int(components.max())
    fuses = np.bincount(of, minlength=n_components + 1) > 1
    number = np.arange(n_components + 1, dtype=labels.dtype)
    number[fuses] = 0
    merged = number[components]
    originals = np.unique(inside[fuses[of]])
    if originals.size:
        start = int(merged.max()) + 1
        kept = map_labels(labels, originals, np.arange(start, start + originals.size))
        merged = np.where(kept > 0, kept, merged).astype(labels.dtype)
    renumbered, last = _renumber(merged, offset)
    return renumbered, last + 1 if last else offset


def _renumber(labels: Slice, offset: int) -> tuple[Slice, int]:
    """Number the labels from `offset` in their order; also the last number, 0 without labels."""
    present, _ = present_labels(labels)
    if present.size == 0:
        return labels, 0
    stop = offset + present.size
    return map_labels(labels, present, np.arange(offset, stop, dtype=labels.dtype)), stop - 1
