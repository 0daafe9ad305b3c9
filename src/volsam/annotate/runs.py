"""A finished segmentation run as a source of crops: its image, labels, limits and plan.

The markers of the run are its own; nothing here writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volsam.annotate.crops import Provenance
from volsam.blocks.ledger import record_path
from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.paths import SamplePaths
from volsam.stages.runplan import RunPlan
from volsam.volume.labels import open_level
from volsam.volume.normalise import estimate
from volsam.volume.source import Volume, open_volume


@dataclass(frozen=True)
class FinishedRun:
    """What later steps need of a run whose labels are written.

    Attributes
    ----------
    folder : Path
        ``<results>/<sample>``.
    plan : RunPlan
    source : str
        The image as the user named it, absolute.
    reading : dict
        Key, level, channel and time point of the image, as far as they were said.
    normalise : dict
        The section `normalise` of the configuration.
    store, name : Path, str
        OME-Zarr of the labels and their name in it.
    """

    folder: Path
    plan: RunPlan
    source: str
    reading: dict[str, Any]
    normalise: dict[str, Any]
    store: Path
    name: str

    @classmethod
    def of(cls, folder: Path) -> FinishedRun:
        """Read the markers of ``<results>/<sample>``.

        Raises
        ------
        VolsamError
            If the run is not finished.
        """
        paths = SamplePaths(str(folder.parent), folder.name)
        try:
            ingest, plan, label = (
                json.loads(record_path(paths, stage).read_text(encoding="utf-8"))
                for stage in ("ingest", "plan", "label")
            )
            settings = {**ingest["settings"], **plan["settings"]}
            return cls(
                folder=folder,
                plan=RunPlan.from_json(plan["outputs"]["plan"]),
                source=str(Path(settings["sample.image"]).resolve()),
                reading=said({k.removeprefix("sample."): v for k, v in settings.items()}),
                normalise=settings["normalise"],
                store=Path(label["outputs"]["store"]),
                name=Path(label["outputs"]["labels"]).name,
            )
        except (OSError, ValueError, KeyError, TypeError):
            raise VolsamError(
                f"{folder} holds no finished labels; give the folder <results>/<sample> of a "
                "finished run."
            ) from None

    @property
    def paths(self) -> SamplePaths:
        """Places of the run's files."""
        return SamplePaths(str(self.folder.parent), self.folder.name)

    def volume(self) -> Volume:
        """The image as the run read it."""
        return open_volume(**self.plan.image)

    def labels(self, box: Box) -> NDArray[Any]:
        """Objects of a box, (z, y, x)."""
        return np.asarray(open_level(self.store, self.name, 0, "r")[box.slices])

    def provenance(self, box: Box) -> Provenance:
        """Provenance of a crop, all but who made its labels."""
        return Provenance(
            source=self.source,
            reading=self.reading,
            region=box,
            limits=self.limits(box),
            extremes=self.extremes(box),
            voxel_size=self.plan.voxel_size,
            unit=self.plan.unit,
        )

    def limits(self, box: Box) -> tuple[float, float]:
        """Intensities that a model trained on the crop will take as 0 and 1; of several slices the mean.

        Those of the run, unless it took others only because its model asks for them: models trained
        here are given percentiles.
        """
        return _mean(self._limits, box)

    def extremes(self, box: Box) -> tuple[float, float] | None:
        """Least and greatest intensity, if the run found them."""
        used = self.plan.normalisation
        return _mean(used, box) if used["method"] == "minmax" else None

    @cached_property
    def _limits(self) -> dict[str, Any]:
        used = self.plan.normalisation
        if used["method"] == "percentile" or self.normalise["method"] != "auto":
            return used
        percentiles = {**self.normalise, "method": "percentile"}
        return estimate(self.volume(), **percentiles).to_json()


def _mean(normalisation: Mapping[str, Any], box: Box) -> tuple[float, float]:
    low, high = (
        values[box.start[0] : box.stop[0]] if len(values) > 1 else values
        for values in (normalisation["low"], normalisation["high"])
    )
    return float(np.mean(low)), float(np.mean(high))


def said(reading: Mapping[str, Any]) -> dict[str, Any]:
    """What matters of the arguments of `open_volume` to tell two volumes of a file apart."""
    names = ("key", "level", "channel", "timepoint")
    return {name: reading[name] for name in names if reading.get(name) not in (None, 0)}
