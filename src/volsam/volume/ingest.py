"""Copy an image into an OME-Zarr of our own, block by block: the pure pieces of the ingest stage.

Invariants
----------
- A block is a whole number of shards and holds all channels; blocks partition the volume.
- Values that are no finite numbers stop the ingest with their position.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np

from volsam.geometry import Box
from volsam.volume.checks import check_finite
from volsam.volume.frames import split_frames, stack_unit, stored_axes
from volsam.volume.info import ZYX, VolumeInfo
from volsam.volume.layout import Layout, choose_layout, clip_layout, create_array, open_image_level
from volsam.volume.metadata import image_attributes
from volsam.volume.pyramid import level_shape
from volsam.volume.source import Volume
from volsam.volume.store import ZARR_FORMAT, check_own, discard, mark, writing

_BLOCK_BYTES = 1 << 28


def image_layout(info: VolumeInfo, version: str) -> Layout:
    """Chunks and shards of the copy of an image.

    What a file stores together (a compressed plane) is decoded as a whole for each block that needs a
    part of it, so where it is large, shards have fewer slices: one block that covers it then has 256 MiB
    at most, if it can. Chunks that are files of their own stay as they are, or there would be many more.
    """
    unit = stack_unit(info.shape, info.frames)
    layout = choose_layout(unit, info.dtype, version)
    if info.sliced or layout.shards is None:
        return layout
    while layout.unit[0] > 1 and _covering(info, layout) > _BLOCK_BYTES:
        most = 1 << (layout.unit[0] - 1).bit_length() - 1  # the power of two below
        layout = choose_layout(unit, info.dtype, version, most)
    return layout


def _covering(info: VolumeInfo, layout: Layout) -> int:
    """Bytes of the smallest block that covers in the plane what the file stores together."""
    size = layout.unit[0] * info.channels * np.dtype(info.dtype).itemsize
    for together, unit, extent in zip(
        info.chunks[1:], layout.unit[1:], info.shape[1:], strict=True
    ):
        size *= min(ceil(max(together, 1) / unit) * unit, extent)
    return size


def plan_ingest(info: VolumeInfo, layout: Layout) -> Iterator[tuple[tuple[int, ...], Box]]:
    """Blocks of level 0, (grid index, zyx box), each a whole number of shards.

    A block grows in the plane towards what the file stores together, as long as it stays below
    256 MiB.
    """
    itemsize = np.dtype(info.dtype).itemsize * info.channels
    block = list(layout.unit)
    for axis in (2, 1):
        wanted = min(info.chunks[axis], info.shape[axis])
        while block[axis] < wanted:
            grown = [*block[:axis], block[axis] + layout.unit[axis], *block[axis + 1 :]]
            if (
                prod(min(n, m) for n, m in zip(grown, info.shape, strict=True)) * itemsize
                > _BLOCK_BYTES
            ):
                break
            block = grown
    return split_frames(info.shape, info.depth, block)


def copy_size(info: VolumeInfo, layout: Layout, factors: Sequence[ZYX]) -> tuple[int, int]:
    """Bytes of an image and its coarser levels before compression, and the files they lie in."""
    size = files = 0
    for factor in [(1, 1, 1), *factors]:
        shape = level_shape(info.shape, factor)
        unit = clip_layout(stack_unit(shape, info.frames), layout.chunks, layout.shards).unit
        depth = shape[0] // (info.frames or 1)
        stacks = info.channels if depth == 1 else info.channels * (info.frames or 1)
        extent = (shape[0] if depth == 1 else depth, *shape[1:])
        size += prod(shape) * info.channels * np.dtype(info.dtype).itemsize
        files += stacks * prod(ceil(n / m) for n, m in zip(extent, unit, strict=True))
    return size, files


def create_image(
    store: str | Path,
    info: VolumeInfo,
    layout: Layout,
    factors: Sequence[ZYX],
    version: str = "0.5",
    name: str | None = None,
    provenance: dict[str, Any] | None = None,
) -> None:
    """Create the metadata and the empty levels of an image.

    Parameters
    ----------
    store : path
        Folder ``<name>.ome.zarr``; one of ours is replaced, labels included.
    info : VolumeInfo
        Of the input: shape, channels, voxel size.
    layout : Layout
        Chunks and shards of level 0.
    factors : sequence of (z, y, x)
        Downsampling of levels 1, 2, … relative to level 0.
    version : {"0.4", "0.5"}
    name : str, optional
        Name of the image; by default that of the store.
    provenance : dict, optional
        Kept in the attribute ``volsam``.

    Raises
    ------
    VolsamError
        If something lies there that we did not make, or it cannot be written.
    """
    import zarr

    axes, _ = stored_axes(info.shape, info.frames, info.channels)
    folder = Path(store)
    check_own(folder)
    attributes = image_attributes(
        version,
        name or folder.name.removesuffix(".zarr").removesuffix(".ome"),
        axes,
        factors,
        info.voxel_size,
        info.unit,
        info.translation,
        info.time,
        channel_names=info.channel_names,
        dtype=info.dtype,
    )
    with writing(folder):
        discard(folder)
        group = zarr.create_group(
            folder, zarr_format=ZARR_FORMAT[version], attributes={**attributes, **mark(provenance)}
        )
        for level, factor in enumerate([(1, 1, 1), *factors]):
            small = level_shape(info.shape, factor)
            own = clip_layout(stack_unit(small, info.frames), layout.chunks, layout.shards)
            _, stored = stored_axes(small, info.frames, info.channels)
            create_array(group, str(level), stored, info.dtype, own, axes, labels=False)


def write_image_block(store: str | Path, volume: Volume, box: Box) -> int:
    """Copy one block of `plan_ingest` to level 0; returns the number of bytes before compression.

    Raises
    ------
    VolsamError
        If the input is damaged there or holds NaN or infinite values.
    """
    array = open_image_level(store, 0)
    size = box.size * np.dtype(volume.info.dtype).itemsize
    # Colours, which a file stores together, are read at once, and dozens of stains a few at a time.
    step = max(1, _BLOCK_BYTES // size)
    for first in range(0, volume.info.channels, step):
        channels = slice(first, min(first + step, volume.info.channels))
        block = volume.read_channels(box, channels)
        for channel in block:
            check_finite(channel, box.start, volume.info.path)
        with writing(store):
            if array.ndim == 3:
                array[box.slices] = block[0]
            else:
                array[(channels, *box.slices)] = block
    return size * volume.info.channels
