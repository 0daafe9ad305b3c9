"""Resolution levels: how many, how they are computed, and which block writes what.

Invariants
----------
- Level k is computed from level k-1, after level k-1 is complete; its blocks are whole shards of
  level k, so each shard has one writer.
- A voxel of a level covers a box of whole voxels of the level before: both images (mean) and
  labels (mode) are centred on that box, so they share one scale and translation.
- Ids of a label level are a subset of those of the level before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from volsam.geometry import Box, split
from volsam.volume.frames import split_frames
from volsam.volume.info import ZYX, Size, VolumeInfo
from volsam.volume.store import writing


def choose_factors(
    shape: Sequence[int],
    voxel_size: Size | None,
    smallest: int = 256,
    levels: int | None = None,
    halve_z: bool = True,
) -> tuple[ZYX, ...]:
    """Downsampling of each level relative to level 0, zyx; level 0 itself is left out.

    y and x halve at every level; z halves where that keeps the voxels more isotropic, that is
    where a slice is less than √2 times as thick as a pixel is wide. Without a voxel size only y
    and x halve.

    Parameters
    ----------
    shape : (z, y, x)
    voxel_size : (z, y, x) or None
    smallest : int
        Levels are added until y and x are at most this.
    levels : int, optional
        Number of levels, level 0 included, instead.
    halve_z : bool
        Not in a sequence, where slices of two frames would become one.
    """
    factors: list[ZYX] = []
    z, y, x = 1, 1, 1
    while True:
        if levels is not None:
            if len(factors) + 1 >= levels:
                break
        elif max(math.ceil(shape[1] / y), math.ceil(shape[2] / x)) <= smallest:
            break
        if math.ceil(shape[1] / y) == math.ceil(shape[2] / x) == 1:
            break
        if halve_z and voxel_size is not None and math.ceil(shape[0] / z) > 1:
            width = math.sqrt(voxel_size[1] * y * voxel_size[2] * x)
            z = 2 * z if voxel_size[0] * z < math.sqrt(2) * width else z
        y = 2 * y if math.ceil(shape[1] / y) > 1 else y
        x = 2 * x if math.ceil(shape[2] / x) > 1 else x
        factors.append((z, y, x))
    return tuple(factors)


def pyramid_factors(info: VolumeInfo, levels: int | None = None) -> tuple[ZYX, ...]:
    """Levels that a result of this volume should have: those of the file, or else our own choice.

    The file's are taken where each is a whole multiple of the one before.
    """
    chain = [(1, 1, 1), *info.factors]
    whole = all(
        b % a == 0 for fine, coarse in pairwise(chain) for a, b in zip(fine, coarse, strict=True)
    )
    if info.factors and whole and levels is None:
        if info.frames is None:
            return info.factors
        # Levels that differ along z only would be alike.
        flat = dict.fromkeys((1, y, x) for _, y, x in info.factors)
        return tuple(factor for factor in flat if factor != (1, 1, 1))
    return choose_factors(info.shape, info.voxel_size, levels=levels, halve_z=info.frames is None)


def level_shape(shape: Sequence[int], factor: Sequence[int]) -> ZYX:
    """Shape of a level; the last voxels may cover less than a whole box."""
    z, y, x = (math.ceil(n / f) for n, f in zip(shape, factor, strict=True))
    return z, y, x


def plan_level(array: Any) -> Iterator[tuple[tuple[int, ...], Box]]:
    """Blocks of an array, (grid index, zyx box): one per shard (per chunk where there are none).

    `array` comes from `layout.open_image_level`: at least three axes, the last three zyx; each block
    is written for all channels by its one writer.
    """
    unit = tuple(array.shards or array.chunks)[-3:]
    shape = array.shape[-3:]
    return split_frames(shape, getattr(array, "depth", shape[0]), unit)


def level_steps(factors: Sequence[ZYX]) -> list[ZYX]:
    """Downsampling of each level relative to the level before it."""
    steps: list[ZYX] = []
    before: ZYX = (1, 1, 1)
    for factor in factors:
        z, y, x = (f // b for f, b in zip(factor, before, strict=True))
        steps.append((z, y, x))
        before = factor
    return steps


def write_level_block(
    source: Any, target: Any, box: Box, step: Sequence[int], labels: bool
) -> None:
    """Compute one block of a level from the level before and write it.

    Parameters
    ----------
    source, target : zarr.Array
        Level k-1 and level k; the last three axes are zyx.
    box : Box
        In voxels of `target`, from `plan_level`.
    step : (z, y, x)
        Downsampling from `source` to `target`, from `level_steps`.
    labels : bool
        Mode instead of mean.
    """
    reduce = downsample_labels if labels else downsample_mean
    for channel in np.ndindex(*source.shape[:-3]):
        block = np.empty(box.shape, target.dtype)
        # By chunks, so that memory is one shard of the target and never one of the source's.
        for _, part in split(box, target.chunks[-3:]):
            start = tuple(a * f for a, f in zip(part.start, step, strict=True))
            stop = tuple(
                min(b * f, n) for b, f, n in zip(part.stop, step, source.shape[-3:], strict=True)
            )
            fine = source[(*channel, *Box(start, stop).slices)]
            block[part.relative_to(box).slices] = reduce(fine, step)
        with writing(target.store_path):
            target[(*channel, *box.slices)] = block


def downsample_mean(block: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Mean over boxes of `factors` voxels; integers are rounded, border boxes may be smaller.

    Parameters
    ----------
    block : ndarray, (z, y, x)
    factors : (int, int, int)

    Returns
    -------
    ndarray, (⌈z/fz⌉, ⌈y/fy⌉, ⌈x/fx⌉), dtype of `block`
    """
    kind = np.float64 if block.dtype.itemsize > 2 else np.float32
    mean = block.astype(kind)
    for axis, factor in enumerate(factors):
        if factor == 1:
            continue
        starts = np.arange(0, mean.shape[axis], factor)
        counts = np.diff(np.append(starts, mean.shape[axis])).astype(kind)
        sums = np.add.reduceat(mean, starts, axis=axis)
        mean = sums / counts.reshape([-1 if i == axis else 1 for i in range(mean.ndim)])
    if block.dtype.kind in "ui":
        limits = np.iinfo(block.dtype)
        # 64-bit limits are not float64 numbers: clip to the nearest one inside.
        top = np.nextafter(float(limits.max), 0) if limits.bits == 64 else limits.max
        mean = np.clip(np.rint(mean), limits.min, top)
    return mean.astype(block.dtype)


