"""Report: what ran, on what, with what, how long, and what came of it, as one HTML file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from volsam.blocks.stage import Block, Job, Stage
from volsam.report.write import read_inputs, write_report
from volsam.stages.label import NAME, written_labels
from volsam.stages.runplan import RunPlan
from volsam.stages.tracks import TRACKS
from volsam.volume.labels import open_level
from volsam.volume.source import open_volume


class Report(Stage[None]):
    """Stage `report`."""

    name = "report"
    upstream: tuple[str, ...] = ("measure",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        if job.config.task == "track":
            self.upstream += ("export",)
            if self.sample.truth_tracks is not None:
                self.upstream += ("compare",)
        if self.sample.truth is not None:
            self.upstream += ("evaluate",)

    def blocks(self) -> list[Block]:
        return []

    def reset(self) -> None:
        """Nothing is stored but the report."""

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        plan = RunPlan.of(self.job)
        image = open_volume(**plan.image)
        # An object of a sequence keeps its colour from frame to frame.
        shown = TRACKS if self.job.config.task == "track" else NAME
        labels = open_level(written_labels(self.job), shown, 0, "r")
        inputs = read_inputs(
            self.paths.folder,
            self.job.sample,
            image=image.read,
            labels=lambda box: np.asarray(labels[box.slices]),
            view_command=f"volsam view {self.paths.folder}",
        )
        write_report(self.paths.report, inputs)
        return {"report": self.paths.report.name}
