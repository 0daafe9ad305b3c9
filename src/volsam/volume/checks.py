"""Faults of an image that only its voxels or its folder show, and of labels that do not fit it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from volsam.errors import VolsamError
from volsam.volume.source import Volume, open_volume


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
