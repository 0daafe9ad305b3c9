"""Observe: what linking has to know of the frames of a sequence.

A block is a run of frames. Of each frame it leaves a row per object (shape, brightness, and how far
the image says that it moves until the next frame) and the overlaps of its objects, so moved, with those
of the next frames. It also reads the frames that follow its run, as far as a gap may reach.

Invariants
----------
- A frame is looked at as a whole, at the finest resolution at which it has no more than `LARGEST`
  voxels: memory is bounded by that, not by the frame. Centroids and sizes are those of the table of
  objects, which are exact.
- Rows depend on the frames only, not on the run they are looked at in.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from volsam.blocks.stage import Attempt, Block, Job, Stage
from volsam.geometry import Box
from volsam.paths import replace, sweep
from volsam.stages.label import NAME, written_labels
from volsam.stages.runplan import RunPlan
from volsam.track.measure import measure, overlaps
from volsam.track.motion import flow
from volsam.volume.checks import check_finite
from volsam.volume.labels import open_level
from volsam.volume.source import Volume, open_volume

RUN = 8  # frames of a block
LARGEST = 1 << 26  # voxels of a frame that are held at once


class Frame(NamedTuple):
    """A frame at the resolution of observation.

    Attributes
    ----------
    labels : unsigned (z, y, x)
        Numbers from 1 in the order of `ids`, 0 is background.
    ids : (n,) uint64
        Objects, sorted.
    image : (z, y, x) or None
    """

    labels: npt.NDArray[np.uint32]
    ids: npt.NDArray[np.uint64]
    image: npt.NDArray[Any] | None


class Observations(NamedTuple):
    """Rows of the objects of a run of frames, and their overlaps with later frames."""

    objects: pa.Table
    overlaps: pa.Table


class Observe(Stage[Observations]):
    """Stage `observe`."""

    name = "observe"
    upstream: tuple[str, ...] = ("measure",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.plan = RunPlan.of(job)
        self.store = written_labels(job)
        self.folder = self.paths.tables(self.name)

    @cached_property
    def level(self) -> int:
        """Resolution level at which frames are looked at."""
        plane = self.plan.depth * math.prod(self.plan.shape[1:])
        sizes = [plane // math.prod(factor) for factor in ((1, 1, 1), *self.plan.factors)]
        return next((n for n, size in enumerate(sizes) if size <= LARGEST), len(sizes) - 1)

    @property
    def factor(self) -> tuple[int, int, int]:
        """Downsampling of that level."""
        return ((1, 1, 1), *self.plan.factors)[self.level]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Edge lengths of its voxels, zyx."""
        z, y, x = (s * f for s, f in zip(self.plan.voxel_size, self.factor, strict=True))
        return z, y, x

    @cached_property
    def image(self) -> Volume | None:
        """The image at that level; none where it has no such level."""
        arguments = dict(self.plan.image)
        if self.level:
            arguments |= {"level": (arguments["level"] or 0) + self.level, "voxel_size": None}
            if self.factor not in open_volume(**self.plan.image).info.factors:
                return None
        return open_volume(**arguments)

    @property
    def frames(self) -> range:
        """Frames of the region."""
        start, stop = self.plan.region[0][0], self.plan.region[1][0]
        return range(start // self.plan.depth, stop // self.plan.depth)

    def blocks(self) -> Iterator[Block]:
        frames = self.frames
        for number, start in enumerate(range(frames.start, frames.stop, RUN)):
            yield Block((number,), Box((start,), (min(start + RUN, frames.stop),)))

    def reset(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def sweep(self) -> None:
        sweep(self.folder)

    def compute(self, block: Block, attempt: Attempt) -> Observations:
        reach = self.config.track.max_gap + 1
        start, stop = block.box.start[0], block.box.stop[0]
        held: dict[int, Frame] = {}
        rows, pairs = [], []
        for number in range(start, stop):
            held.pop(number - 1, None)
            for later in range(number, min(number + reach, self.frames.stop - 1) + 1):
                if later not in held:
                    held[later] = self._frame(later)
            table, motion = self._observe(number, held[number], held.get(number + 1))
            rows.append(table)
            for gap in range(1, reach + 1):
                if number + gap in held:
                    pairs.append(self._overlaps(held[number], held[number + gap], gap * motion))
        return Observations(pa.concat_tables(rows), pa.concat_tables(pairs or [_pairs()]))

    def _frame(self, number: int) -> Frame:
        depth = self.plan.depth
        stored = open_level(self.store, NAME, self.level, "r")
        (_, y0, x0), (_, y1, x1) = self.plan.region
        _, fy, fx = self.factor
        start = (number * depth, y0 // fy, x0 // fx)
        stop = ((number + 1) * depth, -(-y1 // fy), -(-x1 // fx))
        box = Box(start, stop).intersect(Box.of(stored.shape))
        objects = np.asarray(stored[box.slices])
        ids, inverse = np.unique(objects, return_inverse=True)
        labels = np.asarray(inverse, np.uint32).reshape(objects.shape)
        if ids[0]:  # no background
            labels += np.uint32(1)
        image = None
        if self.image is not None:
            image = self.image.read(box)
            check_finite(image, box.start, self.image.info.path)
        return Frame(labels, ids[ids > 0].astype(np.uint64), image)

    def _observe(
        self, number: int, frame: Frame, later: Frame | None
    ) -> tuple[pa.Table, npt.NDArray[np.float64]]:
        """Rows of a frame's objects, and their motion until the next frame, (n, 3)."""
        values = measure(frame.labels, self.spacing, frame.image)
        position = values.pop("position")
        motion = np.zeros_like(position)
        if frame.image is not None and later is not None and later.image is not None:
            motion = flow(frame.image, later.image, self.spacing).at(position)
        values.pop("label")
        values.pop("size")
        columns = {"id": frame.ids, **values}
        columns |= {f"motion_{axis}": motion[:, n] for n, axis in enumerate("zyx")}
        return pa.table(columns), motion

    def _overlaps(self, frame: Frame, later: Frame, motion: npt.NDArray[np.float64]) -> pa.Table:
        shift = np.rint(motion / self.spacing).astype(np.int64)
        source, target, voxels = overlaps(frame.labels, later.labels, shift)
        kept = (source > 0) & (target > 0)
        source, target = source[kept].astype(np.int64), target[kept].astype(np.int64)
        planar = self.plan.depth == 1
        unit = math.prod(self.spacing[1:] if planar else self.spacing)
        return _pairs(frame.ids[source - 1], later.ids[target - 1], voxels[kept] * unit)

    def write(self, block: Block, result: Observations) -> dict[str, Any]:
        name = block.id.replace(":", "_")
        for kind, table in result._asdict().items():
            path = self.folder / f"{kind}-{name}.parquet"
            replace(path, lambda partial, table=table: pq.write_table(table, partial))  # type: ignore[misc]
        return {"objects": result.objects.num_rows, "overlaps": result.overlaps.num_rows}

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        counts = list(records)
        return {
            "objects": sum(record["objects"] for record in counts),
            "overlaps": sum(record["overlaps"] for record in counts),
            "level": self.level,
        }


def _pairs(*columns: npt.NDArray[Any]) -> pa.Table:
    kinds = {"source": np.uint64, "target": np.uint64, "size": np.float64}
    given = columns or ((),) * 3
    return pa.table({n: np.asarray(c, k) for (n, k), c in zip(kinds.items(), given, strict=True)})
