"""The graph of a whole volume as compact arrays: fragments and the edges between them.

Invariants
----------
- A fragment's global id is its index: fragments are numbered by slice, then tile, then label.
- An edge takes 21 bytes below 2**32 fragments. Tables stream in from Parquet one row group at a
  time, and the sorted edges do not depend on how they were spread over files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from volsam.errors import VolsamError
from volsam.stitch.overlaps import OVERLAP_DTYPE


@dataclass(frozen=True)
class Fragments:
    """All fragments of a volume, by global id.

    Attributes
    ----------
    position : int32 (3, n)
        Slice, tile row and tile column; slices never decrease.
    size : uint32 (n,)
        Pixels in the tile's inner box, the part that is painted.
    n_slices : int
        Slices of the volume, or of a frame of a sequence.
    signal : float32 (n,), optional
        Mean normalised intensity, where it says something (`volsam.stitch.dips.are_bright`).
    """

    position: NDArray[np.int32]
    size: NDArray[np.uint32]
    n_slices: int
    signal: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return self.size.size

    @property
    def slice(self) -> NDArray[np.int32]:
        """Slice of each fragment."""
        return self.position[0]

    @classmethod
    def from_counts(
        cls,
        counts: NDArray[np.integer],
        size: NDArray[np.uint32],
        signal: NDArray[np.float32] | None = None,
        depth: int | None = None,
    ) -> Fragments:
        """Fragments from their number in each slice and tile.

        Parameters
        ----------
        counts : int (slices, tile rows, tile columns)
        size : uint32 (n,)
            In the order of the global ids.
        signal : float32 (n,), optional
            The same.
        depth : int, optional
            Slices of a frame, if not all are one volume's.
        """
        if counts.sum() != size.size:
            raise VolsamError(
                f"The fragment table has {size.size} rows but the tiles hold {counts.sum()} "
                "fragments; rerun the segment stage."
            )
        flat = np.repeat(np.arange(counts.size), counts.ravel())
        position = np.stack(np.unravel_index(flat, counts.shape)).astype(np.int32)
        return cls(position, size, depth or counts.shape[0], signal)


@dataclass(frozen=True)
class Edges:
    """Overlapping pairs of fragments.

    Attributes
    ----------
    u, v : uint32 or uint64 (m,)
        Global fragment ids, ``u < v``.
    kind : uint8 (m,)
        0 for neighbouring tiles of one slice, k for k slices apart.
    iou, containment : float32 (m,)
        Overlap in the compared region as a fraction of the union and of the smaller fragment.
    seen : uint32 (m,)
        Pixels of both fragments in the compared region.
    """

    u: NDArray[np.unsignedinteger]
    v: NDArray[np.unsignedinteger]
    kind: NDArray[np.uint8]
    iou: NDArray[np.float32]
    containment: NDArray[np.float32]
    seen: NDArray[np.uint32]

    def __len__(self) -> int:
        return self.u.size

    @classmethod
    def empty(cls, n_edges: int, n_fragments: int) -> Edges:
        """Uninitialised arrays of the smallest sufficient types."""
        index = np.dtype(np.uint32 if n_fragments <= 2**32 else np.uint64)
        u: NDArray[Any] = np.empty(n_edges, index)
        v: NDArray[Any] = np.empty(n_edges, index)
        iou, containment = np.empty((2, n_edges), np.float32)
        seen: NDArray[np.uint32] = np.empty(n_edges, np.uint32)
        return cls(u, v, np.empty(n_edges, np.uint8), iou, containment, seen)

    @classmethod
    def from_rows(cls, rows: NDArray[np.void], n_fragments: int) -> Edges:
        """Edges from rows of the overlap table (`OVERLAP_DTYPE`), sorted."""
        edges = cls.empty(rows.size, n_fragments)
        edges._fill(slice(0, rows.size), {n: rows[n] for n in OVERLAP_DTYPE.names or ()})
        return edges.sorted()

    @classmethod
    def from_parquet(cls, paths: Iterable[Path], n_fragments: int) -> Edges:
        """Edges from overlap tables, one row group of one open file at a time, sorted.

        Raises
        ------
        VolsamError
            If a table lacks a column or names a fragment that does not exist.
        """
        paths = list(paths)
        # A process may open some thousand files at most, and there is one of each block.
        edges = cls.empty(sum(pq.read_metadata(path).num_rows for path in paths), n_fragments)
        names: Sequence[str] = OVERLAP_DTYPE.names or ()
        start = 0
        for path in paths:
            with pq.ParquetFile(path) as file:
                if missing := set(names) - set(file.schema_arrow.names):
                    raise VolsamError(
                        f"An overlap table lacks columns {sorted(missing)}; rerun the segment stage."
                    )
                for batch in file.iter_batches(columns=list(names)):
                    stop = start + batch.num_rows
                    edges._fill(slice(start, stop), {n: batch.column(n).to_numpy() for n in names})
                    start = stop
        if len(edges) and int(edges.v.max()) >= n_fragments:
            raise VolsamError(
                f"An overlap table names fragment {int(edges.v.max())} but there are only "
                f"{n_fragments}; the tables are of different runs, so rerun the segment stage."
            )
        return edges.sorted()

    def sorted(self) -> Edges:
        """By (u, v, kind): one canonical order, whatever the files were."""
        return self.take(np.lexsort((self.kind, self.v, self.u)))

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Edges:
        """Some of the edges, by index or mask."""
        return Edges(
            self.u[rows],
            self.v[rows],
            self.kind[rows],
            self.iou[rows],
            self.containment[rows],
            self.seen[rows],
        )

    def _fill(self, rows: slice, columns: dict[str, NDArray[Any]]) -> None:
        self.u[rows], self.v[rows] = columns["u"], columns["v"]
        self.kind[rows] = columns["kind"]
        overlap = columns["overlap"].astype(np.float32)
        size_u, size_v = columns["size_u"], columns["size_v"]
        self.seen[rows] = size_u + size_v
        self.iou[rows] = overlap / (size_u.astype(np.float32) + size_v - overlap)
        self.containment[rows] = overlap / np.minimum(size_u, size_v)
