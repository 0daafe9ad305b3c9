"""The lineage as a table, one row per object, for the stages that come after linking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from volsam.track.lineage import Lineage, Objects

_OWN = ("id", "frame", "z", "y", "x", "size", "track", "parent")


def lineage_table(lineage: Lineage) -> pa.Table:
    """Table of a lineage.

    Returns
    -------
    pyarrow.Table
        id, frame, centroid (z, y, x in units of length), size, track and the track's parent (0 if none)
        of each object, and what else was measured, if it is one number per object.
    """
    objects = lineage.objects
    columns = {
        "id": objects.id,
        "frame": objects.frame,
        **{axis: objects.position[:, n] for n, axis in enumerate("zyx")},
        "size": objects.size,
        "track": lineage.track,
        "parent": lineage.parent[lineage.track - 1],
    }
    for name, values in objects.values.items():
        if values.ndim == 1 and name not in _OWN:
            columns[name] = values
    return pa.table(columns)


def read_lineage(path: Path) -> Lineage:
    """The lineage of a table of `lineage_table`."""
    table = pq.read_table(path)
    column = {name: table[name].to_numpy() for name in table.column_names}
    objects = Objects(
        column["id"],
        column["frame"],
        np.stack([column[axis] for axis in "zyx"], axis=1),
        column["size"],
        {name: values for name, values in column.items() if name not in _OWN},
    )
    track = column["track"]
    parent = np.zeros(int(track.max(initial=0)), np.int64)
    parent[track - 1] = column["parent"]
    return Lineage(objects, track, parent)
