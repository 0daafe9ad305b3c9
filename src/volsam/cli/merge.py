"""`volsam merge-slices`: 2D labels of slices, of whatever origin, into 3D objects."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.stitch.slices import merge_slices
from volsam.volume.labels import create_labels, open_level
from volsam.volume.source import Volume, open_volume


class _Slices:
    """A volume of labels, one slice at a time."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.shape: tuple[int, ...] = volume.info.shape

    def __getitem__(self, z: int, /) -> Any:
        _, rows, columns = self.shape
        labels = self.volume.read(Box((z, 0, 0), (z + 1, rows, columns)))[0]
        return labels.astype(np.dtype(f"u{labels.dtype.itemsize}"), copy=False)


def merge_file(
    labels: Path,
    output: Path,
    key: str | None,
    method: str,
    gap_closing: int | None,
    min_extent: int | None,
    unique_ids: bool,
) -> None:
    """Merge the slices of a label file into the label image ``objects`` of a new OME-Zarr.

    Raises
    ------
    VolsamError
        If the labels are no whole numbers, or the output exists.
    """
    if method not in ("volsam", "micro-sam"):
        raise VolsamError(f"Merging method {method!r} is unknown; use volsam or micro-sam.")
    volume = open_volume(labels, axes="zyx", key=key)
    info = volume.info
    if np.dtype(info.dtype).kind not in "ui":
        raise VolsamError(f"{labels} holds {info.dtype}; labels must be whole numbers.")
    if output.exists():
        raise VolsamError(f"{output} exists already; choose another name.")
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    create_labels(
        partial,
        shape=info.shape,
        dtype=np.uint64 if method == "micro-sam" else np.uint32,
        chunks=(1, 1024, 1024),
        shards=None,
        voxel_size=info.voxel_size,
        unit=info.unit,
    )
    merge_slices(
        _Slices(volume),
        open_level(partial, "objects", 0),
        method=method,  # type: ignore[arg-type]
        gap_closing=gap_closing,
        min_z_extent=min_extent,
        unique_ids=unique_ids,
    )
    partial.rename(output)
