"""Tracks as a table: ``tracks.csv``, which fits napari's tracks layer.

A row is an object: ``track_id, t, z, y, x, parent, id, size``, sorted by track and time, as the layer
wants it; ``z`` is left out where all objects lie in one plane. Positions are in units of length, t is the
frame. ``parent`` is the track that divided, 0 if none. To look at it::

    data, graph = read_tracks_csv("tracks.csv")
    viewer.add_tracks(data, graph=graph)

Invariants
----------
- Table and lineage are the same graph: a row links to the next of its track, the last of a track to the
  first of its children.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from volsam.errors import VolsamError
from volsam.paths import replace
from volsam.track.lineage import Floats, Lineage, Objects

if TYPE_CHECKING:
    import pyarrow as pa

_WHOLE = ("track_id", "t", "parent")
_NEEDED = (*_WHOLE, "y", "x", "id", "size")


def write_tracks_csv(path: str | Path, lineage: Lineage) -> None:
    """Write the table; the file appears when it is complete."""
    import pyarrow as pa
    from pyarrow import csv

    objects, order = lineage.objects, np.argsort(lineage.track, kind="stable")
    z, y, x = objects.position[order].T
    track = lineage.track[order]
    columns: dict[str, npt.NDArray[Any]] = {
        "track_id": track,
        "t": objects.frame[order],
        **({"z": z} if has_depth(objects) else {}),
        "y": y,
        "x": x,
        "parent": lineage.parent[track - 1],
        "id": objects.id[order],
        "size": objects.size[order],
    }
    options = csv.WriteOptions(quoting_style="none")
    replace(Path(path), lambda partial: csv.write_csv(pa.table(columns), partial, options))


def read_tracks_csv(path: str | Path) -> tuple[Floats, dict[int, list[int]]]:
    """What napari's tracks layer takes.

    Returns
    -------
    data : (n, 4 or 5) float64
        Track, t, (z,) y, x.
    graph : dict
        Parents of each track that came out of a division.

    Raises
    ------
    VolsamError
        If the file is not such a table.
    """
    table = _read(Path(path))
    names = ["track_id", "t", *(["z"] if "z" in table.column_names else []), "y", "x"]
    data = np.stack([_column(table, name).astype(np.float64) for name in names], axis=1)
    track, parent = _column(table, "track_id"), _column(table, "parent")
    born, first = np.unique(track, return_index=True)
    graph = {int(t): [int(p)] for t, p in zip(born, parent[first], strict=True) if p}
    return data, graph


def tracks_layer(lineage: Lineage) -> tuple[Floats, dict[int, list[int]]]:
    """What napari's tracks layer takes: as `read_tracks_csv`, without a file."""
    objects, order = lineage.objects, np.argsort(lineage.track, kind="stable")
    position = objects.position[order, 0 if has_depth(objects) else 1 :]
    data = np.column_stack([lineage.track[order], objects.frame[order], position])
    graph = {n: [int(p)] for n, p in enumerate(lineage.parent, start=1) if p}
    return data, graph


def lineage_of_csv(path: str | Path) -> Lineage:
    """Lineage of a table.

    Raises
    ------
    VolsamError
        If the file is not such a table, or not a lineage.
    """
    table = _read(Path(path))
    columns = {name: _column(table, name) for name in _NEEDED}
    z = _column(table, "z") if "z" in table.column_names else np.zeros(table.num_rows)
    order = np.lexsort((columns["id"], columns["t"]))
    if (columns["id"] == 0).any() or len(np.unique(columns["id"])) < table.num_rows:
        raise VolsamError(f"{path} has an id twice or an id 0; give each object its own, from 1.")
    objects = Objects.sort(
        columns["id"],
        columns["t"],
        np.stack([z, columns["y"], columns["x"]], axis=1),
        columns["size"],
    )
    names, first = np.unique(columns["track_id"], return_index=True)
    return lineage_of_tracks(objects, columns["track_id"][order], names, columns["parent"][first])


def lineage_of_tracks(
    objects: Objects, track: npt.ArrayLike, names: npt.ArrayLike, parents: npt.ArrayLike
) -> Lineage:
    """Lineage from the track of each object and a table of tracks.

    Parameters
    ----------
    objects : Objects
    track : (objects,) int
        Track of each object.
    names, parents : (tracks,) int
        Tracks, and the parent of each, 0 for none.

    Returns
    -------
    Lineage
        Where a parent has one child, both are one track; a track without objects is nobody's parent.

    Raises
    ------
    VolsamError
        If a track has two objects in a frame, or begins before its parent has ended.
    """
    present, number = np.unique(np.asarray(track, np.int64), return_inverse=True)
    names, parents = np.asarray(names, np.int64), np.asarray(parents, np.int64)
    kept = np.isin(names, present)
    known = np.where(np.isin(parents, present), np.searchsorted(present, parents) + 1, 0)
    parent = np.zeros(len(present), np.int64)
    parent[np.searchsorted(present, names[kept])] = known[kept]
    return Lineage.of(objects, Lineage(objects, number + 1, parent).links())


def has_depth(objects: Objects) -> bool:
    """Whether objects lie anywhere but in the plane z = 0."""
    return bool(objects.position[:, 0].any())


def _read(path: Path) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    types = {name: pa.int64() for name in _WHOLE} | {"id": pa.uint64()}
    types |= {name: pa.float64() for name in ("z", "y", "x", "size")}
    try:
        table = csv.read_csv(path, convert_options=csv.ConvertOptions(column_types=types))
    except (OSError, pa.ArrowInvalid) as error:
        reason = " ".join(str(error).split())
        raise VolsamError(f"{path} is no table of tracks ({reason}); export it again.") from error
    for name in _NEEDED:
        if name not in table.column_names:
            raise VolsamError(f"{path} has no column {name}; export it again.")
        if table[name].null_count:
            raise VolsamError(f"{path} has an empty value in column {name}; export it again.")
    return table


def _column(table: pa.Table, name: str) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = table[name].to_numpy()
    return values
