"""Tracks: the label image in which an object has the number of its track, in every frame the same."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volsam.geometry import Box
from volsam.stages.label import NAME, Label, written_labels
from volsam.volume.labels import open_level

TRACKS = "tracks"


class Tracks(Label):
    """Stage `tracks`: `Label` with another table of numbers."""

    name = "tracks"
    image = TRACKS

    def __init__(self, job: Any) -> None:
        super().__init__(job)
        self.upstream = ("link",)

    def place(self) -> Path:
        return written_labels(self.job)

    @property
    def count(self) -> int:
        """Number of tracks."""
        tracks: int = self.job.marker("link")["outputs"]["tracks"]
        return tracks

    def finest(self, box: Box) -> npt.NDArray[np.uint64]:
        objects = np.asarray(open_level(self.store, NAME, 0, "r")[box.slices])
        track_of: npt.NDArray[np.uint64] = np.load(self.paths.track_of, mmap_mode="r")
        return track_of[objects]

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        outputs = super().finalize(records)
        return {**outputs, "tracks": outputs.pop("objects")}
