"""Objects of a finished sequence, frame by frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from volsam.blocks.stage import Job
from volsam.geometry import Box
from volsam.stages.label import NAME, written_labels
from volsam.stages.runplan import RunPlan
from volsam.volume.labels import open_level


class ObjectFrames:
    """Object ids of a frame, (y, x) or (z, y, x), read when asked for."""

    def __init__(self, job: Job, plan: RunPlan) -> None:
        self.array = open_level(written_labels(job), NAME, 0, "r")
        self.plan = plan

    def __call__(self, number: int) -> npt.NDArray[Any]:
        depth = self.plan.depth
        box = Box.of((depth, *self.plan.shape[1:])).shift((number * depth, 0, 0))
        labels = np.asarray(self.array[box.slices])
        return labels[0] if depth == 1 else labels
