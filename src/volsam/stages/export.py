"""Export: lineages in the formats that viewers, trackers and metrics read.

One block, which holds one frame at a time and the table of the lineage. A folder or file appears when it
is complete.

The interval of frames that a user states is read here and nowhere before, so that another one reruns
nothing else. An image that was ingested, and its labels, are told of it; what lies in place is not ours.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from volsam.blocks.stage import Attempt, Block, Job, Stage
from volsam.exchange.ctc import LIMIT, is_ctc, write_ctc
from volsam.exchange.folder import remove_folder
from volsam.exchange.geff import is_geff, write_geff
from volsam.exchange.trackmate import write_trackmate
from volsam.exchange.tracks_table import write_tracks_csv
from volsam.stages.frames import ObjectFrames
from volsam.stages.ingest import image_path
from volsam.stages.label import NAME, written_labels
from volsam.stages.runplan import RunPlan
from volsam.stages.tracks import TRACKS
from volsam.track.lineage import Lineage
from volsam.track.tables import read_lineage
from volsam.volume.info import TimeAxis
from volsam.volume.labels import label_path, set_time


class Export(Stage[dict[str, str]]):
    """Stage `export`."""

    name = "export"
    upstream: tuple[str, ...] = ("tracks",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.plan = RunPlan.of(job)
        self.store = written_labels(job)
        self.ingested = job.marker("ingest")["outputs"]
        self.time = TimeAxis(*self.ingested["time"])

    @property
    def interval(self) -> float | None:
        """Seconds between frames, as stated or as the image says."""
        return self.sample.frame_interval or self.time.seconds

    def reset(self) -> None:
        """Every format is replaced when it is written anew."""

    def compute(self, block: Block, attempt: Attempt) -> dict[str, str]:
        """Formats, each with a sentence where it could not be written."""
        lineage = read_lineage(self.paths.lineage)
        said: dict[str, str] = {}
        for name, (place, write, ours) in self.formats.items():
            if name in self.config.export.formats:
                said[name] = write(lineage) or ""
            # Of an earlier lineage nothing may stay beside this one.
            if said.get(name, "left out"):
                _remove(place, ours)
        return said

    @property
    def formats(
        self,
    ) -> dict[str, tuple[Path, Callable[[Lineage], str | None], Callable[[Path], bool]]]:
        """Where each format lies, what writes it (or says why it cannot), and what knows it again."""
        paths = self.paths
        return {
            "geff": (paths.geff, self._geff, is_geff),
            "ctc": (paths.ctc, self._ctc, is_ctc),
            "csv": (paths.tracks_csv, self._csv, Path.is_file),
            "trackmate": (paths.trackmate, self._trackmate, Path.is_file),
        }

    def write(self, block: Block, result: dict[str, str]) -> dict[str, Any]:
        return {"formats": result}

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        (record,) = records
        if self.ingested["ingested"]:
            stated = self.sample.frame_interval
            time = TimeAxis(stated, "second") if stated else self.time
            set_time(self.store, (NAME, TRACKS), time)
        formats: dict[str, str] = record["formats"]
        return {"formats": formats, "warnings": [text for text in formats.values() if text]}

    def _relative(self, path: Path) -> str:
        return Path(os.path.relpath(path.resolve(), self.paths.geff.resolve())).as_posix()

    def _geff(self, lineage: Lineage) -> None:
        write_geff(
            self.paths.geff,
            lineage,
            spacing=self.plan.voxel_size,
            unit=self.plan.unit,
            interval=self.interval,
            time_unit="second" if self.interval else None,
            labels=self._relative(label_path(self.store, TRACKS)),
            image=self._relative(image_path(self.plan.image)),
            provenance={"model": self.plan.model, "model_hash": self.plan.model_hash},
        )

    def _ctc(self, lineage: Lineage) -> str | None:
        wide = self.config.export.wide_ctc
        if len(lineage) > LIMIT and not wide:
            return (
                f"The {len(lineage)} tracks of sample {self.job.sample} do not fit into the 16 bits of "
                "the CTC format, which was left out; set export.wide_ctc to write 32 bits."
            )
        frames = ObjectFrames(self.job, self.plan)
        write_ctc(self.paths.ctc, lineage, frames, self.plan.frames or 1, wide=wide)
        return None

    def _csv(self, lineage: Lineage) -> None:
        write_tracks_csv(self.paths.tracks_csv, lineage)

    def _trackmate(self, lineage: Lineage) -> None:
        write_trackmate(
            self.paths.trackmate,
            lineage,
            shape=(self.plan.frames or 1, self.plan.depth, *self.plan.shape[1:]),
            spacing=self.plan.voxel_size,
            unit=self.plan.unit,
            interval=self.interval or 1.0,
            time_unit="second" if self.interval else "frame",
            image=self.plan.image["path"],
        )


def _remove(path: Path, ours: Callable[[Path], bool]) -> None:
    if path.is_file():
        path.unlink()
    else:
        remove_folder(path, ours)
