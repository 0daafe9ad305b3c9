"""Number: the objects of a segmentation that is there already, instead of one of ours.

A block is a part of the label image and leaves the labels it saw in each frame. A label in a frame is an
object, whatever the same label means in other frames: ids of existing segmentations are not trusted to
be those of tracks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from volsam.blocks.stage import Attempt, Block, Job
from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.paths import replace
from volsam.stages.fragments import save_array
from volsam.stages.runplan import RunPlan
from volsam.stages.tabled import TabledStage, read_tables
from volsam.volume.frames import frames_of, split_frames
from volsam.volume.source import Volume, open_volume

BLOCK = (16, 1024, 1024)
Pairs = npt.NDArray[np.uint64]


class Number(TabledStage[Pairs]):
    """Stage `number`."""

    name = "number"
    upstream: tuple[str, ...] = ("plan",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        if self.plan.prompted:
            self.upstream = ("plan", "propagate")

    @cached_property
    def volume(self) -> Volume:
        """The labels; opened once by a worker, since a folder of TIFFs is read file by file."""
        return segmentation(self.plan)

    def blocks(self) -> Iterator[Block]:
        for index, box in split_frames(self.plan.shape, self.plan.depth, BLOCK):
            if box.intersect(self.plan.region_box).size:
                yield Block(index, box)

    def reset(self) -> None:
        self.paths.numbers.unlink(missing_ok=True)
        super().reset()

    def compute(self, block: Block, attempt: Attempt) -> Pairs:
        box = block.box.intersect(self.plan.region_box)
        labels = self.volume.read(box)
        if labels.dtype.kind == "i" and labels.min() < 0:
            raise VolsamError(
                f"{(self.plan.segmentation or {})['path']} holds negative labels; give object numbers "
                "from 0."
            )
        found = []
        for frame, slices in frames_of(box, self.plan.depth):
            ids = np.unique(labels[slices]).astype(np.uint64)
            ids = ids[ids > 0]
            found.append(np.stack([np.full_like(ids, frame), ids], axis=1))
        return np.concatenate(found)

    def write(self, block: Block, result: Pairs) -> dict[str, Any]:
        self.write_table(block, pa.table({"frame": result[:, 0], "label": result[:, 1]}))
        return {"labels": len(result)}

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        table = read_tables(self.paths, self.name)
        pairs = np.stack([table[name].to_numpy() for name in ("frame", "label")], axis=1)
        pairs = np.unique(pairs, axis=0)
        replace(self.paths.numbers, lambda partial: save_array(partial, pairs))
        return {"objects": len(pairs)}


def segmentation(plan: RunPlan) -> Volume:
    """The label image that stands in for a model."""
    assert plan.segmentation is not None
    return open_volume(**plan.segmentation)


def numbered(volume: Volume, pairs: Pairs, depth: int, box: Box) -> npt.NDArray[np.uint64]:
    """Objects of a box of labels: row + 1 in the sorted table of frames and labels."""
    labels = volume.read(box).astype(np.uint64)
    objects = np.zeros(labels.shape, np.uint64)
    for frame, slices in frames_of(box, depth):
        # As uint64: another type would have the whole table converted.
        low, high = np.searchsorted(pairs[:, 0], np.array([frame, frame + 1], np.uint64))
        place = low + np.searchsorted(pairs[low:high, 1], labels[slices])
        objects[slices] = np.where(labels[slices] > 0, place + 1, 0)
    return objects
