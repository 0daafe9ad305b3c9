"""Propagate: objects that a user prompted, followed through all frames of a sequence.

One block, since a frame follows from the one before. What it leaves, ``prompted.zarr``, holds the track
of each pixel, frame by frame, and goes on as a segmentation that is there already (stage `number`).

Invariants
----------
- The frames are computed while they are written: two of them are held.
- The store is under its name only when it is complete.
- Sequences of planes only.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volsam.blocks.stage import Attempt, Block, Job, Stage
from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.paths import SamplePaths
from volsam.stages.runplan import RunPlan
from volsam.track.prompted import read_prompts
from volsam.track.propagate import Step, propagate
from volsam.volume.checks import check_finite
from volsam.volume.info import VolumeInfo
from volsam.volume.normalise import Normalisation
from volsam.volume.source import ALL, Volume, open_volume
from volsam.volume.store import writing

BATCH = 16  # objects of a window at once


class Propagate(Stage[Iterator[Step]]):
    """Stage `propagate`."""

    name = "propagate"
    network = True
    upstream: tuple[str, ...] = ("plan",)
    batch = BATCH

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.plan = RunPlan.of(job)
        self.store = prompted_store(self.paths)
        self.torn = self.store.with_name(f".{self.store.name}.partial")

    def reset(self) -> None:
        shutil.rmtree(self.store, ignore_errors=True)
        self.sweep()

    def sweep(self) -> None:
        shutil.rmtree(self.torn, ignore_errors=True)

    def compute(self, block: Block, attempt: Attempt) -> Iterator[Step]:
        plan, box = self.plan, self.plan.region_box
        table = read_prompts(str(self.sample.prompts))
        (start, y0, x0), (stop, y1, x1) = box.start, box.stop
        shape = (y1 - y0, x1 - x0)
        read = partial(self._read, open_volume(**plan.image))
        predict = self._predictor(attempt.batch or self.batch)
        settings = self.config.track.prompted
        return propagate(predict, read, table, range(start, stop), shape, settings, (y0, x0))

    def _predictor(self, batch: int) -> Any:
        import torch

        from volsam.models import load_model
        from volsam.track.promptable import SamPredictor

        plan = self.plan
        torch.set_num_threads(plan.threads)
        model = load_model(
            plan.model,
            device=plan.device,
            precision=plan.precision,
            need_decoder=False,
            allow_pickle=plan.allow_pickle,
        )
        return SamPredictor(model, plan.scale, batch)

    def _read(self, volume: Volume, frame: int) -> npt.NDArray[np.float32]:
        """The region of a frame, normalised."""
        (_, y0, x0), (_, y1, x1) = self.plan.region
        box = Box((frame, y0, x0), (frame + 1, y1, x1))
        plane = volume.read(box)
        check_finite(plane, box.start, volume.info.path)
        return Normalisation.from_json(self.plan.normalisation).apply(plane[0], frame)

    def write(self, block: Block, result: Iterator[Step]) -> dict[str, Any]:
        import zarr

        self.sweep()
        height, width = self.plan.shape[1:]
        (_, y0, x0), (_, y1, x1) = self.plan.region
        with writing(self.torn):
            array = zarr.create_array(
                self.torn,
                shape=self.plan.shape,
                dtype="uint32",
                chunks=(1, height, width),
                fill_value=0,
                zarr_format=3,
            )
        lost: list[tuple[int, int, str]] = []
        objects = 0
        for frame, labels, missing in result:
            with writing(self.torn):
                array[frame, y0:y1, x0:x1] = labels
            lost += [(track, frame, why) for track, why in sorted(missing.items())]
            objects += int(np.count_nonzero(np.unique(labels)))
        with writing(self.store):
            shutil.rmtree(self.store, ignore_errors=True)
            self.torn.rename(self.store)
        return {"objects": objects, "lost": lost}

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        (record,) = records
        for track, frame, why in record["lost"]:
            print(f"warning: track {track} is lost in frame {frame}: {why}", file=sys.stderr)
        return {"objects": record["objects"], "lost": record["lost"]}


def check_prompted(sample: str, image: VolumeInfo, kind: str) -> None:
    """Refuse what prompts cannot be followed through: called while the run is planned.

    Parameters
    ----------
    sample : str
        For messages.
    image : VolumeInfo
    kind : str
        What stands before the colon in the name of the model.
    """
    if image.frames is None:
        raise VolsamError(
            f"Sample {sample} has prompts and is no sequence that is tracked; set task: track, or leave "
            "prompts out."
        )
    if image.depth > 1:
        raise VolsamError(
            f"Sample {sample} is a sequence of volumes, and prompts are followed through planes only; "
            "track a single slice, or leave prompts out."
        )
    if kind == "predictions":
        raise VolsamError(
            f"Sample {sample} has prompts, which stored predictions cannot answer; name a SAM as model."
        )


def prompted_store(paths: SamplePaths) -> Path:
    """Where the tracks of prompted objects lie, (t, y, x) uint32."""
    return paths.work / "prompted.zarr"


def prompted_arguments(paths: SamplePaths) -> dict[str, Any]:
    """Arguments of `open_volume` for them."""
    return {"path": str(prompted_store(paths)), "axes": "tyx", "timepoint": ALL}
