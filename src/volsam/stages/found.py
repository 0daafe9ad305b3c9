"""Objects as they were found, before any correction: of fragments, or of labels that are there.

Gaps of up to `stitch.max_gap` slices between voxels of one object are filled where nothing else is. Any
box may be asked for; no voxel depends on which.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from volsam.geometry import Box
from volsam.paths import SamplePaths
from volsam.stages.fragments import FragmentStore
from volsam.stages.number import numbered, segmentation
from volsam.stages.runplan import RunPlan
from volsam.volume.source import Volume

Objects = npt.NDArray[np.uint64]


def finder(plan: RunPlan) -> str:
    """Stage that found the objects; `label` writes what it found."""
    return "partition" if plan.segmentation is None else "number"


class FoundObjects:
    """Objects of a sample, by boxes of the volume.

    Parameters
    ----------
    paths : SamplePaths
    plan : RunPlan
    max_gap : int
        Slices that may be missing in an object.
    """

    def __init__(self, paths: SamplePaths, plan: RunPlan, max_gap: int) -> None:
        self.paths, self.plan = paths, plan
        self.gap = 0 if plan.segmentation is not None else min(max_gap, plan.depth - 1)

    def read(self, box: Box) -> Objects:
        """Objects of a box, numbered from 1; (z, y, x) uint64."""
        wide = box.grow((self.gap, 0, 0), Box.of(self.plan.shape))
        labels = np.zeros(wide.shape, np.uint64)
        inside = wide.intersect(self.plan.region_box)
        if inside.size:
            read = self._of_fragments if self.plan.segmentation is None else self._of_labels
            labels[inside.relative_to(wide).slices] = read(inside)
        return fill_gaps(labels, self.gap)[box.relative_to(wide).slices]

    @cached_property
    def _volume(self) -> Volume:
        return segmentation(self.plan)

    @cached_property
    def _table(self) -> Objects:
        """What numbers are looked up in: of labels, or of fragments."""
        path = self.paths.lookup if self.plan.segmentation is None else self.paths.numbers
        table: Objects = np.load(path, mmap_mode="r")
        return table

    def _of_labels(self, box: Box) -> Objects:
        return numbered(self._volume, self._table, self.plan.depth, box)

    def _of_fragments(self, box: Box) -> Objects:
        """From the inner boxes of the tiles."""
        grid, store = self.plan.grid, FragmentStore(self.paths, self.plan)
        offsets = store.offsets()
        objects = np.zeros(box.shape, np.uint64)
        (z0, y0, x0), (z1, y1, x1) = box.start, box.stop
        for row in range(y0 // grid.tile, -(-y1 // grid.tile)):
            for column in range(x0 // grid.tile, -(-x1 // grid.tile)):
                tile = grid.index(row, column)
                part = grid.inner(tile).intersect(Box((y0, x0), (y1, x1)))
                rows, columns = part.relative_to(grid.outer(tile)).slices
                place: tuple[Any, ...] = part.relative_to(Box((y0, x0), (y1, x1))).slices
                chunk = store.read(Box((z0, row, column), (z1, row + 1, column + 1)))[:, 0, 0]
                for z in range(z0, z1):
                    local = chunk[z - z0, rows, columns]
                    first, last = (int(offsets[z * len(grid) + tile + k]) for k in (0, 1))
                    table = np.concatenate([np.zeros(1, np.uint64), self._table[first:last]])
                    objects[z - z0][place] = table[local]
        return objects


def fill_gaps(labels: Objects, gap: int) -> Objects:
    """Give up to `gap` empty slices between two voxels of one object to it; (z, y, x)."""
    filled = labels.copy()
    for distance in range(2, gap + 2):
        for z in range(len(labels) - distance):
            # One object in slices z and z + distance, nothing in between: the gap is its.
            between = labels[z + 1 : z + distance]
            bridge = (labels[z] == labels[z + distance]) & ~between.any(axis=0)
            np.copyto(filled[z + 1 : z + distance], labels[z], where=bridge)
    return filled
