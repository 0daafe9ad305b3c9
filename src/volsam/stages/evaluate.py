"""Evaluate: the labels against a truth, block by block.

A block counts how often each label meets each true object; the counts add up, so the volume is never
held. Runs only for samples that name a truth.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from volsam.blocks.stage import Attempt, Block, Job
from volsam.config import Sample
from volsam.errors import VolsamError
from volsam.evaluate.contingency import Contingency
from volsam.evaluate.metrics import score
from volsam.geometry import Box, split
from volsam.paths import write_json
from volsam.stages.label import NAME, written_labels
from volsam.stages.tabled import TabledStage, columns, read_file, table_files
from volsam.volume.checks import open_fitting
from volsam.volume.labels import open_level
from volsam.volume.source import Volume, labels_arguments, open_volume

BLOCK = (16, 1024, 1024)
LARGEST_BASELINE = 2**26


def open_truth(sample: Sample, shape: tuple[int, ...], frames: int | None) -> Volume:
    """The true labels of a sample, which must have the image's shape and its number of frames."""
    if sample.truth is None:
        raise VolsamError(f"The sample of {sample.image} names no truth; add truth: <path> to it.")
    arguments = labels_arguments(sample.truth, sample.truth_key, shape, frames)
    return open_fitting("truth", arguments, shape)


def one_id_per_frame(truth: npt.NDArray[Any], start: int, depth: int) -> npt.NDArray[np.uint64]:
    """Labels in which an object and its successor differ, where the truth may number tracks.

    Parameters
    ----------
    truth : integer (slices, y, x)
    start : int
        Number of the first slice.
    depth : int
        Slices of a frame.
    """
    frames = (start + np.arange(len(truth))) // depth
    offset = (frames.astype(np.uint64) << np.uint64(40))[:, None, None]
    return np.where(truth > 0, truth.astype(np.uint64) + offset, np.uint64(0))


class Evaluate(TabledStage[Contingency]):
    """Stage `evaluate`."""

    name = "evaluate"
    upstream: tuple[str, ...] = ("label",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.store = written_labels(job)

    @cached_property
    def truth(self) -> Volume:
        """The true labels; opened once by a worker, since a folder of TIFFs is read file by file."""
        return open_truth(self.sample, self.plan.shape, self.plan.frames)

    def blocks(self) -> Iterator[Block]:
        extent = Box.of(self.truth.info.shape)  # which is that of the image, or is refused
        return (
            Block(index, box)
            for index, box in split(extent, BLOCK)
            if box.intersect(self.plan.region_box).size
        )

    def compute(self, block: Block, attempt: Attempt) -> Contingency:
        box = block.box.intersect(self.plan.region_box)
        labels = np.asarray(open_level(self.store, NAME, 0, "r")[box.slices])
        truth = self.truth.read(box)
        if self.plan.frames is not None:
            truth = one_id_per_frame(truth, box.start[0], self.plan.depth)
        return Contingency.of(labels, truth)

    def write(self, block: Block, result: Contingency) -> dict[str, Any]:
        self.write_table(block, pa.table(asdict(result)))
        return {"pairs": len(result.count)}

    def _baseline(self) -> dict[str, Any]:
        """Scores of the classical method, which holds the whole region at once."""
        from volsam.evaluate.baselines import tuned_watershed

        region = self.plan.region_box
        if region.size > LARGEST_BASELINE:
            raise VolsamError(
                f"The classical baseline holds the volume in memory and {self.job.sample} has "
                f"{region.size} voxels; set evaluate.baseline: false or choose a region."
            )
        image = open_volume(**self.plan.image).read(region)
        truth = self.truth.read(region)
        _, _, scores = tuned_watershed(image, truth, self.plan.voxel_size)
        return {"name": "Otsu and distance watershed, best of its settings", **scores}

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        files = table_files(self.paths, self.name)
        tables = (Contingency(**columns(read_file(path))) for path in files)
        scores = {"truth": self.sample.truth, **score(Contingency.sum(tables))}
        if self.config.evaluate.baseline and self.plan.frames is None:
            scores["baseline"] = self._baseline()
        write_json(self.paths.metrics, scores)
        return {"metrics": self.paths.metrics.name, "SA50": scores["SA50"], "mSA": scores["mSA"]}
