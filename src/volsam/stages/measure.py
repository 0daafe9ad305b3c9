"""Measure: the table of objects, from the labels and the image.

A block is one shard of the labels; it leaves sums per object, which add up over blocks. Integer sums
make the table independent of how the volume was cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from volsam.blocks.stage import Attempt, Block, Job
from volsam.paths import replace
from volsam.stages.label import NAME, written_labels
from volsam.stages.objects import finish, measure_block
from volsam.stages.tabled import TabledStage, read_tables
from volsam.volume.labels import open_level
from volsam.volume.pyramid import plan_level
from volsam.volume.source import Volume, open_volume


class Measure(TabledStage[pa.Table]):
    """Stage `measure`."""

    name = "measure"
    upstream: tuple[str, ...] = ("label",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.store = written_labels(job)

    @cached_property
    def volume(self) -> Volume:
        """The image whose intensities are averaged."""
        return open_volume(**self.plan.image)

    def blocks(self) -> Iterator[Block]:
        labels = open_level(self.store, NAME, 0, "r")
        return (
            Block(index, box)
            for index, box in plan_level(labels)
            if box.intersect(self.plan.region_box).size
        )

    def compute(self, block: Block, attempt: Attempt) -> pa.Table:
        labels = np.asarray(open_level(self.store, NAME, 0, "r")[block.box.slices])
        channels = self.volume.read_channels(block.box)
        return measure_block(labels, channels, block.box.start)

    def write(self, block: Block, result: pa.Table) -> dict[str, Any]:
        self.write_table(block, result)
        return {"objects": result.num_rows}

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        names = self.volume.info.channel_names
        depth = None if self.plan.frames is None else self.plan.depth
        table = finish(
            read_tables(self.paths, self.name), self.plan.voxel_size, self.plan.unit, names, depth
        )
        replace(self.paths.objects, lambda partial: pq.write_table(table, partial))
        return {"table": self.paths.objects.name, "objects": table.num_rows}
