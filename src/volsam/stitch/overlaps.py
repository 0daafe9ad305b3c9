"""Overlap counts between fragments of neighbouring tiles and slices: the edges of the graph.

A *fragment* is one label of one tile's outer region in one slice. Its global id is the offset of
its (slice, tile) plus its local label minus one.

Invariants
----------
- Only pixels inside the plane count: what a border tile sees beyond it is a reflection.
- Both sizes of a row are measured in the same region as its overlap, so that their intersection
  over union compares like with like.
- ``u < v`` in every row: offsets grow with slice, then with tile, and `TileGrid.neighbours` names
  only later tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fastremap
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from volsam.geometry import Box, TileGrid

TILE_EDGE = 0
"""Kind of an edge between neighbouring tiles of one slice; kind k ≥ 1 is k slices apart, whatever
lies between: such an edge bridges a slice where the object is missing, split or fused."""

OVERLAP_DTYPE = np.dtype(
    [
        ("u", np.uint64),
        ("v", np.uint64),
        ("kind", np.uint8),
        ("overlap", np.uint32),
        ("size_u", np.uint32),
        ("size_v", np.uint32),
    ]
)
"""One row of the overlap table."""

_DENSE_KEYS = 1 << 24  # up to here a histogram of all possible pairs is cheap (128 MiB)
_TABLE = 1 << 26  # labels up to here are replaced through a table; untouched pages cost nothing

Labels = NDArray[np.integer]


def count_overlaps(
    a: Labels, b: Labels
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Count the pixels that each pair of labels has in common.

    Parameters
    ----------
    a, b : integer arrays of one shape
        Labels; 0 is background and ignored.

    Returns
    -------
    ids_a, ids_b, count : int64 (n,)
        One entry per overlapping pair, sorted by (ids_a, ids_b).
    """
    base = int(b.max(initial=0)) + 1
    if (int(a.max(initial=0)) + 1) * base <= a.size:
        # Local labels: a histogram of all pairs, background and all, is cheaper than to mask it.
        pair = np.multiply(a, base, dtype=np.int64)
        pair += b
        histogram = np.bincount(pair.ravel())
        histogram[:base] = 0
        histogram[::base] = 0
        key = np.flatnonzero(histogram)
        return key // base, key % base, histogram[key]
    both = (a != 0) & (b != 0)
    if not both.any():
        none = np.empty(0, np.int64)
        return none, none, none
    (low_a, in_a), (low_b, in_b) = (_shift_down(x[both]) for x in (a, b))
    base = int(in_b.max()) + 1
    n_keys = (int(in_a.max()) + 1) * base
    if n_keys >= 2**62:  # labels too far apart: number them densely first
        (ids_a, in_a), (ids_b, in_b) = (np.unique(x, return_inverse=True) for x in (in_a, in_b))
        key, count = np.unique(in_a * ids_b.size + in_b, return_counts=True)
        return low_a + ids_a[key // ids_b.size], low_b + ids_b[key % ids_b.size], count
    pair = in_a * base + in_b
    if n_keys <= max(_DENSE_KEYS, 4 * pair.size):
        histogram = np.bincount(pair)
        key = np.flatnonzero(histogram)
        count = histogram[key]
    else:
        key, count = fastremap.unique(pair, return_counts=True)
    return low_a + key // base, low_b + key % base, count.astype(np.int64)


def present_labels(labels: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels that occur, sorted and without the background, and their pixel counts."""
    if int(labels.max(initial=0)) <= labels.size:
        histogram = np.bincount(labels.ravel())
        histogram[:1] = 0
        present = np.flatnonzero(histogram)
        return present, histogram[present]
    foreground = labels[labels != 0]
    low, shifted = _shift_down(foreground)
    if int(shifted.max()) > max(_DENSE_KEYS, 4 * shifted.size):
        present, count = fastremap.unique(shifted, return_counts=True)
        return low + present, count.astype(np.int64)
    histogram = np.bincount(shifted)
    present = np.flatnonzero(histogram)
    return low + present, histogram[present]


def map_labels(labels: Labels, present: NDArray[np.integer], values: NDArray[Any]) -> NDArray[Any]:
    """Replace the labels `present` (sorted) by `values`, all others and the background by 0."""
    if present.size == 0:
        return np.zeros(labels.shape, values.dtype)
    high = int(present[-1])
    if int(labels.max()) <= _TABLE:
        table = np.zeros(max(high, int(labels.max())) + 1, values.dtype)
        table[present] = values
        return table[labels]
    position = np.searchsorted(present, labels.astype(present.dtype))
    position[position == present.size] = 0
    return np.where(present[position] == labels, values[position], 0).astype(values.dtype)


def _shift_down(labels: NDArray[np.integer]) -> tuple[int, NDArray[np.int64]]:
    """The smallest label, and the labels minus it: ids of one slice are close to each other."""
    low = int(labels.min())
    return low, (labels - labels.dtype.type(low)).astype(np.int64)


def overlap_rows(
    a: Labels,
    b: Labels,
    offset_a: int,
    offset_b: int,
    kind: int,
    size_a: NDArray[np.int64] | None = None,
    size_b: NDArray[np.int64] | None = None,
) -> NDArray[np.void]:
    """Rows of the overlap table for two views of one region.

    Parameters
    ----------
    a, b : (h, w) uint32
        Local labels of the same pixels, 0 is background.
    offset_a, offset_b : int
        Global id of local label 1 in each.
    kind : int
        `TILE_EDGE` or the distance in slices.
    size_a, size_b : int64 (labels + 1,), optional
        Pixels of each label, if they are known.

    Returns
    -------
    (n,) array of `OVERLAP_DTYPE`
    """
    ids_a, ids_b, count = count_overlaps(a, b)
    rows = np.empty(count.size, OVERLAP_DTYPE)
    rows["u"] = ids_a.astype(np.uint64) + np.uint64(offset_a) - np.uint64(1)
    rows["v"] = ids_b.astype(np.uint64) + np.uint64(offset_b) - np.uint64(1)
    rows["kind"] = kind
    rows["overlap"] = count
    rows["size_u"] = (pixel_counts(a) if size_a is None else size_a)[ids_a]
    rows["size_v"] = (pixel_counts(b) if size_b is None else size_b)[ids_b]
    return rows


def tile_overlaps(
    labels_a: Labels,
    labels_b: Labels,
    grid: TileGrid,
    tile_a: int,
    tile_b: int,
    offset_a: int,
    offset_b: int,
) -> NDArray[np.void]:
    """Rows for two neighbouring tiles of one slice, compared where their outer boxes meet.

    Parameters
    ----------
    labels_a, labels_b : (outer, outer) uint32
        Local labels of the two tiles' outer boxes.
    grid : TileGrid
    tile_a, tile_b : int
        Tile numbers, ``tile_a < tile_b``.
    offset_a, offset_b : int
        Global id of local label 1 in each tile.
    """
    outer_a, outer_b = grid.outer(tile_a), grid.outer(tile_b)
    common = outer_a.intersect(outer_b).intersect(Box.of(grid.shape))
    return overlap_rows(
        labels_a[common.relative_to(outer_a).slices],
        labels_b[common.relative_to(outer_b).slices],
        offset_a,
        offset_b,
        TILE_EDGE,
    )


def slice_overlaps(
    window: Sequence[Labels], offsets: Sequence[int], grid: TileGrid, tile: int
) -> NDArray[np.void]:
    """Rows between the first slice of a window and each later one, at the same tile.

    Parameters
    ----------
    window : sequence of (outer, outer) uint32
        Local labels of slices z, z+1, …; ``max_gap + 2`` of them, fewer at the volume's end.
    offsets : sequence of int
        Global id of local label 1 in each slice of the window.
    grid : TileGrid
    tile : int
    """
    outer = grid.outer(tile)
    visible = outer.intersect(Box.of(grid.shape)).relative_to(outer).slices
    views = [labels[visible] for labels in window]
    return stacked_overlaps(views, offsets)


def stacked_overlaps(
    window: Sequence[Labels],
    offsets: Sequence[int],
    sizes: Sequence[NDArray[np.int64]] | None = None,
) -> NDArray[np.void]:
    """Like `slice_overlaps` for whole slices: no tiles, nothing outside the plane.

    `sizes` are the slices' `pixel_counts`, if they are known.
    """
    if sizes is None:
        sizes = [pixel_counts(labels) for labels in window]
    rows = [
        overlap_rows(
            window[0], window[k], offsets[0], offsets[k], k, size_a=sizes[0], size_b=sizes[k]
        )
        for k in range(1, len(window))
    ]
    return np.concatenate(rows) if rows else np.empty(0, OVERLAP_DTYPE)


def fragment_sizes(labels: Labels, grid: TileGrid, tile: int, count: int) -> NDArray[np.uint32]:
    """Pixels of each fragment inside the tile's inner box, the part of it that is painted.

    Parameters
    ----------
    labels : (outer, outer) uint32
    grid : TileGrid
    tile : int
    count : int
        Number of fragments in the tile, i.e. its largest label.

    Returns
    -------
    (count,) uint32
    """
    inner = grid.inner(tile).relative_to(grid.outer(tile)).slices
    return np.bincount(labels[inner].ravel(), minlength=count + 1)[1:].astype(np.uint32)


def to_table(rows: NDArray[np.void]) -> pa.Table:
    """Overlap rows as an Arrow table, ready for Parquet."""
    names = OVERLAP_DTYPE.names or ()
    return pa.table({name: np.ascontiguousarray(rows[name]) for name in names})


def pixel_counts(labels: Labels) -> NDArray[np.int64]:
    """Pixels of each label, by label."""
    return np.bincount(labels.ravel())
