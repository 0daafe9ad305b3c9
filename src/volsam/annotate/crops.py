"""Small OME-Zarr files: an image crop, label groups, and where all of it comes from.

Annotations and suggestions are both such files; the attribute ``volsam`` of the image says which.

Invariants
----------
- A folder exists under its own name only when it is complete.
- A path that a file names is shown and compared, never opened.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.volume.info import DEFAULT_UNIT, Size, VolumeInfo
from volsam.volume.ingest import create_image
from volsam.volume.labels import create_labels, label_path, open_level
from volsam.volume.layout import choose_layout, open_image_level
from volsam.volume.store import OURS, writing

Kind = Literal["annotation", "suggestion"]
SUFFIX = ".ome.zarr"


class Provenance(BaseModel):
    """Where a crop comes from and what its labels mean; all but `source` may be left out.

    Attributes
    ----------
    source : str
        Path or name of the source volume.
    reading : dict
        What else was said to open it: key, level, channel, timepoint.
    region : Box or None
        Voxels of the source, zyx, half-open; None is the whole of it.
    tool, author, date : str
        What and who made the labels, and when (ISO 8601).
    licence : str
        Of image and labels, for the cards of models that learn from them.
    limits : (float, float) or None
        Intensities of the source that become 0 and 1. The store fills in those of the crop.
    limits_of : {"source", "crop"}
        What the limits were found in.
    extremes : (float, float) or None
        Least and greatest intensity of the source, where they are known.
    voxel_size : (z, y, x) or None
        In `unit`.
    axes : str
        Always ``zyx``.
    complete : bool
        Unlabelled voxels are background; otherwise they are unknown.
    shape : (z, y, x)
    objects : int
        Filled in by the store, as is
    digest : str
        of image, labels and mask.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    source: str
    reading: dict[str, Any] = Field(default_factory=dict)
    region: Box | None = None
    tool: str = ""
    author: str = ""
    date: str = ""
    licence: str = ""
    limits: tuple[float, float] | None = None
    limits_of: Literal["source", "crop"] = "source"
    extremes: tuple[float, float] | None = None
    voxel_size: Size | None = None
    unit: str = DEFAULT_UNIT
    axes: Literal["zyx"] = "zyx"
    complete: bool = False
    shape: tuple[int, int, int] = (0, 0, 0)
    objects: int = 0
    digest: str = ""

    def same_place(self, other: Provenance) -> bool:
        """Whether both are of the same region of the same source."""
        return self.same_source(other) and self.region == other.region

    def same_source(self, other: Provenance) -> bool:
        """Whether both are of one volume: path, level, channel and time point."""
        return self.source == other.source and self.reading == other.reading


def write_crop(
    folder: Path,
    image: NDArray[Any],
    labels: Mapping[str, NDArray[Any]],
    kind: Kind,
    provenance: Provenance,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write a crop as OME-Zarr 0.5, under a partial name until it is complete.

    Parameters
    ----------
    folder : Path
        ``<name>.ome.zarr``, not there yet.
    image : (z, y, x) array
    labels : mapping of str to unsigned (z, y, x) array
        By name of their group.
    kind : {"annotation", "suggestion"}
    provenance : Provenance
    more : mapping, optional
        Kept beside the provenance.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    name = folder.name.removesuffix(SUFFIX)
    z, y, x = image.shape
    start = provenance.region.start if provenance.region else (0, 0, 0)
    sizes = provenance.voxel_size or (1.0, 1.0, 1.0)
    dz, dy, dx = (s * a for s, a in zip(sizes, start, strict=True))
    info = VolumeInfo(
        shape=(z, y, x),
        dtype=image.dtype.newbyteorder("=").name,
        channels=1,
        timepoints=1,
        voxel_size=provenance.voxel_size,
        unit=provenance.unit,
        channel_names=(),
        format="ome-zarr-0.5",
        path=name,
        key=None,
        chunks=(z, y, x),
        # In a viewer the crop lies on the volume it was cut from.
        translation=(dz, dy, dx),
    )
    layout = choose_layout(info.shape, info.dtype)
    mark = {kind: provenance.model_dump(mode="json"), **(more or {})}
    with writing(folder):
        shutil.rmtree(partial, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        create_image(partial, info, layout, (), name=name, provenance=mark)
        open_image_level(partial, 0)[...] = image
        for group, array in labels.items():
            create_labels(
                partial,
                group,
                shape=info.shape,
                dtype=array.dtype,
                chunks=layout.chunks,
                shards=layout.shards,
                voxel_size=info.voxel_size,
                unit=info.unit,
                translation=info.translation,
                has_image=True,
            )
            open_level(partial, group, 0)[...] = array
        partial.rename(folder)


def read_mark(folder: Path) -> dict[str, Any] | None:
    """The attribute ``volsam`` of a crop's image; None where there is none.

    Read without zarr, so that many are read quickly.
    """
    try:
        metadata = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
        mark = metadata["attributes"][OURS]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return mark if isinstance(mark, dict) else None


def crop_kind(folder: Path) -> Kind | None:
    """Whether a folder is an annotation or a suggestion; None if it is neither."""
    mark = read_mark(folder) or {}
    if "annotation" in mark:
        return "annotation"
    return "suggestion" if "suggestion" in mark else None


def read_provenance(folder: Path) -> Provenance:
    """Provenance of a crop.

    Raises
    ------
    VolsamError
        If the folder is no crop of ours, or its provenance is unreadable.
    """
    mark = read_mark(folder) or {}
    try:
        return Provenance.model_validate(mark[crop_kind(folder) or "annotation"])
    except (KeyError, ValidationError):
        raise VolsamError(
            f"{folder} is no annotation and no suggestion of volsam, or its metadata are damaged; "
            "add labels with volsam annotate add instead of copying them."
        ) from None


def read_image(folder: Path) -> NDArray[Any]:
    """Image of a crop, (z, y, x)."""
    return _read(folder, folder)


def read_labels(folder: Path, name: str) -> NDArray[Any]:
    """Label group of a crop, (z, y, x)."""
    return _read(folder, label_path(folder, name))


def content_digest(*arrays: NDArray[Any]) -> str:
    """Digest of the values, types and shapes of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest.update(f"{little.dtype.str}{little.shape}".encode())
        digest.update(little.data)
    return digest.hexdigest()[:24]


def _read(folder: Path, image: Path) -> NDArray[Any]:
    try:
        return np.asarray(open_image_level(image, 0, "r")[...])
    except Exception as error:  # every codec raises its own kinds
        raise VolsamError(
            f"{image} cannot be read ({type(error).__name__}); remove {folder} and add it again."
        ) from error
