"""Observe: what linking has to know of the frames of a sequence.

A block is a run of frames. Of each frame it leaves a row per object (shape, brightness, its embedding if
a network found it, and how far the image says that it moves until the next frame) and the overlaps of its
objects, so moved, with those of the next frames. It also reads the frames that follow its run, as far as
a gap may reach. Where the configuration names a model of association, its scores of pairs of objects
come with them, for which the frames of all windows that hold a frame of the run and the next are read.

Invariants
----------
- A frame is looked at as a whole, at the finest resolution at which it has no more than `LARGEST`
  voxels: memory is bounded by that, not by the frame. Centroids and sizes are those of the table of
  objects, which are exact.
- Rows depend on the frames only, not on the run they are looked at in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from volsam.blocks.stage import Attempt, Block, Job
from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.stages.embedded import EMBEDDING, object_embeddings
from volsam.stages.found import finder
from volsam.stages.label import NAME, written_labels
from volsam.stages.regroup import read_regrouping
from volsam.stages.tabled import TabledStage, vectors
from volsam.track import trackastra_model
from volsam.track.associate import Descriptions, associate
from volsam.track.correction_table import corrects_objects
from volsam.track.observe import Frame, observe_run
from volsam.volume.checks import check_finite
from volsam.volume.labels import open_level
from volsam.volume.source import Volume, open_volume

RUN = 8  # frames of a block
LARGEST = 1 << 26  # voxels of a frame that are held at once


class Observations(NamedTuple):
    """Rows of the objects of a run of frames, their overlaps with later frames, and a model's scores."""

    objects: pa.Table
    overlaps: pa.Table
    associations: pa.Table | None = None


class Observe(TabledStage[Observations]):
    """Stage `observe`."""

    name = "observe"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        # Embeddings are those of fragments, which may have been cleaned away.
        self.upstream = ("measure", finder(self.plan))
        self.store = written_labels(job)

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
            arguments["level"] = (arguments["level"] or 0) + self.level
            if self.factor not in open_volume(**self.plan.image).info.factors:
                return None
        return open_volume(**arguments)

    @property
    def frames(self) -> range:
        """Frames of the region."""
        start, stop = self.plan.region[0][0], self.plan.region[1][0]
        return range(start // self.plan.depth, stop // self.plan.depth)

    @property
    def folder_of_model(self) -> str | None:
        """Folder of the model that scores pairs; none where objects are followed from prompts."""
        return None if self.plan.prompted else self.config.track.associations

    def blocks(self) -> Iterator[Block]:
        if self.folder_of_model is not None:
            self._check_model(self.folder_of_model)
        frames = self.frames
        for number, start in enumerate(range(frames.start, frames.stop, RUN)):
            yield Block((number,), Box((start,), (min(start + RUN, frames.stop),)))

    def compute(self, block: Block, attempt: Attempt) -> Observations:
        run = range(block.box.start[0], block.box.stop[0])
        max_gap = self.config.track.max_gap
        read, scores = self._frame, None
        if self.folder_of_model is not None:
            model = trackastra_model.load(self.folder_of_model, self.plan.threads)
            described = Descriptions(self._frame, model)
            read = described.frame
        seen = observe_run(read, run, self.frames.stop, self.spacing, max_gap)
        if self.folder_of_model is not None:
            scores = pa.table(associate(described, run, self.frames, model))
        # Frame, position and size are those of the table of objects.
        values = {k: v for k, v in seen.objects.items() if k not in ("frame", "position", "size")}
        motion = values.pop("motion")
        columns = {"id": values.pop("label"), **values}
        columns |= {f"motion_{axis}": motion[:, n] for n, axis in enumerate("zyx")}
        embedding = self._embeddings(run, columns["id"])
        if embedding is not None:
            columns[EMBEDDING] = vectors(embedding)
        pairs = {name: seen.overlaps[name] for name in ("source", "target", "size")}
        return Observations(pa.table(columns), pa.table(pairs), scores)

    def _check_model(self, folder: str) -> None:
        """Refuse a model that has nothing to look at."""
        planar = trackastra_model.check(folder)["coord_dim"] == 2
        if planar and self.plan.depth > 1:
            raise VolsamError(
                f"The model {folder} (track.associations) is for planes, and frames of sample "
                f"{self.job.sample} have {self.plan.depth} slices; use a model for volumes, such as ctc."
            )
        if self.image is None:
            raise VolsamError(
                f"The model of track.associations has no image of sample {self.job.sample} to look at: "
                f"no level has at most {LARGEST} voxels per frame; give an image with a pyramid."
            )

    def _embeddings(
        self, run: range, ids: npt.NDArray[np.uint64]
    ) -> npt.NDArray[np.float32] | None:
        slices = range(run.start * self.plan.depth, run.stop * self.plan.depth)
        corrected = corrects_objects(self.sample.corrections)
        regrouping = read_regrouping(self.paths) if corrected else None
        return object_embeddings(self.paths, self.plan, slices, ids, regrouping)

    def _frame(self, number: int) -> Frame:
        """A frame at the resolution of observation; labels are the ids of objects."""
        depth = self.plan.depth
        stored = open_level(self.store, NAME, self.level, "r")
        (_, y0, x0), (_, y1, x1) = self.plan.region
        _, fy, fx = self.factor
        start = (number * depth, y0 // fy, x0 // fx)
        stop = ((number + 1) * depth, -(-y1 // fy), -(-x1 // fx))
        box = Box(start, stop).intersect(Box.of(stored.shape))
        labels = np.asarray(stored[box.slices])
        if self.image is None:
            return Frame(labels)
        image = self._pixels(self.image, box)
        check_finite(image, box.start, self.image.info.path)
        return Frame(labels, image)

    @staticmethod
    def _pixels(image: Volume, box: Box) -> npt.NDArray[Any]:
        """The image in a box; pyramids that round sizes down end before the labels do."""
        inside = box.intersect(Box.of(image.info.shape))
        if inside == box:
            return image.read(box)
        missing = [(0, b - a) for a, b in zip(inside.stop, box.stop, strict=True)]
        return np.pad(image.read(inside), missing, mode="edge")

    def write(self, block: Block, result: Observations) -> dict[str, Any]:
        tables = {kind: table for kind, table in result._asdict().items() if table is not None}
        for kind, table in tables.items():
            self.write_table(block, table, f"{kind}-")
        return {kind: table.num_rows for kind, table in tables.items()}

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        counts = list(records)
        kinds = ("objects", "overlaps", *(["associations"] if self.folder_of_model else []))
        return {
            **{kind: sum(record[kind] for record in counts) for kind in kinds},
            "level": self.level,
        }
