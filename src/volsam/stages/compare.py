"""Compare: lineages against a tracked truth, as the Cell Tracking Challenge scores them.

One block, which holds one frame at a time. Runs only for samples that name such a truth.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from volsam.blocks.stage import Attempt, Block, Job, Stage
from volsam.evaluate.tracking import tracking_scores
from volsam.exchange.ctc import CtcSequence
from volsam.paths import write_json
from volsam.stages.frames import ObjectFrames
from volsam.stages.runplan import RunPlan
from volsam.track.tables import read_lineage

Scores = dict[str, float | int | None]


class Compare(Stage[Scores]):
    """Stage `compare`."""

    name = "compare"
    upstream: tuple[str, ...] = ("link",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.plan = RunPlan.of(job)

    def reset(self) -> None:
        self.paths.tracking.unlink(missing_ok=True)

    def compute(self, block: Block, attempt: Attempt) -> Scores:
        lineage = read_lineage(self.paths.lineage)
        frames = ObjectFrames(self.job, self.plan)
        result = CtcSequence.of(lineage, frames, self.plan.frames or 1, self.job.sample)
        return tracking_scores(str(self.sample.truth_tracks), result)

    def write(self, block: Block, result: Scores) -> dict[str, Any]:
        write_json(self.paths.tracking, {"truth": self.sample.truth_tracks, **result})
        return {"scores": result}

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        (record,) = records
        return {"metrics": self.paths.tracking.name, **record["scores"]}
