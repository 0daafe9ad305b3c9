"""Boxes and the tile grid: the only place where coordinates are computed.

Invariants
----------
- Coordinates are voxel indices of the volume, ordered zyx (yx within a slice); boxes are half-open.
- The *inner* boxes of a tile grid partition the plane; they depend on the plane's shape and the tile
  size only, never on blocks or workers.
- Every *outer* box (inner plus halo) has the same size. It may reach beyond the plane, where readers
  fill it: a tile at the border is neither stretched nor shifted, so all tiles share one scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, prod


@dataclass(frozen=True, order=True)
class Box:
    """A half-open box of voxels, ``start <= index < stop`` on every axis."""

    start: tuple[int, ...]
    stop: tuple[int, ...]

    @classmethod
    def of(cls, shape: Sequence[int]) -> Box:
        """Box of an array's whole extent."""
        return cls((0,) * len(shape), tuple(int(n) for n in shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent per axis, 0 where the box is empty."""
        return tuple(max(0, b - a) for a, b in zip(self.start, self.stop, strict=True))

    @property
    def size(self) -> int:
        """Number of voxels."""
        return prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Index for a numpy or zarr array."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def intersect(self, other: Box) -> Box:
        """Common part; empty (``size == 0``) where the boxes do not meet."""
        start = tuple(max(a, b) for a, b in zip(self.start, other.start, strict=True))
        stop = tuple(min(a, b) for a, b in zip(self.stop, other.stop, strict=True))
        return Box(start, tuple(max(a, b) for a, b in zip(start, stop, strict=True)))

    def grow(self, margin: Sequence[int], within: Box | None = None) -> Box:
        """Enlarge by `margin` voxels on both sides of each axis, clipped to `within` if given."""
        start = tuple(a - m for a, m in zip(self.start, margin, strict=True))
        stop = tuple(b + m for b, m in zip(self.stop, margin, strict=True))
        grown = Box(start, stop)
        return grown if within is None else grown.intersect(within)

    def shift(self, by: Sequence[int]) -> Box:
        """Move by an offset per axis."""
        return Box(
            tuple(a + d for a, d in zip(self.start, by, strict=True)),
            tuple(b + d for b, d in zip(self.stop, by, strict=True)),
        )

    def relative_to(self, other: Box) -> Box:
        """The same box in coordinates that start at ``other.start``."""
        return self.shift(tuple(-a for a in other.start))


def split(box: Box, size: Sequence[int]) -> Iterator[tuple[tuple[int, ...], Box]]:
    """Cut `box` into a row-major grid of boxes of at most `size`; yields (grid index, box)."""
    counts = [ceil(n / s) for n, s in zip(box.shape, size, strict=True)]
    for index in product(*(range(n) for n in counts)):
        start = tuple(a + i * s for a, i, s in zip(box.start, index, size, strict=True))
        stop = tuple(min(a + s, b) for a, s, b in zip(start, size, box.stop, strict=True))
        yield index, Box(start, stop)


def window_span(start: float, stop: float, length: int, side: int) -> tuple[int, int]:
    """Window along one axis in which a network of input `side` sees what lies at start..stop.

    Windows overlap by half, the last one ends with the axis. Of those that hold it whole it is the one in
    which it lies most central; where none does, one of its own.

    Parameters
    ----------
    start, stop : float
        At most `side` apart.
    length : int
        Of the axis; where it is no longer than `side` it is the window.
    side : int
    """
    if length <= side:
        return 0, length
    last, middle = length - side, (start + stop - side) / 2
    starts = [*range(0, last, max(1, side // 2)), last]
    first = min(
        (n for n in starts if n <= start and stop <= n + side),
        key=lambda n: abs(n - middle),
        default=min(last, max(0, int(middle))),
    )
    return first, first + side


@dataclass(frozen=True)
class TileGrid:
    """Tiles of one slice, row-major.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the plane.
    tile : int
        Edge of the square inner tile.
    halo : int
        Context added on each side.
    """

    shape: tuple[int, int]
    tile: int
    halo: int

    @property
    def counts(self) -> tuple[int, int]:
        """Tile rows and tile columns."""
        return ceil(self.shape[0] / self.tile), ceil(self.shape[1] / self.tile)

    @property
    def outer_size(self) -> int:
        """Edge of every outer box."""
        return self.tile + 2 * self.halo

    def __len__(self) -> int:
        return self.counts[0] * self.counts[1]

    def index(self, row: int, column: int) -> int:
        """Row-major number of a tile."""
        return row * self.counts[1] + column

    def position(self, tile: int) -> tuple[int, int]:
        """Row and column of a tile number."""
        return divmod(tile, self.counts[1])

    def inner(self, tile: int) -> Box:
        """The part of the plane that this tile owns."""
        row, column = self.position(tile)
        start = (row * self.tile, column * self.tile)
        stop = tuple(min(a + self.tile, n) for a, n in zip(start, self.shape, strict=True))
        return Box(start, stop)

    def outer(self, tile: int) -> Box:
        """What the network sees: always `outer_size` square, possibly reaching beyond the plane."""
        row, column = self.position(tile)
        start = (row * self.tile - self.halo, column * self.tile - self.halo)
        return Box(start, (start[0] + self.outer_size, start[1] + self.outer_size))

    def neighbours(self, tile: int) -> Iterator[int]:
        """Tiles right, below, below-left and below-right: each neighbouring pair once."""
        row, column = self.position(tile)
        for dy, dx in ((0, 1), (1, -1), (1, 0), (1, 1)):
            r, c = row + dy, column + dx
            if r < self.counts[0] and 0 <= c < self.counts[1]:
                yield self.index(r, c)
