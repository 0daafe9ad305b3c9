"""GEFF: the graph exchange format of trackers, read and written with its official package.

A node is an object under its own id, with properties ``t``, ``z`` (where there is depth), ``y``, ``x``,
``size``, ``track``, ``family`` and whatever else was measured; an edge is a link. Source: the GEFF
specification, liveimagetrackingtools.org/geff.

Invariants
----------
- Positions are in voxels and frames, with the scale that makes units of them, so that they lie on the
  label image beside them whether or not a reader heeds the scale.
- Zarr format 2, for the readers in Fiji know no other.
- ``track`` is a tracklet and ``family`` a lineage as GEFF defines them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volsam.errors import VolsamError
from volsam.exchange.folder import replace_folder
from volsam.exchange.tracks_table import has_depth
from volsam.track.lineage import Lineage, Objects
from volsam.volume.store import OURS, mark

_SPACE = ("z", "y", "x")
_OWN = ("t", *_SPACE, "size", "track", "family")


def write_geff(
    folder: str | Path,
    lineage: Lineage,
    *,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    unit: str | None = None,
    interval: float | None = None,
    time_unit: str | None = None,
    labels: str | None = None,
    label_property: str = "track",
    image: str | None = None,
    provenance: dict[str, Any] | None = None,
) -> None:
    """Write a lineage; the folder appears when it is complete and valid.

    Parameters
    ----------
    folder : path
        Usually ``*.geff``. Replaced if it was written by this function.
    lineage : Lineage
        Positions in `unit`.
    spacing : (3,) floats
        Edge lengths of a voxel, zyx, in `unit`.
    unit, time_unit : str, optional
        As in OME-Zarr: ``micrometer``, ``second``. Without them positions are voxels and frames only.
    interval : float, optional
        Time between frames in `time_unit`.
    labels : str, optional
        Label image, relative to `folder`.
    label_property : {"track", "id"}
        What its labels are.
    image : str, optional
        Image, relative to `folder`.
    provenance : dict, optional
        What the lineage was made from.

    Raises
    ------
    VolsamError
        If the package is missing or the folder is not ours.
    """
    geff, spec = _package("write")
    objects = lineage.objects
    space = _SPACE if has_depth(objects) else _SPACE[1:]
    voxels = objects.position / np.asarray(spacing, np.float64)
    properties: dict[str, npt.NDArray[Any]] = {
        "t": objects.frame,
        **{name: voxels[:, _SPACE.index(name)] for name in space},
        "size": objects.size,
        "track": lineage.track,
        "family": lineage.family()[lineage.track - 1],
        **({"id": objects.id} if labels and label_property == "id" else {}),
        **{name: value for name, value in objects.values.items() if name not in _OWN},
    }
    timed = {"scale": interval, "scaled_unit": time_unit} if interval and time_unit else {}
    axes = [spec.Axis(name="t", type="time", unit="frame", **timed)]
    for name in space:
        sized = {"scale": float(spacing[_SPACE.index(name)]), "scaled_unit": unit} if unit else {}
        axes.append(spec.Axis(name=name, type="space", unit="pixel", **sized))
    related = []
    if labels:
        related.append(spec.RelatedObject(type="labels", path=labels, label_prop=label_property))
    if image:
        related.append(spec.RelatedObject(type="image", path=image))
    metadata = spec.GeffMetadata(
        directed=True,
        axes=axes,
        node_props_metadata={},
        edge_props_metadata={},
        track_node_props={"tracklet": "track", "lineage": "family"},
        related_objects=related or None,
        display_hints={
            "display_horizontal": "x",
            "display_vertical": "y",
            "display_depth": "z" if "z" in space else None,
            "display_time": "t",
        },
        extra=mark(provenance),
    )

    def write(partial: Path) -> None:
        partial.rmdir()  # the package takes any folder for a graph that is there already
        nodes = {name: {"values": value, "missing": None} for name, value in properties.items()}
        geff.core_io.write_arrays(
            partial, objects.id, nodes, lineage.links(), {}, metadata, zarr_format=2
        )

    replace_folder(Path(folder), write, is_geff)


def read_geff(folder: str | Path) -> Lineage:
    """Read a lineage, of any program.

    Positions are in the unit of the scale, if there is one. Size is 1 where there is no property
    ``size``. Nodes that count from 0 become objects that count from 1.

    Raises
    ------
    VolsamError
        If it is no valid GEFF, has no axes of time and space, or is not a lineage (merging tracks).
    """
    geff, _ = _package("read")
    if not Path(folder).is_dir():
        raise VolsamError(f"{folder} does not exist; give the folder of a GEFF.")
    try:
        graph = geff.core_io.read_to_memory(folder)
    except Exception as error:  # pydantic, zarr, ValueError, KeyError …: all say what is wrong
        reason = " ".join(str(error).split())[:200]
        raise VolsamError(f"{folder} is no valid GEFF ({reason}); export it again.") from error
    metadata, values = graph["metadata"], {}
    for name, prop in graph["node_props"].items():
        if prop["missing"] is None or not prop["missing"].any():
            values[name] = prop["values"]
    if not metadata.directed:
        raise VolsamError(f"{folder} does not say which way links go; export a directed graph.")
    axes = metadata.axes or []
    time = [axis for axis in axes if axis.type == "time"]
    space = [axis for axis in axes if axis.type == "space"]
    if len(time) != 1 or not 2 <= len(space) <= 3:
        raise VolsamError(f"{folder} needs one axis of time and two or three of space.")
    frame = values[time[0].name]
    if (frame != np.round(frame)).any() or (frame < 0).any():
        raise VolsamError(f"{folder} has times that are no frames from 0; export it in frames.")
    named = [axis for name in _SPACE for axis in space if axis.name == name]
    used = named if len(named) == len(space) else space
    position = np.zeros((len(frame), 3))
    for column, axis in enumerate(used, start=3 - len(space)):
        position[:, column] = values[axis.name] * (axis.scale or 1.0) + (axis.offset or 0.0)
    ids, links = graph["node_ids"].astype(np.uint64), graph["edge_ids"].astype(np.uint64)
    if len(ids) and ids.min() == 0:
        ids, links = ids + np.uint64(1), links + np.uint64(1)
    size = values.get("size", np.ones(len(ids)))
    kept = {axis.name for axis in axes} | set(_OWN) | {"id"}
    more = {name: value for name, value in values.items() if name not in kept}
    return Lineage.of(Objects.sort(ids, frame, position, size, more), links)


def is_geff(folder: Path) -> bool:
    """Whether a folder holds what `write_geff` writes."""
    import zarr

    try:
        attributes: Any = zarr.open_group(folder, mode="r").attrs["geff"]
        return OURS in attributes["extra"]
    except Exception:  # no group, or one of something else
        return not any(folder.iterdir())


def _package(action: str) -> tuple[Any, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import geff.core_io
            import geff_spec
    except ImportError as error:
        raise VolsamError(
            f"GEFF needs the package geff to {action} it; install it with: pip install 'volsam[track]'."
        ) from error
    return geff, geff_spec
