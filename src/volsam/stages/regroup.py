"""Regroup: objects that a user merged or split, which hold whenever objects are found again.

One block: the points of the table of corrections are looked up in the objects that were found, voxel by
voxel, and what follows from them is left as a small table (`stitch.regroup`), which `label` applies. The
stage is in the flow only where a table merges or splits something, and depends on those rows alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from volsam.blocks.stage import Attempt, Block, Job, Stage
from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.paths import SamplePaths, replace
from volsam.stages.found import FoundObjects, finder
from volsam.stages.runplan import RunPlan
from volsam.stages.tabled import columns
from volsam.stitch.regroup import Demand, Regrouping, Voxel, regroup
from volsam.track.correction_table import OF_OBJECTS, Place, read_rows


class Regroup(Stage[Regrouping]):
    """Stage `regroup`."""

    name = "regroup"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.plan = RunPlan.of(job)
        self.upstream = (finder(self.plan),)

    def reset(self) -> None:
        self.paths.regrouped.unlink(missing_ok=True)

    def compute(self, block: Block, attempt: Attempt) -> Regrouping:
        path = Path(self.sample.corrections or "")
        found = FoundObjects(self.paths, self.plan, self.config.stitch.max_gap)
        object_of: dict[Voxel, int] = {}
        demands = []
        for row in read_rows(path, OF_OBJECTS):
            name = f"Line {row.line} of {path}"
            voxels = []
            for place in (row.first, row.second):
                voxel = voxel_at(place, self.plan)
                box = Box(voxel, tuple(v + 1 for v in voxel)).intersect(Box.of(self.plan.shape))
                if voxel not in object_of:
                    object_of[voxel] = int(found.read(box).item()) if box.size else 0
                if not object_of[voxel]:
                    raise VolsamError(
                        f"{name} names a point {place}, where there is no object; remove the line or "
                        "move the point into one."
                    )
                voxels.append(voxel)
            demands.append(Demand(row.action == "merge", voxels[0], voxels[1], name))
        return regroup(demands, object_of, self.plan.voxel_size)

    def write(self, block: Block, result: Regrouping) -> dict[str, Any]:
        place = {axis: result.place[:, n] for n, axis in enumerate("zyx")}
        table = pa.table({"object": result.object, **place, "id": result.id})
        replace(self.paths.regrouped, lambda partial: pq.write_table(table, partial))
        return {"points": len(result.object), "more": result.more}

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        (record,) = records
        found: int = self.job.marker(self.upstream[0])["outputs"]["objects"]
        return {"objects": found + record["more"], "points": record["points"]}


def read_regrouping(paths: SamplePaths) -> Regrouping:
    """What the stage left."""
    table = pq.read_table(paths.regrouped)
    column = columns(table)
    place = np.stack([column[axis] for axis in "zyx"], axis=1)
    return Regrouping(column["object"], place, column["id"])


def voxel_at(place: Place, plan: RunPlan) -> Voxel:
    """Voxel of the stack of all frames in which a place lies; beyond the stack if it is in none."""
    z, y, x = place.voxel(plan.voxel_size)
    return (place.frame * plan.depth + z if 0 <= z < plan.depth else -1), y, x
