"""`volsam train`: what it leaves, what it refuses, and several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny

from volsam.annotate.store import AnnotationStore, Provenance
from volsam.models.store import ModelStore

Call = Callable[..., Any]


class Training:
    """A folder with a parent, images and a configuration."""

    def __init__(self, folder: Path, call: Call) -> None:
        self.folder, self._call = folder, call
        (folder / "parent").mkdir()
        (folder / "data").mkdir()
        tiny.write_images(folder / "data")
        data = {
            "image": f"{folder}/data/im/*.tif",
            "labels": f"{folder}/data/lab/*.tif",
            "axes": "yx",
        }
        self.train: dict[str, Any] = {
            "name": "mine",
            "parent": tiny.write_parent(folder / "parent"),
            "data": [data],
            "batch": 1,
            "parts": "automatic",
            "schedule": {"epochs": 1, "steps": 1},
            "promotion": {"when": "always"},
        }
        self.marker = folder / "trained.json"

    @property
    def config(self) -> Path:
        """File of the configuration as it is now."""
        path = self.folder / "config.yaml"
        data = {"task": "train", "train": self.train, "models": str(self.folder / "models")}
        path.write_text(json.dumps(data))
        return path

    @property
    def models(self) -> ModelStore:
        """The trained models."""
        return ModelStore(self.folder / "models")

    def run(self) -> Any:
        """`volsam train` in this process."""
        return self._call("train", "--config", self.config, "--marker", self.marker)


@pytest.fixture
def training(tmp_path: Path, bench: Any) -> Training:
    """A training that nothing has run."""
    folder = tmp_path / "training"
    folder.mkdir()
    return Training(folder, bench.call)


def test_marker_and_progress(training: Training) -> None:
    outcome = training.run()
    assert outcome.code == 0, outcome.err
    marker = json.loads(training.marker.read_text())
    assert (marker["name"], marker["version"], marker["promoted"]) == ("mine", 1, True)
    assert marker["hash"] == training.models.version("mine", 1).hash
    assert "images to learn from" in outcome.err
    before = training.marker.read_bytes()
    assert "is this training already" in training.run().err
    assert training.marker.read_bytes() == before


def test_nothing_annotated_yet(training: Training, refusal: Call) -> None:
    training.train["data"] = str(training.folder / "annotations")
    refusal(training.run(), "no labelled object in", "annotate something first")
    assert not training.marker.exists()
    training.train["when"] = "new-annotations"
    outcome = training.run()
    assert outcome.code == 0, outcome.err
    assert "no annotations in" in outcome.err
    assert json.loads(training.marker.read_text())["promoted"] is False
    assert training.models.versions("mine") == []


def test_annotations(training: Training) -> None:
    import tifffile

    store = AnnotationStore(training.folder / "annotations")
    for n in range(2):
        image = tifffile.imread(training.folder / "data" / "im" / f"{n}.tif")
        labels = tifffile.imread(training.folder / "data" / "lab" / f"{n}.tif")
        where = Provenance(source=f"{n}.tif", complete=True)
        store.add(image[None], labels[None].astype(np.uint32), None, where)
    training.train["data"] = str(store.root)
    outcome = training.run()
    assert outcome.code == 0, outcome.err
    described = training.models.version("mine", 1).description()
    assert described["data"][0]["name"] == str(store.root)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parent": "mine"}, ("Key train.parent is mine, the model itself",)),
        ({"parent": "absent"}, ("There is no model or file 'absent'",)),
        ({"data": [{"image": "a", "lables": "b"}]}, ("Key train.data.0.lables is unknown",)),
        ({"data": [{"image": "a"}]}, ("Key train.data.0.labels is missing",)),
        ({"name": "embedded"}, ("'embedded' is the name of a model that volsam knows",)),
        ({"data": [{"image": "no*.tif", "labels": "no*.tif"}]}, ("no*.tif matches 0 files",)),
        ({"held_out": 0, "promotion": {}}, ("held_out is 0", "promotion.when")),
        ({"validation": 0.5, "held_out": 0.5}, ("leave nothing to train on",)),
        ({"parts": "none"}, ("train.parts",)),
        ({"epochs": 3}, ("Key train.epochs is unknown",)),
        ({"adapt": "last-blocks", "blocks": 9}, ("has 2 blocks and train.blocks is 9",)),
        (
            {"promotion": {"metric": "box"}},
            ("promotion.metric is box", "use mSA, or train prompts"),
        ),
    ],
)
def test_refusals(
    change: dict[str, Any], words: tuple[str, ...], training: Training, refusal: Call
) -> None:
    training.train |= change
    refusal(training.run(), *words)
    assert not training.marker.exists()
    assert training.models.names() == []
    assert not [*training.folder.rglob("*.partial")]


def test_section_is_needed(training: Training, refusal: Call, bench: Any) -> None:
    refusal(bench.call("train", "--config", bench.config()), "has no section train")


@pytest.mark.slow
def test_two_processes_train_one_model(training: Training) -> None:
    """On the CPU, over the loopback; gradients are averaged and the first process writes."""
    training.train |= {"parts": "joint", "schedule": {"epochs": 2, "steps": 2}}
    command = [sys.executable, "-m", "volsam", "train", "--config", str(training.config)]
    options = ["--marker", str(training.marker), "--devices", "2", "--threads", "1"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *options], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(training.marker.read_text())["version"] == 1
    assert [v.number for v in training.models.versions("mine")] == [1]
    training.models.version("mine", 1)  # whole
    assert not [*(training.folder / "models" / "mine" / ".training").glob("*/*")]
    assert "Traceback" not in done.stderr
    again = subprocess.run(
        [*command, *options], env=environment, capture_output=True, text=True, timeout=240
    )
    assert again.returncode == 0, again.stderr
    assert "is this training already" in again.stderr


def test_an_image_is_no_parent(training: Training, refusal: Call) -> None:
    image = next((training.folder / "data" / "im").iterdir())
    training.train["parent"] = str(image)
    told = refusal(training.run(), "is no checkpoint or is damaged")
    assert "Weights only" not in told
    assert not (training.folder / "models").exists()


@pytest.mark.slow
def test_an_error_of_two_processes_is_told_once(training: Training, refusal: Call) -> None:
    training.train |= {"crop": 4096}
    command = [sys.executable, "-m", "volsam", "train", "--config", str(training.config)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--devices", "2", "--threads", "1"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    refusal(SimpleNamespace(code=done.returncode, err=done.stderr), "Key train.crop is 4096")
    assert not [*(training.folder / "models").rglob("lease.json")]
