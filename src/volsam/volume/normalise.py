"""Intensities to 0…1: one decision per volume or per slice, never per tile.

Invariants
----------
- The limits depend on the volume, the method and the seed only, never on blocks or tiles, so
  neighbouring tiles agree on what is bright.
- Memory is bounded by the sample, not by the volume.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np

from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.volume.checks import check_finite
from volsam.volume.info import VolumeInfo

Method = Literal["percentile", "minmax", "range", "none"]
Scope = Literal["volume", "slice"]

SAMPLE_VOXELS = 1 << 24
_SAMPLE_CHUNKS = 1024
_READ_VOXELS = 1 << 22


class Readable(Protocol):
    """What `estimate` needs of a volume."""

    info: VolumeInfo

    def read(self, box: Box) -> np.ndarray: ...


@dataclass(frozen=True)
class Normalisation:
    """Limits that map to 0 and 1, one pair for the volume or one for each slice.

    Parameters
    ----------
    method, scope : str
    low, high : tuple of float
        Intensities; one entry, or one per slice.
    otsu : float or None
        Otsu's threshold of the sampled intensities of the whole volume; None for a constant image.
    """

    method: str
    scope: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    otsu: float | None = None

    def apply(self, block: np.ndarray, z: int = 0) -> np.ndarray:
        """Intensities clipped to 0…1.

        Parameters
        ----------
        block : ndarray, (z, y, x) or (y, x)
        z : int
            Slice of the volume that the block starts at.

        Returns
        -------
        ndarray of float32
            0 where the limits are equal (constant image).
        """
        out = block.astype(np.float32)
        if self.method == "none":
            return out
        count = block.shape[0] if block.ndim == 3 else 1
        index = slice(z, z + count) if len(self.low) > 1 else slice(0, 1)
        low = np.asarray(self.low[index], np.float64)
        span = np.asarray(self.high[index], np.float64) - low
        gain = np.divide(1.0, span, out=np.zeros_like(span), where=span > 0)
        if block.dtype.itemsize > 2 and block.dtype != np.float32:
            # float32 cannot tell large integers apart: subtract before converting.
            out = (block - _per_slice(low, block.ndim)).astype(np.float32)
        else:
            out -= _per_slice(low, block.ndim).astype(np.float32)
        out *= _per_slice(gain, block.ndim).astype(np.float32)
        return np.clip(out, 0, 1, out=out)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Normalisation:
        """Inverse of `to_json`."""
        return cls(**{**data, "low": tuple(data["low"]), "high": tuple(data["high"])})


def estimate(
    volume: Readable,
    method: Method = "percentile",
    lower: float = 1.0,
    upper: float = 99.8,
    scope: Scope = "volume",
    seed: int = 0,
    limit: int = SAMPLE_VOXELS,
) -> Normalisation:
    """Find the limits from a deterministic sample of the volume.

    A volume of at most `limit` voxels is used whole. A larger one is sampled on a regular lattice
    within up to 1024 chunks spread evenly over it.

    Parameters
    ----------
    volume : Volume
    method : {"percentile", "minmax", "range", "none"}
    lower, upper : float
        Percentiles (0…100), or the intensities themselves for ``range``.
    scope : {"volume", "slice"}
    seed : int
        Phase of the sample.
    limit : int
        Most voxels to keep in memory.

    Raises
    ------
    VolsamError
        If the sample holds NaN or infinite values, or the limits are in the wrong order.
    """
    if method not in ("percentile", "minmax", "range", "none"):
        raise VolsamError(f"There is no normalisation {method!r}; use percentile, minmax or range.")
    if method in ("range", "percentile") and lower >= upper:
        raise VolsamError(f"Normalisation needs lower below upper, not {lower} and {upper}.")
    groups: dict[int, list[np.ndarray]] = {}
    for z, values in _sample(volume, per_slice=scope == "slice", seed=seed, limit=limit):
        groups.setdefault(z, []).append(values)
    low, high = [], []
    pooled = []
    for z in sorted(groups):
        values = np.concatenate(groups.pop(z))
        a, b = _limits(values, method, lower, upper)
        low.append(a)
        high.append(b)
        pooled.append(values)
    threshold = otsu(pooled[0] if len(pooled) == 1 else np.concatenate(pooled))
    return Normalisation(method, scope, tuple(low), tuple(high), threshold)


def otsu(values: np.ndarray) -> float | None:
    """Otsu's threshold on a histogram of 256 bins between the 0.1 and 99.9 percentiles.

    Voxels above it are foreground. None where all values are equal. Otsu, "A threshold selection
    method from gray-level histograms", IEEE Trans. SMC 9(1), 1979.
    """
    from skimage.filters import threshold_otsu

    low, high = (float(v) for v in np.percentile(values, [0.1, 99.9]))
    if low >= high:
        low, high = float(values.min()), float(values.max())
    if low >= high:
        return None
    clipped = np.clip(values.astype(np.float64), low, high)
    counts, edges = np.histogram(clipped, bins=256, range=(low, high))
    return float(threshold_otsu(hist=(counts, (edges[1:] + edges[:-1]) / 2)))


def _limits(values: np.ndarray, method: str, lower: float, upper: float) -> tuple[float, float]:
    if method == "range":
        return float(lower), float(upper)
    if method == "none":
        return 0.0, 1.0
    if method == "minmax":
        return float(values.min()), float(values.max())
    a, b = np.percentile(values, [lower, upper])
    return float(a), float(b)


def _per_slice(values: np.ndarray, ndim: int) -> np.ndarray:
    return values.reshape(-1, 1, 1) if ndim == 3 else values.reshape(())


def _sample(
    volume: Readable, *, per_slice: bool, seed: int, limit: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (slice or 0, flat values) from boxes spread evenly over the volume."""
    shape = volume.info.shape
    size = _read_size(volume.info)
    whole = math.prod(shape) <= limit
    grid = [math.ceil(n / s) for n, s in zip(shape, size, strict=True)]
    planes = grid[1] * grid[2]
    if per_slice:
        # Every layer of chunks must be read; within it, evenly many columns.
        columns = planes if whole else min(planes, max(4, _SAMPLE_CHUNKS // grid[0]))
        chosen = {
            layer * planes + c for layer in range(grid[0]) for c in _spread(planes, columns, seed)
        }
    else:
        total = grid[0] * planes
        chosen = set(_spread(total, total if whole else min(total, _SAMPLE_CHUNKS), seed))
    boxes = [_nth(i, grid, size, shape) for i in sorted(chosen)]
    voxels = sum(box.size for box in boxes)
    # A lattice in the plane; all slices of a box are kept.
    step = max(1, math.ceil(math.sqrt(voxels / limit)))
    for box in boxes:
        block = volume.read(box)
        check_finite(block, box.start, volume.info.path)
        phase = seed % step
        rows = slice(min(phase, block.shape[1] - 1), None, step)
        columns_ = slice(min(phase, block.shape[2] - 1), None, step)
        block = block[:, rows, columns_]
        if per_slice:
            for i, plane in enumerate(block):
                yield box.start[0] + i, plane.ravel()
        else:
            yield 0, block.ravel()


def _nth(number: int, grid: Sequence[int], size: Sequence[int], shape: Sequence[int]) -> Box:
    """Box of a row-major number in a grid, of which the millions that are not chosen are not made."""
    index = [int(i) for i in np.unravel_index(number, tuple(grid))]
    start = tuple(i * n for i, n in zip(index, size, strict=True))
    return Box(start, tuple(min(a + n, m) for a, n, m in zip(start, size, shape, strict=True)))


def _read_size(info: VolumeInfo) -> tuple[int, int, int]:
    """Box to read at a time: the stored chunk, made neither tiny nor huge."""
    z, y, x = (min(c, n) for c, n in zip(info.chunks, info.shape, strict=True))
    while z * y * x > _READ_VOXELS and z > 1:
        z = math.ceil(z / 2)
    if z * y * x > _READ_VOXELS:
        y = max(256, _READ_VOXELS // x // 256 * 256)
    y = min(info.shape[1], y * max(1, 256 // y))
    x = min(info.shape[2], x * max(1, 256 // x))
    return z, y, x


def _spread(total: int, count: int, seed: int) -> list[int]:
    """`count` of `total` numbers, one drawn at random from each of equally long runs."""
    if count >= total:
        return list(range(total))
    edges = np.linspace(0, total, count + 1)
    draws = np.random.default_rng(seed).random(count)
    return [int(a + (b - a) * u) for a, b, u in zip(edges[:-1], edges[1:], draws, strict=True)]
