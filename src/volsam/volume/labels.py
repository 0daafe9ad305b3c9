"""Label images in OME-Zarr: beside an ingested image, on their own, or inside the user's input.

Invariants
----------
- Metadata and empty arrays of all levels exist before the first block is written, by one process. What
  they say of time is that of the image, and both change together (`set_time`).
- A group named like ours that we did not make is never touched.
- Labels are a valid label image of their own, whether or not their image is in the same store.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volsam.errors import VolsamError
from volsam.volume.frames import FrameSlices, stack_unit, stored_axes
from volsam.volume.info import ZYX, Size, TimeAxis
from volsam.volume.layout import clip_layout, create_array, open_image_level
from volsam.volume.metadata import image_attributes, versioned, with_time
from volsam.volume.pyramid import level_shape
from volsam.volume.store import ZARR_FORMAT, check_own, discard, mark, writing

if TYPE_CHECKING:
    import zarr

_TORN = f"*.{'[0-9a-f]' * 32}.partial"
"""Metadata that a kill left half-written, as zarr names it."""


def label_path(store_root: str | Path, name: str = "objects") -> Path:
    """Folder of a label image."""
    return Path(store_root) / "labels" / name


def create_labels(
    store_root: str | Path,
    name: str = "objects",
    *,
    shape: Sequence[int],
    dtype: Any,
    chunks: Sequence[int],
    shards: Sequence[int] | None,
    voxel_size: Size | None,
    unit: str,
    factors: Sequence[ZYX] = (),
    translation: Size = (0.0, 0.0, 0.0),
    frames: int | None = None,
    time: TimeAxis | None = None,
    z_axis: bool = False,
    version: str = "0.5",
    source: str | None = None,
    has_image: bool = False,
    provenance: dict[str, Any] | None = None,
) -> Path:
    """Create the group and the empty arrays of a label image, replacing an earlier one of ours.

    Parameters
    ----------
    store_root : path
        OME-Zarr (with an image, or empty, or not yet there).
    shape : (z, y, x)
        Of a sequence the slices of all frames.
    dtype : unsigned int
    chunks, shards : (z, y, x)
        Shards are ignored for version 0.4.
    voxel_size, translation : (z, y, x)
        In `unit`.
    factors : sequence of (z, y, x)
        Downsampling of levels 1, 2, … relative to level 0: those of the image.
    frames : int, optional
        Frames of a sequence.
    time : TimeAxis, optional
        Scale of its time axis: that of the image, so that viewers lay one on the other.
    z_axis : bool
        Give frames of one slice a z axis: if the image has one, for the same reason.
    version : {"0.4", "0.5"}
        Of a new store; an existing one keeps its own.
    source : str, optional
        Relative path from the labels to their image; ``../../`` if `has_image`.
    has_image : bool
        The image is in the same store.
    provenance : dict, optional
        Kept in the attribute ``volsam`` of the label group.

    Returns
    -------
    Path
        Folder of the label image.

    Raises
    ------
    VolsamError
        If the store holds a label image of this name that we did not make, or is no OME-Zarr.
    """
    import zarr

    root = Path(store_root)
    folder = label_path(root, name)
    version = store_version(root) or version
    check_own(folder)
    axes, _ = stored_axes(shape, frames, z_axis=z_axis)
    layout = clip_layout(stack_unit(shape, frames), chunks, None if version == "0.4" else shards)
    with writing(root):
        group = zarr.open_group(
            root, mode="a", zarr_format=ZARR_FORMAT[version], use_consolidated=False
        )
        discard(folder)
        for left in (*root.glob(_TORN), *folder.parent.glob(_TORN)):
            left.unlink(missing_ok=True)
        labels = group.require_group("labels")
        _list_label(labels, version, name)
        attributes = image_attributes(
            version,
            name,
            axes,
            factors,
            voxel_size,
            unit,
            translation,
            time,
            method="mode",
            label_source=source or ("../../" if has_image else None),
            is_label=True,
        )
        image = labels.create_group(name, attributes={**attributes, **mark(provenance)})
        for level, factor in enumerate([(1, 1, 1), *factors]):
            small = level_shape(shape, factor)
            own = clip_layout(stack_unit(small, frames), layout.chunks, layout.shards)
            _, stored = stored_axes(small, frames, z_axis=z_axis)
            create_array(image, str(level), stored, dtype, own, axes, labels=True)
        if _is_consolidated(root, version):
            _consolidate(root)
    return folder


def discard_labels(store_root: str | Path, version: str) -> None:
    """Remove a store of nothing but our labels if it is of another version, which it would keep.

    Raises
    ------
    VolsamError
        If there are labels in it that we did not make.
    """
    root = Path(store_root)
    if store_version(root) in (None, version):
        return
    for folder in label_path(root, "").iterdir():
        if folder.is_dir():
            check_own(folder)
    with writing(root):
        discard(root)


def open_level(
    store_root: str | Path, name: str, level: int, mode: Any = "r+"
) -> zarr.Array | FrameSlices:
    """Array of one level of a label image, for reading and block-wise writing."""
    return open_image_level(label_path(store_root, name), level, mode)


def set_time(store_root: str | Path, names: Sequence[str], time: TimeAxis) -> None:
    """Give an image of ours and its labels another scale of time; nothing is written that is the same.

    Parameters
    ----------
    store_root : path
        OME-Zarr with an image and labels that this package made.
    names : sequence of str
        Names of the label images.
    time : TimeAxis
    """
    import zarr

    root, written = Path(store_root), False
    with writing(root):
        consolidated = _is_consolidated(root, str(store_version(root)))
        for folder in (root, *(label_path(root, name) for name in names)):
            for left in folder.glob(_TORN):
                left.unlink(missing_ok=True)
            group = zarr.open_group(folder, mode="r+", use_consolidated=False)
            before = group.attrs.asdict()
            after = with_time(before, time)
            if after != before:
                # A kill may leave no consolidated metadata, but none that say otherwise.
                (root / ".zmetadata").unlink(missing_ok=True)
                group.attrs.put(after)
                written = True
        if written and consolidated:
            _consolidate(root)


def check_free(store_root: str | Path, name: str = "objects") -> None:
    """Refuse a label image of this name that we did not make; for the plan of `labels_into`."""
    check_own(label_path(store_root, name))


def store_version(store_root: str | Path) -> str | None:
    """OME-Zarr version that a store must keep: by its Zarr format; None if there is none yet."""
    root = Path(store_root)
    if (root / "zarr.json").exists():
        return "0.5"
    if (root / ".zgroup").exists():
        return "0.4"
    if (root / ".zarray").exists():
        raise VolsamError(
            f"{root} is a plain Zarr array; labels need a group, write them to the results."
        )
    return None


def _list_label(labels: zarr.Group, version: str, name: str) -> None:
    """Add a name to the list that viewers find labels by; keeps all else that is there."""
    attributes: dict[str, Any] = labels.attrs.asdict()
    holder: dict[str, Any] = attributes.get("ome", {}) if version == "0.5" else attributes
    names = [str(n) for n in holder.get("labels", [])]
    if name not in names:
        names.append(name)
    if version == "0.5":
        known = {k: v for k, v in holder.items() if k != "version"}
        attributes |= versioned(version, {**known, "labels": names})
    else:
        attributes["labels"] = names
    labels.attrs.put(attributes)


def _is_consolidated(root: Path, version: str) -> bool:
    """Whether the metadata of a store were consolidated, by its user."""
    if version == "0.4":
        return (root / ".zmetadata").exists()
    metadata = json.loads((root / "zarr.json").read_text(encoding="utf-8"))
    return metadata.get("consolidated_metadata") is not None


def _consolidate(root: Path) -> None:
    """Viewers of a store with consolidated metadata see a change only if they are renewed."""
    import zarr

    with warnings.catch_warnings():
        # The store was consolidated before; that the specification lacks it is not our news.
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(root)
