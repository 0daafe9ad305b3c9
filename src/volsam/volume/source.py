"""Open any supported image as a volume, one time point or all of them, read by boxes.

Invariants
----------
- Nothing is read at opening but metadata; a read touches the chunks of its box only.
- Every fault of the file is a `VolsamError` that names the file and the place.
- What is returned has native byte order and is the caller's to change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.volume.axes import Axes, settle_axes
from volsam.volume.channels import Channel, channel_weights
from volsam.volume.frames import FrameSlices
from volsam.volume.info import ZYX, Metadata, VolumeInfo, settle_geometry

ALL: Literal["all"] = "all"
Timepoint = int | Literal["all"] | None

_GAP = 4  # channels from one that is asked for to the next, up to which those between are read too


class ArrayLike(Protocol):
    """A stored array: numpy memory map, zarr, HDF5, or a stack of files."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __getitem__(self, index: Any, /) -> Any: ...


@dataclass(frozen=True)
class Stored:
    """What a reader finds in a file: one array and what the file says of it."""

    array: ArrayLike
    format: str
    key: str | None = None
    axes: str | None = None
    strict_axes: bool = False
    samples: bool = False
    chunks: tuple[int, ...] = ()
    metadata: Metadata = field(default_factory=Metadata)
    scale: tuple[float, ...] = ()  # downsampling of the array relative to level 0, array order
    coarser: tuple[tuple[float, ...], ...] = ()  # downsampling of coarser levels, array order
    warnings: tuple[str, ...] = ()
    sliced: bool = False  # a part of a chunk is read without the rest


