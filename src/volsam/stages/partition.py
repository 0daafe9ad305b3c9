"""Partition: the fragment graph becomes objects.

One block: the graph is a table of a few bytes per fragment and edge, solved on one worker by connected
components and multicut; see `stitch.partition`. What it leaves is a look-up table, fragment to object.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from volsam.blocks.stage import Attempt, Block, Job, Stage
from volsam.paths import replace
from volsam.stages.fragments import save_array
from volsam.stages.runplan import RunPlan
from volsam.stages.tabled import table_files
from volsam.stitch.costs import StitchParameters
from volsam.stitch.dips import are_bright
from volsam.stitch.graph import Edges, Fragments
from volsam.stitch.partition import Partition, partition


class PartitionStage(Stage[Partition]):
    """Stage `partition`."""

    name = "partition"
    upstream: tuple[str, ...] = ("overlap",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.plan = RunPlan.of(job)

    @property
    def parameters(self) -> StitchParameters:
        """Thresholds and filters."""
        stitch, objects = self.config.stitch, self.config.objects
        return StitchParameters(
            **stitch.model_dump(),
            min_size=objects.min_size,
            max_size=objects.max_size or 0,
        )

    def reset(self) -> None:
        self.paths.lookup.unlink(missing_ok=True)

    def graph(self) -> tuple[Fragments, Edges]:
        """Fragments, and which of them cover each other."""
        counts = np.diff(np.load(self.paths.offsets)).astype(np.int64)
        columns = ["size", "signal", "background"]
        table = pq.read_table(self.paths.fragment_table, columns=columns)
        size, signal, background = (table[name].to_numpy() for name in columns)
        bright = are_bright(signal, background, size)
        shape = (self.plan.shape[0], *self.plan.grid.counts)
        fragments = Fragments.from_counts(
            counts.reshape(shape), size, signal if bright else None, depth=self.plan.depth
        )
        files = table_files(self.paths, "overlap")
        return fragments, Edges.from_parquet(files, len(fragments))

    def compute(self, block: Block, attempt: Attempt) -> Partition:
        return partition(*self.graph(), self.parameters)

    def write(self, block: Block, result: Partition) -> dict[str, Any]:
        replace(self.paths.lookup, lambda partial: save_array(partial, result.objects))
        seams = asdict(result.statistics)
        plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in seams.items()}
        return {"objects": seams["objects"], "bytes": int(result.objects.nbytes), "seams": plain}

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        (record,) = records
        lookup = np.load(self.paths.lookup, mmap_mode="r")
        return {
            "objects": record["objects"],
            "fragments": len(lookup),
            "statistics": record["seams"],
        }
