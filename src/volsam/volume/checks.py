"""Faults of an image that only its voxels or its folder show, and of labels that do not fit it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from volsam.errors import VolsamError
from volsam.volume.source import Volume, open_volume


def missing_chunks(volume: Volume) -> int:
    """Chunks of a Zarr array on disk that are absent and therefore read as the fill value.

    Zarr leaves out empty chunks, so a number above 0 is no fault by itself. It counts shards where
    there are any, over all channels and time points, and is 0 for other formats. Lists the array's
    folder once.
    """
    if not volume.info.format.startswith(("ome-zarr", "zarr")):
        return 0
    import zarr

    array = volume.array
    assert isinstance(array, zarr.Array)
    stored = array.shards or array.chunks
    total = math.prod(math.ceil(n / s) for n, s in zip(array.shape, stored, strict=True))
    per_shard = math.prod(s // c for s, c in zip(stored, array.chunks, strict=True))
    return total - array.nchunks_initialized // per_shard


def check_finite(block: np.ndarray, start: Sequence[int] = (0, 0, 0), path: str = "image") -> None:
    """Refuse NaN and infinite values, saying where the first one is.

    Parameters
    ----------
    block : ndarray, (z, y, x)
    start : (z, y, x)
        Position of the block in the volume.
    path : str
        For the message.
    """
    if block.dtype.kind != "f":
        return
    finite = np.isfinite(block)
    if finite.all():
        return
    first = np.unravel_index(int(np.argmin(finite)), block.shape)
    z, y, x = (int(s + i) for s, i in zip(start, first, strict=True))
    raise VolsamError(
        f"{path} holds {block[first]} at z {z}, y {y}, x {x}; replace such values by numbers first."
    )


def open_fitting(
    role: str, arguments: dict[str, Any], shape: tuple[int, ...], *, numbered: bool = True
) -> Volume:
    """Open what is to fit an image, voxel by voxel.

    Parameters
    ----------
    role : str
        What it is, for the message: ``truth``.
    arguments : dict
        From `volsam.volume.source.labels_arguments`.
    shape : (slices of all frames, y, x)
        Of the image.
    numbered : bool
        Its voxels are object numbers.

    Raises
    ------
    VolsamError
        If it has another shape, or holds fractions instead of numbers.
    """
    volume = open_volume(**arguments)
    name = f"The {role} {arguments['path']}"
    if volume.info.shape != shape:
        frames = ", with all its frames" if "timepoint" in arguments else ""
        raise VolsamError(
            f"{name} has shape {volume.info.shape} and the image {shape}; give one of the image's "
            f"shape{frames}."
        )
    if numbered and volume.info.dtype.startswith("float"):
        raise VolsamError(
            f"{name} holds {volume.info.dtype}; give object numbers, which are whole."
        )
    return volume
