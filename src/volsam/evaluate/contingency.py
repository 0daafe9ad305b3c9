"""Sparse contingency tables: how often each pair of ids meets in two label arrays.

Invariants
----------
- Rows are sorted by (label, truth) and unique, counts are positive, id 0 is background and kept.
- A table of a volume is the sum of the tables of its blocks, in any order: nothing here needs the
  volume at once.
- Ids are uint64 throughout, so ids beyond 2**32 are safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from volsam.errors import VolsamError
from volsam.geometry import Box, split

_PENDING = 32  # block tables kept, at least, before they are summed: saves repeated sorting


class ArrayLike(Protocol):
    """What is asked of a volume: numpy, zarr and h5py arrays all qualify."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent per axis."""
        ...

    def __getitem__(self, index: Any) -> Any:
        """Read a box."""
        ...


@dataclass(frozen=True, eq=False)
class Contingency:
    """Counts of (label, truth) pairs.

    Attributes
    ----------
    label, truth : uint64 (n,)
        Ids of the pair; 0 is background.
    count : int64 (n,)
        Voxels in which they meet.
    """

    label: NDArray[np.uint64]
    truth: NDArray[np.uint64]
    count: NDArray[np.int64]

    @classmethod
    def empty(cls) -> Contingency:
        """Table of no voxel, the zero of the sum."""
        return cls(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64))

    @classmethod
    def of(
        cls, labels: NDArray[Any], truth: NDArray[Any], mask: NDArray[Any] | None = None
    ) -> Contingency:
        """Count the pairs of two arrays.

        Parameters
        ----------
        labels, truth : integer or bool array, any number of axes, same shape
            Object ids, 0 = background.
        mask : bool array of that shape, optional
            Voxels that count; the others are left out altogether.

        Raises
        ------
        VolsamError
            Different shapes, or ids that are not whole numbers of at least 0.
        """
        if labels.shape != truth.shape or (mask is not None and mask.shape != truth.shape):
            raise VolsamError(
                f"labels of shape {labels.shape} cannot be compared with truth of shape "
                f"{truth.shape}: crop or resample one of them to the other's grid."
            )
        a, b = _flat_ids(labels, "labels"), _flat_ids(truth, "truth")
        if mask is not None:
            keep = np.asarray(mask, dtype=bool).ravel()
            a, b = a[keep], b[keep]
        if a.size == 0:
            return cls.empty()
        # Labels come in runs: sorting runs instead of voxels is several times faster.
        first = np.flatnonzero(np.concatenate(([True], (a[1:] != a[:-1]) | (b[1:] != b[:-1]))))
        length = np.diff(first, append=a.size)
        return cls._reduced(a[first].astype(np.uint64), b[first].astype(np.uint64), length)

    @classmethod
    def sum(cls, tables: Iterable[Contingency]) -> Contingency:
        """Add tables, for example those of the blocks of a volume."""
        pending: list[Contingency] = []
        rows = joined = 0
        for table in tables:
            pending.append(table)
            rows += table.count.size
            # What is joined already is sorted again only with as much that is new: else each block would
            # cost as much as all before it.
            if len(pending) >= _PENDING and rows >= 2 * joined:
                pending = [cls._concatenated(pending)]
                rows = joined = pending[0].count.size
        return cls._concatenated(pending) if pending else cls.empty()

    @classmethod
    def blockwise(
        cls,
        labels: ArrayLike,
        truth: ArrayLike,
        block: Sequence[int],
        region: Box | None = None,
        mask: ArrayLike | None = None,
    ) -> Contingency:
        """Count the pairs of two volumes, reading one block at a time.

        Parameters
        ----------
        labels, truth : array-like, same shape
            Object ids; anything that is sliced like a zarr array.
        block : sequence of int
            Block shape in voxels; no effect on the result.
        region : Box, optional
            Part of the volume that counts (clipped to the volume); objects are cut at its border.
        mask : array-like, optional
            Voxels that count, as in `of`.
        """
        if tuple(labels.shape) != tuple(truth.shape):
            raise VolsamError(
                f"labels of shape {tuple(labels.shape)} cannot be compared with truth of shape "
                f"{tuple(truth.shape)}: crop or resample one of them to the other's grid."
            )
        whole = Box.of(truth.shape)
        box = whole if region is None else whole.intersect(region)
        return cls.sum(
            cls.of(
                np.asarray(labels[part.slices]),
                np.asarray(truth[part.slices]),
                None if mask is None else np.asarray(mask[part.slices]),
            )
            for _, part in split(box, block)
        )

    def __add__(self, other: Contingency) -> Contingency:
        return self._concatenated([self, other])

    @property
    def transposed(self) -> Contingency:
        """The same table with labels and truth exchanged."""
        return self._reduced(self.truth, self.label, self.count)

    def label_sizes(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Ids of the labels, ascending and with background if present, and their voxel counts."""
        return _sizes(self.label, self.count)

    def truth_sizes(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Ids of the truth, ascending and with background if present, and their voxel counts."""
        return _sizes(self.truth, self.count)

    @classmethod
    def _concatenated(cls, tables: Sequence[Contingency]) -> Contingency:
        return cls._reduced(
            np.concatenate([t.label for t in tables]),
            np.concatenate([t.truth for t in tables]),
            np.concatenate([t.count for t in tables]),
        )

    @classmethod
    def _reduced(
        cls, label: NDArray[np.uint64], truth: NDArray[np.uint64], count: NDArray[np.int64]
    ) -> Contingency:
        if label.size == 0:
            return cls.empty()
        order = np.lexsort((truth, label))
        label, truth, count = label[order], truth[order], count[order].astype(np.int64)
        new = np.concatenate(([True], (label[1:] != label[:-1]) | (truth[1:] != truth[:-1])))
        first = np.flatnonzero(new)
        return cls(label[first], truth[first], np.add.reduceat(count, first))


def same_partition(a: NDArray[Any] | Contingency, b: NDArray[Any] | None = None) -> bool:
    """Whether two label arrays describe the same objects under different ids.

    Parameters
    ----------
    a : integer array, or a Contingency of both (then without `b`)
    b : integer array of the same shape

    Returns
    -------
    bool
        True if the ids correspond one to one and background (0) is background in both.
    """
    if isinstance(a, Contingency):
        table = a
    else:
        if b is None:
            raise TypeError("two label arrays, or one Contingency, are needed")
        table = Contingency.of(a, b)
    # (0, 0) is the only pair that may contain a 0.
    background_agrees = bool(((table.label == 0) == (table.truth == 0)).all())
    one_to_one = np.unique(table.label).size == np.unique(table.truth).size == table.label.size
    return background_agrees and one_to_one


def _flat_ids(array: NDArray[Any], name: str) -> NDArray[Any]:
    flat = np.asarray(array).ravel()
    if flat.dtype.kind not in "bui":
        raise VolsamError(
            f"the {name} hold {flat.dtype} values, not object ids: give an integer label image."
        )
    if flat.dtype.kind == "i" and flat.size and int(flat.min()) < 0:
        raise VolsamError(
            f"the {name} hold the negative id {int(flat.min())}: use 0 for background and "
            "positive ids for objects."
        )
    return flat


def _sizes(
    ids: NDArray[np.uint64], count: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    unique, inverse = np.unique(ids, return_inverse=True)
    sizes = np.zeros(unique.size, np.int64)
    np.add.at(sizes, inverse, count)
    return unique, sizes
