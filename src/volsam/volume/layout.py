"""How arrays lie on disk: chunks, shards, codecs, and the types of label ids.

Invariants
----------
- A shard is a whole number of chunks and is the unit of writing; OME-Zarr 0.4 has no shards, its
  unit is the chunk.
- Codecs are chosen by measurement: plain Zstandard for labels (byte shuffling makes them larger),
  Blosc with shuffling for images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from volsam.errors import VolsamError
from volsam.volume.frames import FrameSlices
from volsam.volume.info import ZYX

if TYPE_CHECKING:
    import zarr

_CHUNK_BYTES = 1 << 20
_SHARD_BYTES = 1 << 26
_CHUNK_EDGE = 256
_SHARD_EDGE = 1024
_LARGEST_EDGE = 4096


@dataclass(frozen=True)
class Layout:
    """Chunks and shards of a volume, zyx; `shards` is None where there are none."""

    chunks: ZYX
    shards: ZYX | None

    @property
    def unit(self) -> ZYX:
        """What one process must write as a whole."""
        return self.shards or self.chunks


def choose_layout(
    shape: Sequence[int], dtype: Any, version: str = "0.5", most: int | None = None
) -> Layout:
    """Chunks of about 1 MiB and shards of about 64 MiB, before compression.

    A chunk is 256² in the plane (512² for a 2D image), a shard 1024² (4096²), each with as many
    slices as fit, or `most`; with fewer slices a shard is larger in the plane, up to 4096².
    """
    itemsize = np.dtype(dtype).itemsize
    grow = 2 if shape[0] == 1 else 1
    edge = _CHUNK_EDGE * grow
    slices = _power_of_two(_CHUNK_BYTES / (edge**2 * itemsize))
    slices = min(slices, most or slices)
    chunks = (slices, edge, edge)
    edge = _SHARD_EDGE * grow**2
    if most:
        while edge < _LARGEST_EDGE and 4 * most * edge**2 * itemsize <= _SHARD_BYTES:
            edge *= 2
    fitting = _power_of_two(_SHARD_BYTES / (edge**2 * itemsize))
    slices = max(slices, min(fitting, most or fitting))
    return clip_layout(shape, chunks, (slices, edge, edge) if version != "0.4" else None)


def clip_layout(
    shape: Sequence[int], chunks: Sequence[int], shards: Sequence[int] | None
) -> Layout:
    """Shrink chunks and shards to a volume, keeping shards whole numbers of chunks.

    Raises
    ------
    VolsamError
        If a shard is no whole number of chunks.
    """
    if shards is not None and any(s % c or s < c for s, c in zip(shards, chunks, strict=True)):
        raise VolsamError(
            f"Shard {tuple(shards)} must be a whole number of chunks {tuple(chunks)} on every axis."
        )
    z, y, x = (max(1, min(c, n)) for c, n in zip(chunks, shape, strict=True))
    small = (z, y, x)
    if shards is None:
        return Layout(small, None)
    z, y, x = (
        m * max(1, min(s // c, math.ceil(n / m)))
        for s, c, m, n in zip(shards, chunks, small, shape, strict=True)
    )
    return Layout(small, (z, y, x))


def smallest_label_dtype(n_max: int, requested: str | None = None) -> np.dtype:
    """Smallest of uint32 and uint64 that holds ids up to `n_max`, or the requested type.

    Raises
    ------
    VolsamError
        If the requested type is too small or no unsigned integer.
    """
    if requested in (None, "auto"):
        return np.dtype(np.uint32 if n_max <= np.iinfo(np.uint32).max else np.uint64)
    dtype = np.dtype(requested)
    if dtype.kind != "u":
        raise VolsamError(f"Labels cannot be {dtype}; use uint8, uint16, uint32 or uint64.")
    if n_max > np.iinfo(dtype).max:
        raise VolsamError(
            f"{n_max} objects do not fit into {dtype} labels (at most {np.iinfo(dtype).max}); "
            f"use {smallest_label_dtype(n_max)} or auto."
        )
    return dtype


def create_array(
    group: zarr.Group,
    name: str,
    shape: Sequence[int],
    dtype: Any,
    layout: Layout,
    axes: str,
    labels: bool,
) -> zarr.Array:
    """Create an empty array of an OME-Zarr level.

    Along t and c chunks have a length of one, but along t in a sequence of planes, whose frames are the
    slices that the layout speaks of.
    """
    from numcodecs import Blosc, Zstd
    from zarr.codecs import BloscCodec, BloscShuffle, ZstdCodec

    flat = dict(zip(axes, shape, strict=True)).get("z", 1) == 1
    slices = "t" if flat and "t" in axes else "z"

    def along(unit: ZYX) -> tuple[int, ...]:
        lengths = dict(zip((slices, "y", "x"), unit, strict=True))
        return tuple(lengths.get(a, 1) for a in axes)

    v2 = group.metadata.zarr_format == 2
    compressor: Any
    if labels:
        compressor = Zstd(level=0) if v2 else ZstdCodec(level=0)
    elif v2:
        compressor = Blosc(cname="zstd", clevel=1, shuffle=Blosc.SHUFFLE)
    else:
        compressor = BloscCodec(cname="zstd", clevel=1, shuffle=BloscShuffle.shuffle)
    return group.create_array(
        name,
        shape=tuple(shape),
        dtype=np.dtype(dtype).newbyteorder("="),
        chunks=along(layout.chunks),
        shards=None if v2 or layout.shards is None else along(layout.shards),
        compressors=compressor,
        fill_value=0,
        chunk_key_encoding={
            "name": "v2" if v2 else "default",
            "separator": "/",
        },
        dimension_names=None if v2 else list(axes),
    )


def open_image_level(image: str | Path, level: int, mode: Any = "r+") -> zarr.Array | FrameSlices:
    """Open the array of a level of an image or label image that this package wrote.

    Returns
    -------
    zarr.Array or FrameSlices
        Its last three axes are zyx, of a sequence with the slices of all frames.
    """
    import zarr

    array = zarr.open_array(Path(image) / str(level), mode=mode)
    letters = _letters(Path(image), array)
    return FrameSlices(array, letters) if "t" in letters else array


def _letters(image: Path, array: zarr.Array) -> str:
    """Axes of an array of ours: Zarr 3 names them, for Zarr 2 the image's metadata do."""
    import zarr

    if array.metadata.zarr_format == 3:
        return "".join(str(name) for name in array.metadata.dimension_names or ())
    attributes: Any = zarr.open_group(image, mode="r").attrs.asdict()
    return "".join(axis["name"] for axis in attributes["multiscales"][0]["axes"])


def _power_of_two(value: float) -> int:
    return 1 << max(0, math.floor(math.log2(max(1.0, value))))
