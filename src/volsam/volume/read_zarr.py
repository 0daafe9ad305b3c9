"""OME-Zarr 0.4 and 0.5 images (labels are images too) and plain Zarr arrays, formats 2 and 3.

Invariants
----------
- The order of the axes of an OME-Zarr image is what its metadata say, and must be one that the
  specification allows: time, then channel, then space.
- Consolidated metadata are not used: they go stale when labels are added.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volsam.errors import VolsamError
from volsam.volume.axes import Axes
from volsam.volume.info import Metadata, TimeAxis, unit_name
from volsam.volume.source import Stored

if TYPE_CHECKING:
    import zarr

VERSIONS = ("0.4", "0.5")
_RANK = {"time": 0, "channel": 1, "space": 2}
_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


@dataclass(frozen=True)
class Multiscale:
    """One image of an OME-Zarr: axes, levels and their physical geometry, in array order."""

    version: str
    axes: str
    units: tuple[str | None, ...]
    paths: tuple[str, ...]
    scales: tuple[tuple[float, ...], ...]
    translations: tuple[tuple[float, ...], ...]
    channel_names: tuple[str, ...] = ()


def open_zarr(path: Path, key: str | None, level: int) -> Stored:
    """Open an OME-Zarr image, or the array named by `key`, in a Zarr store on disk."""
    import zarr

    node = open_node(path)
    found = key
    if key is not None:
        if isinstance(node, zarr.Array) or key not in node:
            raise VolsamError(
                f"{path} holds no array or image {key!r}; it holds {_children(node)}."
            )
        node = node[key]
    elif isinstance(node, zarr.Group) and not is_image(node):
        images = _images(node)
        if len(images) != 1:
            raise VolsamError(
                f"{path} is no OME-Zarr image (no multiscales metadata); choose an image or array "
                f"in it with key: {_children(node)}."
            )
        found = images[0]
        node = node[found]
    if isinstance(node, zarr.Array):
        if level:
            raise VolsamError(
                f"{path} is read as a plain Zarr array, which has no levels; name the array of the "
                f"level with key."
            )
        return Stored(node, "zarr", found, chunks=_chunks(node))
    where = str(path) if found is None else f"{path}/{found}"
    return _open_level(node, parse_multiscale(node.attrs.asdict(), where), where, found, level)


def is_ome_zarr(path: str | Path, key: str | None = None) -> bool:
    """Whether `open_zarr` finds an OME-Zarr image there; False where nothing can be read."""
    if not Path(path).is_dir():
        return False
    try:
        return open_zarr(Path(path), key, 0).format.startswith("ome-zarr")
    except VolsamError:
        return False


def open_node(path: Path) -> zarr.Array | zarr.Group:
    """Open a Zarr group or array for reading; unreadable metadata are one sentence."""
    import zarr

    try:
        try:
            return zarr.open_group(path, mode="r", use_consolidated=False)
        except (zarr.errors.ContainsArrayError, zarr.errors.NodeTypeValidationError):
            return zarr.open_array(path, mode="r")
    except FileNotFoundError:
        try:
            return zarr.open_array(path, mode="r")
        except Exception as error:
            raise _unreadable(path, error) from None
    except Exception as error:  # malformed metadata surface as many kinds
        raise _unreadable(path, error) from None


def is_image(group: zarr.Group) -> bool:
    """Whether a group has the metadata of an OME-Zarr image."""
    attrs = group.attrs.asdict()
    ome = attrs.get("ome")
    return "multiscales" in attrs or (isinstance(ome, Mapping) and "multiscales" in ome)


def parse_multiscale(attrs: Mapping[str, Any], where: str) -> Multiscale:
    """Read the multiscales metadata of version 0.4 or 0.5.

    Raises
    ------
    VolsamError
        If they are of another version, incomplete, or order the axes as the specification forbids.
    """
    ome = attrs.get("ome")
    source: Mapping[str, Any] = ome if isinstance(ome, Mapping) else attrs
    try:
        first = source["multiscales"][0]
        version = str(source.get("version", first.get("version", "0.4")))
        if version not in VERSIONS:
            raise VolsamError(
                f"{where} is OME-Zarr {version}; versions 0.4 and 0.5 are read, convert it, or "
                f"name the array with key and its order with axes."
            )
        axes, units = _parse_axes(first["axes"], where)
        common = first.get("coordinateTransformations", ())
        paths, scales, translations = [], [], []
        for dataset in first["datasets"]:
            scale = [1.0] * len(axes)
            shift = [0.0] * len(axes)
            for step in (*dataset.get("coordinateTransformations", ()), *common):
                if step["type"] == "scale":
                    scale = [s * float(v) for s, v in zip(scale, step["scale"], strict=True)]
                    shift = [s * float(v) for s, v in zip(shift, step["scale"], strict=True)]
                elif step["type"] == "translation":
                    shift = [s + float(v) for s, v in zip(shift, step["translation"], strict=True)]
            if not all(math.isfinite(v) and v > 0 for v in scale):
                raise ValueError("scale is not positive")
            paths.append(str(dataset["path"]))
            scales.append(tuple(scale))
            translations.append(tuple(shift))
        if not paths:
            raise ValueError("no datasets")
        channels = source.get("omero", attrs.get("omero", {})).get("channels", ())
        names = tuple(str(c.get("label", i)) for i, c in enumerate(channels))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise VolsamError(
            f"The multiscales metadata of {where} are incomplete or malformed "
            f"({type(error).__name__}: {error}); mend them or name the array with key."
        ) from None
    return Multiscale(version, axes, units, tuple(paths), tuple(scales), tuple(translations), names)


def _parse_axes(axes: Sequence[Any], where: str) -> tuple[str, tuple[str | None, ...]]:
    """Letters and units; refuses what the specification does."""
    if not all(isinstance(a, Mapping) for a in axes):
        raise ValueError("axes are no objects")
    letters = [str(a["name"]).lower() for a in axes]
    shown = "".join(letters) if all(len(a) == 1 for a in letters) else ", ".join(letters)
    hint = "name the array with key and its order with axes to read it as a plain Zarr array"
    if set(letters) - set(_TYPES) or len(set(letters)) != len(letters):
        raise VolsamError(
            f"The axes of {where}, {shown}, are not all of t, c, z, y, x, each once; {hint}."
        )
    types = [str(a.get("type") or _TYPES[n]) for a, n in zip(axes, letters, strict=True)]
    if any(kind != _TYPES[n] for kind, n in zip(types, letters, strict=True)):
        raise VolsamError(
            f"The axes of {where} have types {', '.join(types)}, which do not fit their names "
            f"{shown}; {hint}."
        )
    ranks = [_RANK[kind] for kind in types]
    if ranks != sorted(ranks) or not {"y", "x"} <= set(letters):
        raise VolsamError(
            f"The order of the axes of {where}, {shown}, is outside the OME-Zarr specification "
            f"(time, then channel, then z, y, x); {hint}."
        )
    units = tuple(None if a.get("unit") is None else unit_name(str(a["unit"])) for a in axes)
    return "".join(letters), units


def _time(image: Multiscale, level: int) -> TimeAxis:
    if "t" not in image.axes:
        return TimeAxis()
    place = image.axes.index("t")
    return TimeAxis(image.scales[level][place], image.units[place])


def _open_level(
    group: zarr.Group, image: Multiscale, where: str, key: str | None, level: int
) -> Stored:
    import zarr

    if not 0 <= level < len(image.paths):
        raise VolsamError(
            f"Level {level} of {where} does not exist; it has {len(image.paths)}, counted from 0."
        )
    arrays: list[zarr.Array] = []
    for path in image.paths[level:]:
        try:
            array = group[path]
            if not isinstance(array, zarr.Array):
                raise ValueError("it is a group")
            if len(array.shape) != len(image.axes):
                raise ValueError(
                    f"it has {len(array.shape)} axes but the metadata name {len(image.axes)}"
                )
            arrays.append(array)
        except Exception as error:
            raise VolsamError(
                f"Level {path!r} of {where} cannot be opened ({type(error).__name__}: {error}); "
                f"copy the image again from its source."
            ) from None
    axes = Axes(image.axes, arrays[0].shape)
    scale = axes.spatial(image.scales[level], 1.0)
    units = [u for u in axes.spatial(image.units, None) if u is not None]
    warnings: list[str] = []
    if len(set(units)) > 1:
        warnings.append(
            f"The axes of {where} have different units ({', '.join(units)}); {units[-1]} is used."
        )
    # Without a unit, a scale that is only the downsampling says nothing of the voxel size.
    placeholder = not units and set(axes.spatial(image.scales[0], 1.0)) == {1.0}
    metadata = Metadata(
        voxel_size=None if placeholder else scale,
        unit=units[-1] if units else None,
        translation=axes.spatial(image.translations[level], 0.0),
        channel_names=image.channel_names,
        time=_time(image, level),
    )
    base = image.scales[level]
    return Stored(
        arrays[0],
        f"ome-zarr-{image.version}",
        key,
        axes=image.axes,
        strict_axes=True,
        chunks=_chunks(arrays[0]),
        metadata=metadata,
        scale=_scale(group, image, arrays[0].shape, level),
        coarser=tuple(
            tuple(
                _factor(*values) for values in zip(arrays[0].shape, a.shape, base, s, strict=True)
            )
            for a, s in zip(arrays[1:], image.scales[level + 1 :], strict=True)
        ),
        warnings=tuple(warnings),
    )


def _scale(
    group: zarr.Group, image: Multiscale, shape: Sequence[int], level: int
) -> tuple[float, ...]:
    """Downsampling of a level relative to level 0; by the scales alone where level 0 was left out."""
    if level == 0:
        return ()
    finest: Any = group.get(image.paths[0])
    scales = image.scales[0], image.scales[level]
    if finest is None:
        return tuple(coarse / fine for fine, coarse in zip(*scales, strict=True))
    return tuple(_factor(*v) for v in zip(finest.shape, shape, *scales, strict=True))


def _factor(n: int, m: int, fine: float, coarse: float) -> float:
    """Downsampling by the scales; by the shapes, which odd sizes blur, where those contradict."""
    factor = coarse / fine
    return factor if abs(n / factor - m) <= 1 else n / m


def _chunks(array: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in array.chunks)


def _images(group: zarr.Group) -> list[str]:
    """Names of child images (bioformats2raw puts each series in a numbered group)."""
    return sorted(name for name, child in group.groups() if is_image(child))


def _children(node: Any) -> str:
    from volsam.volume.read_hdf5 import candidates

    if not hasattr(node, "members"):
        return "one array at its root"
    return candidates([name for name, _ in node.members(max_depth=2)])


def _unreadable(path: Path, error: Exception) -> VolsamError:
    for name in ("zarr.json", ".zattrs", ".zgroup", ".zarray"):
        try:
            json.loads((path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            return VolsamError(
                f"The Zarr metadata {path / name} are torn or unreadable; copy them again from "
                f"the source."
            )
    text = " ".join(str(error).split()).rstrip(".")
    return VolsamError(
        f"{path} cannot be opened as Zarr ({type(error).__name__}: {text[:160]}); "
        f"copy it again from its source."
    )