class Volume:
    """One time point of an image, or the slices of all frames, read by boxes of zyx voxels.

    Attributes
    ----------
    info : VolumeInfo
    """

    def __init__(
        self,
        info: VolumeInfo,
        array: ArrayLike,
        axes: Axes,
        timepoint: int | Literal["all"],
        weights: np.ndarray,
    ) -> None:
        self.info = info
        self.array = array
        self._axes = axes
        self._timepoint = timepoint
        self._weights = weights
        self._arguments: dict[str, Any] = {}
        used = np.flatnonzero(weights)
        self._used = slice(int(used[0]), int(used[-1]) + 1)
        # Of many channels those between are left out; between colours they are stored together anyway.
        parts = np.split(used, np.flatnonzero(np.diff(used) > _GAP) + 1)
        self._runs = [slice(int(part[0]), int(part[-1]) + 1) for part in parts]
        self._single = len(used) == 1 and weights[used[0]] == 1

    def read(self, box: Box) -> np.ndarray:
        """Voxels of the chosen channel.

        Parameters
        ----------
        box : Box
            zyx, within the volume.

        Returns
        -------
        ndarray, (z, y, x)
            Stored dtype; float32 weighted sum if a mix of channels was chosen.

        Raises
        ------
        VolsamError
            If the file is damaged at this place.
        """
        if self._single:
            return np.ascontiguousarray(self._read(box, self._used)[0])
        mix = np.zeros(box.shape, np.float32)
        for channels in self._runs:
            weights = self._weights[channels].astype(np.float32)
            for weight, channel in zip(weights, self._read(box, channels), strict=True):
                if weight:
                    mix += weight * channel.astype(np.float32)
        return mix

    def read_channels(self, box: Box, channels: slice | None = None) -> np.ndarray:
        """Voxels of all channels, or of some in a row, (c, z, y, x) in the stored dtype."""
        return np.ascontiguousarray(self._read(box, channels or slice(0, self.info.channels)))

    def reach(self, box: Box | None = None) -> dict[str, slice]:
        """The part of each axis of the stored array, in its order, that holds a box, all channels of it.

        Of a sequence it is that of all its frames.
        """
        zyx = (box or Box.of(self.info.shape)).slices
        held = dict(zip("yx", zyx[1:], strict=True))
        if self._timepoint != ALL:
            held |= {"t": slice(self._timepoint, self._timepoint + 1), "z": zyx[0]}
        shape = zip(self._axes.letters, self._axes.shape, strict=True)
        return {a: held.get(a, slice(0, n)) for a, n in shape}

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as the arguments of `open_volume`, never as voxels."""
        return _reopen, (self._arguments,)

    def _read(self, box: Box, channels: slice) -> np.ndarray:
        if box.size and box.intersect(Box.of(self.info.shape)) != box:
            raise ValueError(f"{box} reaches beyond the volume of shape {self.info.shape}")
        try:
            if self._timepoint == ALL:
                stack = FrameSlices(self.array, self._axes.letters)
                wanted = box.slices if stack.channels is None else (channels, *box.slices)
                block = np.array(stack[wanted])
            else:
                block = np.array(self.array[self._axes.index(self._timepoint, channels, box)])
        except (MemoryError, VolsamError):
            raise
        except Exception as error:  # every codec and file library raises its own kinds
            place = ", ".join(
                f"{a} {s}–{e - 1}" for a, s, e in zip("zyx", box.start, box.stop, strict=True)
            )
            raise VolsamError(
                f"{self.info.path} cannot be read at {place} ({_reason(error)}); "
                f"the file is probably damaged, copy it again from its source."
            ) from error
        block = block.astype(block.dtype.newbyteorder("="), copy=False)
        if self._timepoint == ALL:
            return block if block.ndim == 4 else block[None]
        return self._axes.arrange(block)


def open_volume(
    path: str | Path,
    *,
    axes: str | Sequence[str] | None = None,
    key: str | None = None,
    level: int = 0,
    timepoint: Timepoint = None,
    channel: Channel = 0,
    voxel_size: Mapping[str, float] | Sequence[float] | None = None,
    unit: str | None = None,
) -> Volume:
    """Open an image; the format is recognised by its content, not by its name.

    Parameters
    ----------
    path : path
        OME-Zarr 0.4 or 0.5, plain Zarr, (OME-)TIFF, folder of TIFFs, or HDF5.
    axes : str or sequence of str, optional
        Order of the axes, letters of ``tczyx``, where the file does not say; of several orders the one
        with as many axes as the file.
    key : str, optional
        Array or image within a Zarr or HDF5 file; number of the series of a TIFF.
    level : int
        Resolution level of an OME-Zarr image or a pyramidal TIFF.
    timepoint : int or "all", optional
        Needed if there are several; all of them make a stack of slices, see `volume.frames`.
    channel : int, str, mapping or None
        Number, name, or weights by number or name; None is the only channel.
    voxel_size : mapping or sequence, optional
        Edge lengths at level 0, zyx in `unit`; wins over the metadata. Those of a coarser level follow
        from its downsampling.
    unit : str, optional
        Unit of `voxel_size`; by default that of the file where `voxel_size` repeats its numbers or is
        left out, else micrometer.

    Raises
    ------
    VolsamError
        If the file cannot be read or what is asked for is not in it.
    """
    arguments: dict[str, Any] = {
        "path": str(path),
        "axes": axes,
        "key": key,
        "level": level,
        "timepoint": timepoint,
        "channel": channel,
        "voxel_size": voxel_size,
        "unit": unit,
    }
    path = Path(path)
    stored = _find_reader(path)(path, key, level)
    name = str(path)
    kind = np.dtype(stored.array.dtype)
    if kind.kind not in "uif" or kind.itemsize > 8:
        raise VolsamError(
            f"{name} holds values of type {kind}; only integers and floating-point numbers are "
            f"images, convert it first."
        )
    if axes is not None and not isinstance(axes, str):
        axes = next((order for order in axes if len(order) == stored.array.ndim), axes[0])
    settled, warnings = settle_axes(
        name,
        stored.array.shape,
        axes,
        stored.axes,
        strict=stored.strict_axes,
        samples=stored.samples,
    )
    if timepoint == ALL and "t" not in settled.letters:
        raise VolsamError(
            f"{name} has no time axis (axes {settled.letters!r}); only a sequence can be tracked, name "
            f"its time axis t in axes."
        )
    frames = settled.size("t") if timepoint == ALL else None
    z, y, x = settled.zyx
    shape = (z * (frames or 1), y, x)
    size, unit, translation, more = settle_geometry(
        stored.metadata,
        voxel_size,
        unit,
        name,
        flat=z == 1,
        factor=settled.spatial(stored.scale, 1.0) if stored.scale else (1.0, 1.0, 1.0),
    )
    names = stored.metadata.channel_names
    channels = settled.size("c")
    names = names if len(names) == channels else ()
    info = VolumeInfo(
        shape=shape,
        dtype=kind.newbyteorder("=").name,
        channels=channels,
        timepoints=settled.size("t"),
        voxel_size=size,
        unit=unit,
        channel_names=names,
        format=stored.format,
        path=name,
        key=stored.key,
        chunks=_chunks(settled, stored, frames is not None and z == 1),
        sliced=stored.sliced,
        warnings=(*stored.warnings, *warnings, *more),
        translation=translation,
        factors=tuple(_whole(settled.spatial(s, 1)) for s in stored.coarser),
        level=level,
        frames=frames,
        time=stored.metadata.time,
        z_axis="z" in settled.letters,
    )
    time = _chosen_time(info, timepoint)
    volume = Volume(info, stored.array, settled, time, channel_weights(info, channel))
    volume._arguments = arguments
    return volume


def labels_arguments(
    path: str, key: str | None, shape: tuple[int, ...], frames: int | None
) -> dict[str, Any]:
    """Arguments of `open_volume` for labels or a mask of an image, whose axes they are taken to have.

    Parameters
    ----------
    path, key : str
        Of the labels.
    shape : (slices of all frames, y, x)
        Of the image.
    frames : int or None
        Of the image; None for a volume.
    """
    if frames is not None:
        planes = shape[0] == frames  # which may have a z axis all the same
        axes = ["tyx", "tzyx"] if planes else "tzyx"
        return {"path": path, "key": key, "axes": axes, "timepoint": ALL}
    return {"path": path, "key": key, "axes": "zyx" if shape[0] > 1 else None}


def _reopen(arguments: dict[str, Any]) -> Volume:
    return open_volume(**arguments)


def _find_reader(path: Path) -> Any:
    """Reader of a path by what lies there; the libraries are imported only when needed."""
    if not path.exists():
        raise VolsamError(f"There is nothing at {path}; check the path.")
    try:
        if path.is_dir():
            # Not by a listing: beside an array's metadata may lie millions of chunks.
            if any((path / n).exists() for n in ("zarr.json", ".zattrs", ".zgroup", ".zarray")):
                from volsam.volume.read_zarr import open_zarr

                return open_zarr
            from volsam.volume.read_tiff import is_tiff_name, open_folder

            if any(is_tiff_name(p.name) for p in path.iterdir()):
                return open_folder
            raise VolsamError(
                f"The folder {path} holds neither Zarr metadata nor TIFF files; "
                f"name an OME-Zarr image or a folder of TIFFs."
            )
        with path.open("rb") as file:
            magic = file.read(8)
    except OSError as error:
        raise VolsamError(f"Cannot read {path}: {error.strerror or error}.") from None
    if magic[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        from volsam.volume.read_tiff import open_tiff

        return open_tiff
    if magic == b"\x89HDF\r\n\x1a\n":
        from volsam.volume.read_hdf5 import open_hdf5

        return open_hdf5
    raise VolsamError(
        f"{path} is no TIFF, HDF5 or Zarr (or it is damaged at its start); convert it to one of "
        f"them."
    )


def _chunks(axes: Axes, stored: Stored, planes: bool) -> ZYX:
    """What the file stores together, zyx; along time in a sequence of planes."""
    sizes = stored.chunks or stored.array.shape
    z, y, x = axes.spatial(sizes, 1)
    return (sizes[axes.letters.index("t")] if planes else z), y, x


def _chosen_time(info: VolumeInfo, timepoint: Timepoint) -> int | Literal["all"]:
    if timepoint == ALL:
        return ALL
    if timepoint is None:
        if info.timepoints > 1:
            raise VolsamError(
                f"{info.path} has {info.timepoints} time points; choose one with timepoint."
            )
        return 0
    if not 0 <= timepoint < info.timepoints:
        raise VolsamError(
            f"Time point {timepoint} of {info.path} does not exist; it has {info.timepoints}, "
            f"counted from 0."
        )
    return timepoint


def _whole(factor: Sequence[float]) -> ZYX:
    z, y, x = (max(1, round(f)) for f in factor)
    return z, y, x


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__
