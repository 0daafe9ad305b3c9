"""Export: lineages in the formats that viewers, trackers and metrics read.

One block, which holds one frame at a time and the table of the lineage. A folder or file appears when it
is complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from volsam.blocks.stage import Attempt, Block, Job, Stage
from volsam.exchange.ctc import LIMIT, write_ctc
from volsam.exchange.geff import write_geff
from volsam.exchange.trackmate import write_trackmate
from volsam.exchange.tracks_table import write_tracks_csv
from volsam.stages.frames import ObjectFrames
from volsam.stages.label import written_labels
from volsam.stages.runplan import RunPlan
from volsam.stages.tracks import TRACKS
from volsam.track.lineage import Lineage
from volsam.track.tables import read_lineage
from volsam.volume.labels import label_path


class Export(Stage[dict[str, str]]):
    """Stage `export`."""

    name = "export"
    upstream: tuple[str, ...] = ("tracks",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.plan = RunPlan.of(job)
        self.store = written_labels(job)

    def reset(self) -> None:
        """Every format is replaced when it is written anew."""

    def compute(self, block: Block, attempt: Attempt) -> dict[str, str]:
        """Formats, each with a sentence where it could not be written."""
        lineage = read_lineage(self.paths.lineage)
        writers: dict[str, Callable[[Lineage], str]] = {
            "geff": self._geff,
            "ctc": self._ctc,
            "csv": self._csv,
            "trackmate": self._trackmate,
        }
        said: dict[str, str] = {name: writers[name](lineage) for name in self.config.export.formats}
        # Of an earlier lineage nothing may stay beside this one.
        for name, path in self.places.items():
            if said.get(name, "left out"):
                _remove(path)
        return said

    @property
    def places(self) -> dict[str, Path]:
        """Where each format lies."""
        paths = self.paths
        return {
            "geff": paths.geff,
            "ctc": paths.ctc,
            "csv": paths.tracks_csv,
            "trackmate": paths.trackmate,
        }

    def write(self, block: Block, result: dict[str, str]) -> dict[str, Any]:
        return {"formats": result}

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        (record,) = records
        formats: dict[str, str] = record["formats"]
        return {"formats": formats, "warnings": [text for text in formats.values() if text]}

    def _relative(self, path: Path) -> str:
        return Path(os.path.relpath(path.resolve(), self.paths.geff.resolve())).as_posix()

    def _geff(self, lineage: Lineage) -> str:
        image = Path(self.plan.image["path"])
        write_geff(
            self.paths.geff,
            lineage,
            spacing=self.plan.voxel_size,
            unit=self.plan.unit,
            interval=self.plan.interval,
            time_unit="second" if self.plan.interval else None,
            labels=self._relative(label_path(self.store, TRACKS)),
            image=self._relative(image),
            provenance={"model": self.plan.model, "model_hash": self.plan.model_hash},
        )
        return ""

    def _ctc(self, lineage: Lineage) -> str:
        wide = self.config.export.wide_ctc
        if len(lineage) > LIMIT and not wide:
            return (
                f"The {len(lineage)} tracks of sample {self.job.sample} do not fit into the 16 bits of "
                "the CTC format, which was left out; set export.wide_ctc to write 32 bits."
            )
        frames = ObjectFrames(self.job, self.plan)
        write_ctc(self.paths.ctc, lineage, frames, self.plan.frames or 1, wide=wide)
        return ""

    def _csv(self, lineage: Lineage) -> str:
        write_tracks_csv(self.paths.tracks_csv, lineage)
        return ""

    def _trackmate(self, lineage: Lineage) -> str:
        write_trackmate(
            self.paths.trackmate,
            lineage,
            shape=(self.plan.frames or 1, self.plan.depth, *self.plan.shape[1:]),
            spacing=self.plan.voxel_size,
            unit=self.plan.unit,
            interval=self.plan.interval or 1.0,
            time_unit="second" if self.plan.interval else "frame",
            image=self.plan.image["path"],
        )
        return ""


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
