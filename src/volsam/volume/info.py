"""What is known of a volume before any voxel is read, and the units it is measured in.

Invariants
----------
- Shapes, voxel sizes, translations and chunks are ordered zyx; a 2D image has one slice.
- A stated voxel size, that of level 0, wins over the metadata; a contradiction becomes a warning with
  both values.
- Lengths are kept in the unit they were stated in (or else the metadata's), never silently
  converted. A voxel size stated without a unit that repeats the numbers of the metadata is in their
  unit; any other is in micrometer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from volsam.errors import VolsamError

ZYX = tuple[int, int, int]
Size = tuple[float, float, float]

DEFAULT_UNIT = "micrometer"

# Metres per unit, by the names that OME-Zarr recommends (UDUNITS-2).
METRES: dict[str, float] = {
    "picometer": 1e-12,
    "angstrom": 1e-10,
    "nanometer": 1e-9,
    "micrometer": 1e-6,
    "millimeter": 1e-3,
    "centimeter": 1e-2,
    "decimeter": 1e-1,
    "inch": 0.0254,
    "meter": 1.0,
}

_SPELLINGS: dict[str, str] = {
    "pm": "picometer",
    "å": "angstrom",
    "nm": "nanometer",
    "um": "micrometer",
    "µm": "micrometer",  # micro sign
    "μm": "micrometer",  # Greek mu
    "micron": "micrometer",
    "microns": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
}


# Seconds per unit of time, as OME-Zarr spells it.
SECONDS: dict[str, float] = {
    "nanosecond": 1e-9,
    "microsecond": 1e-6,
    "millisecond": 1e-3,
    "second": 1.0,
    "minute": 60.0,
    "hour": 3600.0,
    "day": 86400.0,
}


@dataclass(frozen=True)
class TimeAxis:
    """Scale of the time axis in a file: the step between frames, and its unit if there is one."""

    step: float = 1.0
    unit: str | None = None

    @property
    def seconds(self) -> float | None:
        """Seconds between frames, if the unit tells."""
        return None if self.unit not in SECONDS else self.step * SECONDS[self.unit]


@dataclass(frozen=True)
class VolumeInfo:
    """Description of one volume at one resolution level: one time point, or a sequence as a stack.

    Parameters
    ----------
    shape : (int, int, int)
        Voxels, zyx; of a sequence the slices of all frames (`volume.frames`).
    dtype : str
        numpy name of the stored type, native byte order.
    channels, timepoints : int
        How many the file holds.
    voxel_size : (float, float, float) or None
        Edge lengths zyx in `unit`; None where neither stated nor in the metadata.
    unit : str
        Unit of length, as OME-Zarr spells it.
    channel_names : tuple of str
        Names in the metadata; empty if there are none.
    format : str
        ``ome-zarr-0.4``, ``ome-zarr-0.5``, ``tiff``, ``tiff-folder``, ``zarr`` or ``hdf5``.
    path : str
        As given.
    key : str or None
        Array or image within the file.
    chunks : (int, int, int)
        What the file stores together, zyx: the unit in which reading is cheap.
    warnings : tuple of str
        One sentence each, for the plan to print.
    translation : (float, float, float)
        Position of the first voxel, zyx in `unit`.
    factors : tuple of (int, int, int)
        Downsampling of the file's coarser levels relative to this one, zyx.
    level : int
        Resolution level read.
    frames : int or None
        Frames of a sequence; None for one time point.
    time : TimeAxis
        What the file says of the time axis.
    z_axis : bool
        The file has a z axis, be it of length 1.
    sliced : bool
        A part of a chunk is read without the rest: nothing is compressed.
    """

    shape: ZYX
    dtype: str
    channels: int
    timepoints: int
    voxel_size: Size | None
    unit: str
    channel_names: tuple[str, ...]
    format: str
    path: str
    key: str | None
    chunks: ZYX
    warnings: tuple[str, ...] = ()
    translation: Size = (0.0, 0.0, 0.0)
    factors: tuple[ZYX, ...] = ()
    level: int = 0
    frames: int | None = None
    time: TimeAxis = TimeAxis()
    z_axis: bool = False
    sliced: bool = False

    @property
    def depth(self) -> int:
        """Slices of a frame, or of the volume."""
        return self.shape[0] // (self.frames or 1)


@dataclass(frozen=True)
class Metadata:
    """What a file says of its geometry; every part may be unknown.

    `voxel_size` and `translation` are zyx in `unit`.
    """

    voxel_size: Size | None = None
    unit: str | None = None
    translation: Size = (0.0, 0.0, 0.0)
    channel_names: tuple[str, ...] = ()
    time: TimeAxis = TimeAxis()


def require_voxel_size(info: VolumeInfo) -> Size:
    """Voxel size, zyx in ``info.unit``.

    Raises
    ------
    VolsamError
        If it is neither stated nor in the metadata.
    """
    if info.voxel_size is None:
        raise VolsamError(
            f"The voxel size of {info.path} is neither stated nor in its metadata; "
            f"add voxel_size: {{z: …, y: …, x: …}} in {info.unit} to the sample."
        )
    return info.voxel_size


def unit_name(unit: str) -> str:
    """Spell a unit as OME-Zarr does (``µm`` → ``micrometer``); unknown units stay as they are."""
    text = unit.strip().replace("\\u00B5", "µ")  # as ImageJ escapes it
    name = text.lower().replace("metre", "meter")
    return _SPELLINGS.get(text, _SPELLINGS.get(name, name.removesuffix("s")))


def convert(value: Sequence[float], source: str, target: str) -> Size | None:
    """Convert lengths; None where one of the units is no known length."""
    if source == target:
        factor = 1.0
    elif source in METRES and target in METRES:
        factor = METRES[source] / METRES[target]
    else:
        return None
    z, y, x = (float(v) * factor for v in value)
    return z, y, x


def stated_size(stated: Any) -> Size:
    """Read a stated voxel size: ``(z, y, x)``, ``(y, x)`` or a mapping; z is 1 if left out."""
    if isinstance(stated, Mapping):
        missing = [axis for axis in "yx" if axis not in stated]
        if missing or set(stated) - set("zyx"):
            raise VolsamError(
                f"voxel_size {dict(stated)} must have the keys y and x, and z for a volume."
            )
        values = [stated.get("z", 1.0), stated["y"], stated["x"]]
    else:
        values = list(stated)
        values = [1.0, *values] if len(values) == 2 else values
    if len(values) != 3 or not all(0 < float(v) < float("inf") for v in values):
        raise VolsamError(
            f"voxel_size {stated!r} must be three positive numbers in the order z, y, x."
        )
    return float(values[0]), float(values[1]), float(values[2])


def settle_geometry(
    metadata: Metadata,
    stated: Any,
    unit: str | None,
    path: str,
    flat: bool,
    factor: Size = (1.0, 1.0, 1.0),
) -> tuple[Size | None, str, Size, list[str]]:
    """Bring what is stated and what the metadata say together.

    Parameters
    ----------
    metadata : Metadata
        From the file, of the level that is read.
    stated : mapping, sequence or None
        Voxel size from the user, in `unit`, at level 0.
    unit : str or None
        Unit from the user; by default that of the file where `stated` repeats its numbers or is None.
    path : str
        For the warnings.
    flat : bool
        The image has one slice: a difference along z means nothing.
    factor : (float, float, float)
        Downsampling of the level that is read relative to level 0, zyx.

    Returns
    -------
    voxel_size, unit, translation, warnings
        Voxel size and translation are those of the level that is read.
    """
    warnings: list[str] = []
    if unit is not None:
        unit = unit_name(unit)
        if unit not in METRES:
            raise VolsamError(
                f"Unit {unit!r} of {path} is no unit of length; use one of {', '.join(METRES)}."
            )
    file_unit = metadata.unit
    if metadata.voxel_size is not None and file_unit is None and stated is None:
        warnings.append(
            f"The metadata of {path} give a voxel size without a unit; it is taken as "
            f"{unit or DEFAULT_UNIT}."
        )
    size = None if stated is None else stated_size(stated)
    compared = range(1 if flat else 0, 3)
    recorded = metadata.voxel_size and _scaled(metadata.voxel_size, [1 / f for f in factor])
    # The very numbers of the file are meant in its unit.
    repeated = file_unit in METRES and _alike(size, recorded, compared)
    target = unit or (file_unit if size is None or repeated else None) or DEFAULT_UNIT
    source = file_unit or target
    known = metadata.voxel_size and convert(metadata.voxel_size, source, target)
    translation = convert(metadata.translation, source, target) or (0.0, 0.0, 0.0)
    if size is None:
        if metadata.voxel_size is not None and known is None:
            warnings.append(
                f"The voxel size in the metadata of {path} is in {file_unit}, which is no length; "
                f"state voxel_size if sizes matter."
            )
        return known, target, translation, warnings
    known = recorded and convert(recorded, source, target)
    if known is not None and not _alike(size, known, compared):
        shown = " × ".join(f"{v:.6g}" for v in known)
        chosen = " × ".join(f"{v:.6g}" for v in size)
        warnings.append(
            f"The stated voxel size of {path}, {chosen} {target} (z × y × x), contradicts its "
            f"metadata, {shown} {target}; the stated one is used."
        )
    return _scaled(size, factor), target, translation, warnings


def _alike(stated: Size | None, known: Size | None, axes: Iterable[int]) -> bool:
    if stated is None or known is None:
        return False
    return all(abs(stated[i] - known[i]) <= 0.01 * stated[i] for i in axes)


def _scaled(size: Size, factor: Sequence[float]) -> Size:
    z, y, x = (edge * f for edge, f in zip(size, factor, strict=True))
    return z, y, x
