"""Where everything of a sample lies: the results users open, and the work folder beside them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volsam.volume.store import writing

if TYPE_CHECKING:
    from volsam.config import Config


@dataclass(frozen=True)
class SamplePaths:
    """Fixed places of one sample's files.

    Parameters
    ----------
    results : str
        Folder of all results.
    sample : str
        Name of the sample.
    """

    results: str
    sample: str

    @property
    def folder(self) -> Path:
        """Everything of this sample."""
        return Path(self.results) / self.sample

    @property
    def store(self) -> Path:
        """OME-Zarr with the labels, and with the image if it was ingested."""
        return self.folder / f"{self.sample}.ome.zarr"

    @property
    def objects(self) -> Path:
        """Table of the objects."""
        return self.folder / "objects.parquet"

    @property
    def report(self) -> Path:
        """Report of the run."""
        return self.folder / "report.html"

    @property
    def metrics(self) -> Path:
        """Scores against the truth."""
        return self.folder / "metrics.json"

    @property
    def tracking(self) -> Path:
        """Scores against a tracked truth."""
        return self.folder / "tracking.json"

    @property
    def work(self) -> Path:
        """Markers, ledgers and intermediates."""
        return self.folder / ".volsam"

    def marker(self, stage: str) -> Path:
        """What a finished stage leaves for Snakemake: a small JSON that changes with its output."""
        return self.work / f"{stage}.json"

    def ledger(self, stage: str) -> Path:
        """One line per finished block."""
        return self.work / "ledger" / f"{stage}.jsonl"

    def state(self, stage: str) -> Path:
        """How far a running stage is, and how it ended."""
        return self.work / "state" / f"{stage}.json"

    def tables(self, stage: str) -> Path:
        """Folder of the tables that a stage's blocks write."""
        return self.work / "tables" / stage

    @property
    def embeddings(self) -> Path:
        """Stored embeddings, one chunk per tile and slice."""
        return self.work / "embeddings.zarr"

    @property
    def fragments(self) -> Path:
        """Labels of every tile and slice before stitching."""
        return self.work / "fragments.zarr"

    @property
    def offsets(self) -> Path:
        """First global fragment id of every tile and slice, uint64."""
        return self.work / "offsets.npy"

    @property
    def fragment_table(self) -> Path:
        """All fragments in the order of their global ids."""
        return self.work / "fragments.parquet"

    @property
    def numbers(self) -> Path:
        """Frame and label of every object of a segmentation that is there already, uint64."""
        return self.work / "numbers.npy"

    @property
    def regrouped(self) -> Path:
        """Points by which a user merged and split objects, with the objects before and after."""
        return self.work / "regrouped.parquet"

    @property
    def lineage(self) -> Path:
        """Every object with its track: what all outputs of a tracked sequence are made from."""
        return self.folder / "lineage.parquet"

    @property
    def geff(self) -> Path:
        """Lineage as a graph, for tools that read GEFF."""
        return self.folder / "tracks.geff"

    @property
    def ctc(self) -> Path:
        """Lineage as the Cell Tracking Challenge wants it: images and a table."""
        return self.folder / "ctc"

    @property
    def tracks_csv(self) -> Path:
        """Lineage as a table for napari's tracks layer."""
        return self.folder / "tracks.csv"

    @property
    def trackmate(self) -> Path:
        """Lineage for TrackMate."""
        return self.folder / "tracks.xml"

    @property
    def track_of(self) -> Path:
        """Track of every object, by id, uint64."""
        return self.work / "track_of.npy"

    @property
    def lookup(self) -> Path:
        """Object of every fragment, uint64, 0 where it is dropped."""
        return self.work / "lookup.npy"


@dataclass(frozen=True)
class EvaluationPaths:
    """Fixed places of one evaluation of models.

    Parameters
    ----------
    results : str
        Folder of all results.
    name : str
        Name of the evaluation.
    """

    results: str
    name: str

    @property
    def folder(self) -> Path:
        """Scores, report and plots."""
        return Path(self.results) / "evaluation" / self.name

    @property
    def scores(self) -> Path:
        """Everything that was measured."""
        return self.folder / "scores.json"

    @property
    def report(self) -> Path:
        """The same to look at."""
        return self.folder / "report.html"

    @property
    def work(self) -> Path:
        """What is known of each model, whichever evaluation asked first; and markers."""
        return Path(self.results) / "evaluation" / ".cache"

    @property
    def marker(self) -> Path:
        """What a finished evaluation leaves for Snakemake."""
        return self.work / f"{self.name}.json"


def trained_marker(config: Config) -> Path:
    """What a training leaves for Snakemake: a small JSON with the version that came of it."""
    assert config.train is not None
    return Path(config.models) / config.train.name / ".training" / "trained.json"


def replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file under a temporary name beside `path` and rename it into place when complete.

    Raises
    ------
    VolsamError
        If the disk is full or the folder may not be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        os.close(handle)
        partial = Path(name)
        try:
            write(partial)
            partial.chmod(0o644)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically."""
    text = json.dumps(data, indent=1, sort_keys=True) + "\n"
    replace(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def sweep(folder: Path) -> None:
    """Remove partial files that a kill left directly in `folder`; folders are their writers' matter."""
    if folder.is_dir():
        for partial in folder.glob(".*.partial"):
            if partial.is_file():
                partial.unlink(missing_ok=True)