def downsample_labels(block: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Most frequent label of each box of `factors` voxels; ties go to the smallest object id.

    Background wins only where it has more voxels than any object, so thin objects last longer.
    Border boxes may be smaller.

    Parameters
    ----------
    block : ndarray of unsigned int, (z, y, x)
    factors : (int, int, int)

    Returns
    -------
    ndarray, (⌈z/fz⌉, ⌈y/fy⌉, ⌈x/fx⌉), dtype of `block`
    """
    shape = tuple(math.ceil(n / f) for n, f in zip(block.shape, factors, strict=True))
    n = math.prod(factors)
    if n == 1 or not block.any():
        return block.copy() if n == 1 else np.zeros(shape, block.dtype)
    # Repeating the edge fills border boxes; along a cut axis each voxel then counts more, equally
    # for a halved axis of which one voxel is left.
    pad = [(0, m * f - s) for s, m, f in zip(block.shape, shape, factors, strict=True)]
    padded = np.pad(block, pad, mode="edge") if any(b for _, b in pad) else block
    views = [
        padded[tuple(slice(o, None, f) for o, f in zip(offset, factors, strict=True))]
        for offset in np.ndindex(*factors)
    ]
    result = views[0].copy()
    mixed = np.zeros(shape, bool)
    for view in views[1:]:
        mixed |= view != result
    # Only boxes at object borders need counting.
    votes = np.stack([view[mixed] for view in views])
    votes.sort(axis=0)
    best = votes[0].copy()
    most = np.zeros(best.shape, np.uint16)
    run = np.zeros(best.shape, np.uint16)
    for i, vote in enumerate(votes):
        run = run + 1 if i == 0 else np.where(vote == votes[i - 1], run + 1, 1).astype(np.uint16)
        better = (run > most) | ((run == most) & (best == 0))
        best[better] = vote[better]
        most[better] = run[better]
    result[mixed] = best
    return result
