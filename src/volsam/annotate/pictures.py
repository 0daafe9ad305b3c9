"""The image under corrected labels, and what the user says of both.

Invariants
----------
- A picture says where it comes from; voxels are read for the labelled part only.
- Limits are those of the whole source, so that training sees a crop as prediction does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from volsam.annotate.checks import Meaning
from volsam.annotate.crops import Provenance, crop_kind, read_image, read_provenance
from volsam.annotate.runs import FinishedRun, said
from volsam.config import Region
from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.volume.normalise import estimate
from volsam.volume.source import Volume, open_volume

Array = NDArray[Any]


@dataclass(frozen=True)
class Settings:
    """What the user says of the labels.

    Attributes
    ----------
    image : Path or None
        The image that was labelled, where the labels do not say.
    reading : mapping
        Further arguments of `open_volume` for the image: axes, key, level, channel, timepoint,
        voxel_size, unit.
    region : Region or None
        Part of the image that was labelled; None is all of it.
    label_key, label_axes : str or None
        Array within the file of the labels, and the order of its axes.
    meaning : Meaning
        What values besides the objects' say.
    limits : (float, float) or None
        Intensities that become 0 and 1; found in the image if not stated.
    tool, author : str
        What and who made the labels; the tool by the kind of source if not stated.
    licence : str
        Of image and labels.
    silver : bool
        Take the silver instead of the gold truth of a Cell Tracking Challenge folder.
    """

    image: Path | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)
    region: Region | None = None
    label_key: str | None = None
    label_axes: str | None = None
    meaning: Meaning = field(default_factory=Meaning)
    limits: tuple[float, float] | None = None
    tool: str = ""
    author: str = ""
    licence: str = ""
    silver: bool = False


@dataclass(frozen=True)
class Crop:
    """What `AnnotationStore.add` takes, and what the user should know of it.

    Attributes
    ----------
    image : (z, y, x) array
    labels : uint32 (z, y, x)
    ignore : uint8 (z, y, x)
        0 where the labels are known, else `checks.UNLABELLED` or `checks.UNKNOWN`.
    provenance : Provenance
    warnings : tuple of str
        One sentence each.
    """

    image: Array
    labels: NDArray[np.uint32]
    ignore: NDArray[np.uint8]
    provenance: Provenance
    warnings: tuple[str, ...] = ()


class Picture(Protocol):
    """The image under the labels: a whole volume, or a crop of one."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of what was labelled."""
        ...

    @property
    def box(self) -> Box:
        """The part to take, in voxels of `shape`."""
        ...

    def read(self) -> tuple[Array, Provenance]:
        """Intensities of the part, and where it comes from."""
        ...


def signed(provenance: Provenance, settings: Settings, tool: str) -> Provenance:
    """Provenance with who and what made the labels, and what the user said of them."""
    update: dict[str, Any] = {
        "tool": settings.tool or tool,
        "author": settings.author,
        "licence": settings.licence or provenance.licence,
        "complete": settings.meaning.complete,
        "date": "",
    }
    if settings.limits:
        update |= {"limits": settings.limits, "limits_of": "source"}
    return provenance.model_copy(update=update)


def picture_of(path: Path, settings: Settings) -> Picture:
    """The image that the labels at `path` belong to."""
    if settings.image is None:
        raise VolsamError(f"{path} does not say which image was labelled; name it with --image.")
    if crop_kind(settings.image) is not None:
        if settings.region:
            raise VolsamError(f"{settings.image} is a crop already; leave out --region for it.")
        return CropPicture(settings.image)
    if run := run_of(settings.image):
        return RunPicture(run, settings.region)
    volume = open_volume(settings.image, **settings.reading)
    return FilePicture(volume, settings)


@dataclass(frozen=True)
class CropPicture:
    """A crop of ours as the image."""

    path: Path

    @property
    def shape(self) -> tuple[int, int, int]:
        return read_provenance(self.path).shape

    @property
    def box(self) -> Box:
        return Box.of(self.shape)

    def read(self) -> tuple[Array, Provenance]:
        return read_image(self.path), read_provenance(self.path)


@dataclass(frozen=True)
class RunPicture:
    """The image of a finished run, with the limits that it used."""

    run: FinishedRun
    region: Region | None

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.run.plan.shape

    @property
    def box(self) -> Box:
        return region_box(self.region, self.shape, self.run.source)

    def read(self) -> tuple[Array, Provenance]:
        return self.run.volume().read(self.box), self.run.provenance(self.box)


@dataclass(frozen=True)
class FilePicture:
    """An image file, whole or in part."""

    volume: Volume
    settings: Settings

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.volume.info.shape

    @property
    def box(self) -> Box:
        return region_box(self.settings.region, self.shape, self.volume.info.path)

    def read(self) -> tuple[Array, Provenance]:
        info = self.volume.info
        limits = self.settings.limits
        if limits is None:
            found = estimate(self.volume)
            limits = found.low[0], found.high[0]
        provenance = Provenance(
            source=str(Path(info.path).resolve()),
            reading=said(self.settings.reading),
            region=self.box,
            limits=limits,
            voxel_size=info.voxel_size,
            unit=info.unit,
        )
        return self.volume.read(self.box), provenance


def region_box(region: Region | None, shape: tuple[int, int, int], where: str) -> Box:
    """Box of a region; axes left out are whole."""
    chosen = region or Region()
    ranges = [getattr(chosen, axis) or (0, n) for axis, n in zip("zyx", shape, strict=True)]
    box = Box(tuple(a for a, _ in ranges), tuple(b for _, b in ranges))
    if not box.size or box.intersect(Box.of(shape)) != box:
        raise VolsamError(
            f"The region {box.start} to {box.stop} is empty or reaches beyond {where} of shape "
            f"{shape} (zyx); choose 0 <= start < stop on every axis."
        )
    return box


def open_labels(
    path: str | Path,
    key: str | None = None,
    axes: str | None = None,
    *,
    depth: int = 1,
    timepoint: int | None = None,
) -> Volume:
    """Open a label image; three axes without a name are z, y, x, for labels have no channels.

    `depth` is the number of slices that are expected: 3 or 4 slices are often saved as colours.
    """
    try:
        volume = open_volume(path, key=key, axes=axes, timepoint=timepoint)
    except VolsamError:
        slices = None if axes else _as_slices(path, key)
        # A warning says that the file names its axes otherwise.
        if slices is None or slices.info.warnings:
            raise
        return slices
    if axes is None and 1 < volume.info.channels == depth:
        return _as_slices(path, key) or volume
    return volume


def _as_slices(path: str | Path, key: str | None) -> Volume | None:
    try:
        return open_volume(path, key=key, axes="zyx")
    except VolsamError:
        return None


def run_of(path: Path) -> FinishedRun | None:
    """The run whose folder or OME-Zarr this is."""
    for folder in (path, path.parent):
        if (folder / ".volsam").is_dir() and path in (folder, folder / f"{folder.name}.ome.zarr"):
            return FinishedRun.of(folder)
    return None
