"""OME-Zarr metadata as this package writes them, versions 0.4 and 0.5.

One process writes the metadata of a group, before any block is written; the step of a time axis, which
no block depends on, may be set later. The specifications are at https://ngff.openmicroscopy.org (0.4 and
0.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from volsam.volume.info import METRES, ZYX, Size, TimeAxis


def image_attributes(
    version: str,
    name: str,
    axes: str,
    factors: Sequence[ZYX],
    voxel_size: Size | None,
    unit: str,
    translation: Size = (0.0, 0.0, 0.0),
    time: TimeAxis | None = None,
    method: str = "mean",
    channel_names: Sequence[str] = (),
    dtype: str = "uint16",
    label_source: str | None = None,
    is_label: bool = False,
) -> dict[str, Any]:
    """Attributes of an image group.

    Parameters
    ----------
    version : {"0.4", "0.5"}
    axes : str
        Letters of ``tczyx`` in that order, y and x among them.
    factors : sequence of (z, y, x)
        Downsampling of levels 1, 2, … relative to level 0.
    voxel_size, translation : (z, y, x)
        In `unit`; without a voxel size the scale is 1 and has no unit.
    time : TimeAxis, optional
        Scale of t; without it 1 and no unit.
    method : str
        How the levels were made.
    channel_names : sequence of str
        Written as ``omero`` channels where there are any.
    label_source : str, optional
        Relative path from a label image to its image.
    is_label : bool
        Add the ``image-label`` metadata.
    """
    size = voxel_size or (1.0, 1.0, 1.0)
    time = time or TimeAxis()
    datasets = []
    for level, factor in enumerate([(1, 1, 1), *factors]):
        # The centre of a coarse voxel is the centre of the fine voxels it covers.
        scale, shift = {"t": time.step}, {}
        for a, t, s, f in zip("zyx", translation, size, factor, strict=True):
            scale[a], shift[a] = s * f, t + s * (f - 1) / 2
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [scale.get(a, 1.0) for a in axes]},
                    {"type": "translation", "translation": [shift.get(a, 0.0) for a in axes]},
                ],
            }
        )
    multiscale = {
        "name": name,
        "axes": [_axis(a, unit if voxel_size else None, time.unit) for a in axes],
        "datasets": datasets,
        "type": method,
    }
    attributes: dict[str, Any] = {"multiscales": [multiscale]}
    if channel_names and not is_label:
        attributes["omero"] = _omero(channel_names, dtype)
    if is_label:
        label: dict[str, Any] = {}
        if label_source is not None:
            label["source"] = {"image": label_source}
        attributes["image-label"] = label
    return versioned(version, attributes)


def with_time(attributes: dict[str, Any], time: TimeAxis) -> dict[str, Any]:
    """Attributes of `image_attributes` with another scale of t; as they are where there is no t."""
    changed = deepcopy(attributes)
    for multiscale in changed.get("ome", changed)["multiscales"]:
        names = [axis["name"] for axis in multiscale["axes"]]
        if "t" not in names:
            continue
        place = names.index("t")
        multiscale["axes"][place] = _axis("t", None, time.unit)
        for dataset in multiscale["datasets"]:
            scale, *_ = dataset["coordinateTransformations"]
            scale["scale"][place] = time.step
    return changed


def versioned(version: str, attributes: dict[str, Any]) -> dict[str, Any]:
    """Put attributes where the version wants them, with the version said as it wants."""
    if version == "0.5":
        return {"ome": {"version": version, **attributes}}
    for multiscale in attributes.get("multiscales", ()):
        multiscale["version"] = version
    for key in ("image-label", "omero"):
        if key in attributes:
            attributes[key]["version"] = version
    return attributes


def _axis(letter: str, unit: str | None, time: str | None) -> dict[str, str]:
    if letter == "c":
        return {"name": "c", "type": "channel"}
    if letter == "t":
        return {"name": "t", "type": "time"} | ({"unit": time} if time else {})
    axis = {"name": letter, "type": "space"}
    if unit in METRES:
        axis["unit"] = unit
    return axis


def _omero(names: Sequence[str], dtype: str) -> dict[str, Any]:
    """Channel names; colours and windows are required by viewers, so neutral ones are given."""
    import numpy as np

    kind = np.dtype(dtype)
    low, high = (0.0, 1.0) if kind.kind == "f" else map(float, (0, np.iinfo(kind).max))
    palette = ["FFFFFF"] if len(names) == 1 else ["00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000"]
    return {
        "channels": [
            {
                "label": name,
                "color": palette[i % len(palette)],
                "active": True,
                "window": {"min": low, "max": high, "start": low, "end": high},
            }
            for i, name in enumerate(names)
        ]
    }
