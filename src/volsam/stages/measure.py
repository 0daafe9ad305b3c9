"""Measure: the table of objects, from the labels and the image.

A block is one shard of the labels; it leaves sums per object, which add up over blocks. Integer sums
make the table independent of how the volume was cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from volsam.blocks.stage import Attempt, Block, Job
from volsam.paths import replace
from volsam.stages.label import NAME, written_labels
from volsam.stages.objects import add_up, finish, measure_block
from volsam.stages.tabled import TabledStage, read_file, table_files
from volsam.volume.labels import open_level
from volsam.volume.pyramid import plan_level
from volsam.volume.source import Volume, open_volume

ROWS = 1 << 18  # of the table of objects, made and written at a time


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
        files = table_files(self.paths, self.name)
        summed = add_up((read_file(path) for path in files), id_range(files))

        def part(start: int) -> pa.Table:
            rows = summed.slice(start, ROWS)
            return finish(rows, self.plan.voxel_size, self.plan.unit, names, depth)

        def write(partial: Path) -> None:
            with pq.ParquetWriter(partial, part(0).schema) as writer:
                for start in range(0, summed.num_rows or 1, ROWS):
                    writer.write_table(part(start))

        replace(self.paths.objects, write)
        return {"table": self.paths.objects.name, "objects": summed.num_rows}


def id_range(files: Iterable[Path]) -> range:
    """From the first to the last id in some tables, by what Parquet says of their first column."""
    first, last = [], []
    for path in files:
        known = pq.read_metadata(path)
        for group in range(known.num_row_groups):
            column = known.row_group(group).column(0).statistics
            if column is not None and column.has_min_max:
                first.append(column.min)
                last.append(column.max)
    return range(min(first, default=1), max(last, default=0) + 1)
