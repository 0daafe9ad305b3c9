"""Embeddings of objects as the network saw them: the mean over their fragments.

An object that a user cut out of another has none, nor has one of labels that were there already, of
stored predictions, or of tiles that are predicted as micro-sam does (`compat`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from volsam.paths import SamplePaths
from volsam.stages.fragments import FragmentStore
from volsam.stages.runplan import RunPlan
from volsam.stages.tabled import columns
from volsam.stitch.regroup import Regrouping
from volsam.track.lineage import find_rows

EMBEDDING = "embedding"


def object_embeddings(
    paths: SamplePaths,
    plan: RunPlan,
    slices: range,
    ids: npt.NDArray[np.uint64],
    regrouping: Regrouping | None = None,
) -> npt.NDArray[np.float32] | None:
    """Embeddings of the objects of some slices.

    Parameters
    ----------
    slices : range
        Of the volume; all in which the objects are.
    ids : (n,) uint64
        Objects, each once.
    regrouping : Regrouping, optional
        What became of the objects that were found.

    Returns
    -------
    (n, d) float32 or None
        NaN where an object has none; None if fragments have none.
    """
    import pyarrow.dataset as ds

    if plan.segmentation is not None:
        return None
    table = ds.dataset(paths.fragment_table)
    if EMBEDDING not in table.schema.names:
        return None
    within = (ds.field("z") >= slices.start) & (ds.field("z") < slices.stop)
    rows = columns(table.to_table(columns=["size", EMBEDDING], filter=within))
    offsets, tiles = FragmentStore(paths, plan).offsets(), len(plan.grid)
    first, last = (int(offsets[z * tiles]) for z in (slices.start, slices.stop))
    found = np.load(paths.lookup, mmap_mode="r")[first:last]
    if regrouping is not None:
        found = regrouping.of_whole(found)
    result = np.full((len(ids), rows[EMBEDDING].shape[1]), np.nan, np.float32)
    row, known = find_rows(ids, found)
    known &= found > 0
    row, weight = row[known], rows["size"][known].astype(np.float64)
    total = np.bincount(row, weight, len(ids))
    for n, values in enumerate(rows[EMBEDDING][known].T):
        with np.errstate(invalid="ignore"):
            result[:, n] = np.bincount(row, weight * values, len(ids)) / total
    return result
