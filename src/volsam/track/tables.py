"""Tables of tracking: the lineage, one row per object, for the stages that come after linking; candidates
and what each gains, from those who look at frames to those who link windows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from volsam.track.candidates import Divisions, Links
from volsam.track.lineage import Lineage, Objects
from volsam.track.solve import Problem

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


def candidate_table(problem: Problem) -> pa.Table:
    """Table of candidates.

    Returns
    -------
    pyarrow.Table
        Rows of source and target, or of mother and daughters, and gain; ``second`` is -1 for links.
    """
    a, d = problem.links, problem.divisions
    return pa.table(
        {
            "source": np.append(a.source, d.mother),
            "target": np.append(a.target, d.first),
            "second": np.append(np.full(len(a), -1), d.second),
            "gain": problem.gain,
        }
    )


def read_candidates(path: Path) -> Problem:
    """The candidates of a table of `candidate_table`."""
    table = pq.read_table(path)
    source, target, second, gain = (table[name].to_numpy() for name in table.column_names)
    link, division = second < 0, second >= 0
    return Problem(
        Links(source[link], target[link]),
        gain[link],
        Divisions(source[division], target[division], second[division]),
        gain[division],
    )
