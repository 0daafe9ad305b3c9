"""Label: objects become labels in OME-Zarr, level by level.

A block is one shard of one level. At level 0 each voxel takes the object that `partition` or `number`
found there (`stages.found`), or what a user made of it by merging and splitting (`regroup`). Coarser
levels are the mode of the finer one, so their ids are a subset of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from volsam.blocks.stage import Attempt, Block, Job, Stage
from volsam.geometry import Box
from volsam.stages.found import FoundObjects, finder
from volsam.stages.ingest import image_path, no_labels_into
from volsam.stages.regroup import read_regrouping
from volsam.stages.runplan import RunPlan
from volsam.stitch.regroup import Regrouping
from volsam.track.correction_table import corrects_objects
from volsam.volume.labels import create_labels, discard_labels, label_path, open_level
from volsam.volume.layout import smallest_label_dtype
from volsam.volume.pyramid import level_steps, plan_level, write_level_block
from volsam.volume.source import open_volume
from volsam.volume.store import sweep_partial, writing

NAME = "objects"
Objects = npt.NDArray[np.unsignedinteger[Any]]


def label_store(job: Job) -> Path:
    """The OME-Zarr that holds the label group: ours, or the image's own group."""
    if job.config.of_sample(job.sample).output.labels_into == "input":
        ingested = job.marker("ingest")["outputs"]
        if ingested["ingested"]:  # and without that key: ingest does not run again for it
            raise no_labels_into(job.config.samples[job.sample].image)
        return image_path(ingested["image"])
    return job.paths.store


def written_labels(job: Job) -> Path:
    """Where the finished stage left them; later stages are not handed the key that decides it."""
    return Path(job.marker("label")["outputs"]["store"])


class Label(Stage[Objects | None]):
    """Stage `label`."""

    name = "label"
    image: ClassVar[str] = NAME  # of the label image

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.plan = RunPlan.of(job)
        corrected = corrects_objects(self.sample.corrections)
        self.upstream = ("regroup" if corrected else finder(self.plan),)
        self.store = self.place()
        self.ingested = job.marker("ingest")["outputs"]

    def place(self) -> Path:
        """The OME-Zarr that holds the label image."""
        return label_store(self.job)

    @property
    def has_image(self) -> bool:
        """Whether the image is in the same store."""
        return self.ingested["ingested"] or self.store != self.paths.store

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the ids."""
        return smallest_label_dtype(self.count, self.config.output.dtype)

    @property
    def count(self) -> int:
        """Objects that `partition` or `number` found, or that `regroup` left."""
        objects: int = self.job.marker(self.upstream[0])["outputs"]["objects"]
        return objects

    def blocks(self) -> Iterator[Block]:
        region = self.plan.region_box
        for level, factor in enumerate([(1, 1, 1), *self.plan.factors]):
            wanted = Box(
                tuple(a // f for a, f in zip(region.start, factor, strict=True)),
                tuple(-(-b // f) for b, f in zip(region.stop, factor, strict=True)),
            )
            for index, box in plan_level(open_level(self.store, self.image, level, "r")):
                if box.intersect(wanted).size:
                    yield Block(index, box, level)

    def reset(self) -> None:
        output = self.config.output
        source = None
        if not self.has_image:
            discard_labels(self.store, output.ome_zarr)
            labels = label_path(self.store, self.image)
            image = image_path(self.ingested["image"])
            source = os.path.relpath(image.resolve(), labels.resolve())
        create_labels(
            self.store,
            self.image,
            shape=self.plan.shape,
            dtype=self.dtype,
            chunks=output.chunk,
            shards=output.shard,
            voxel_size=self.plan.voxel_size,
            unit=self.plan.unit,
            factors=self.plan.factors,
            translation=self.plan.translation,
            frames=self.plan.frames,
            time=open_volume(**self.plan.image).info.time,
            z_axis=self.plan.z_axis,
            version=output.ome_zarr,
            source=source,
            has_image=self.has_image,
            provenance={"model": self.plan.model, "model_hash": self.plan.model_hash},
        )

    def sweep(self) -> None:
        sweep_partial(label_path(self.store, self.image))

    def compute(self, block: Block, attempt: Attempt) -> Objects | None:
        if block.phase:
            return None  # levels are computed from the level before while they are written
        return self.finest(block.box).astype(self.dtype)

    def finest(self, box: Box) -> npt.NDArray[np.uint64]:
        """Labels of a box at level 0."""
        objects = self._found.read(box)
        if self._regrouping is None:
            return objects
        return self._regrouping.apply(objects, box.start, self.plan.voxel_size)

    @cached_property
    def _found(self) -> FoundObjects:
        return FoundObjects(self.paths, self.plan, self.config.stitch.max_gap)

    @cached_property
    def _regrouping(self) -> Regrouping | None:
        """What a user merged and split."""
        return read_regrouping(self.paths) if self.upstream == ("regroup",) else None

    def write(self, block: Block, result: Objects | None) -> dict[str, Any]:
        target = open_level(self.store, self.image, block.phase)
        if result is None:
            finer = open_level(self.store, self.image, block.phase - 1, "r")
            step = level_steps(self.plan.factors)[block.phase - 1]
            write_level_block(finer, target, block.box, step, labels=True)
            return {}
        with writing(self.store):
            target[block.box.slices] = result
        return {"bytes": int(result.nbytes), "voxels": int(np.count_nonzero(result))}

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        return {
            "store": str(self.store),
            "labels": f"labels/{self.image}",
            "objects": self.count,
            "levels": 1 + len(self.plan.factors),
            "dtype": str(self.dtype),
            "labelled_voxels": sum(record.get("voxels", 0) for record in records),
        }
