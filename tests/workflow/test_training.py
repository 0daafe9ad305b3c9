"""Training as a rule: what trains again, and what a new version makes run again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scenes
import tifffile
import tiny
from flow import Workflow

from volsam.annotate.store import AnnotationStore, Provenance
from volsam.geometry import Box
from volsam.models.registry import file_hash
from volsam.models.store import ModelStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

FAST = {
    "name": "mine",
    "batch": 1,
    "parts": "automatic",
    "min_size": 12,
    "schedule": {"epochs": 1, "steps": 1},
    "promotion": {"when": "always"},
}
ALL = [*scenes.STAGES, "report"]


def trained(flow: Workflow, number: int = -1) -> bool:
    """Whether a run started the training."""
    lines = flow.log(number).splitlines()
    return any(line.startswith("Job ") and line.endswith("train mine") for line in lines)


def computed(flow: Workflow) -> list[str]:
    """Fragments and ledgers of the last segmentation, as a digest of their files."""
    found = scenes.tree_digest(flow.paths.fragments)
    return sorted(f"{name} {digest}" for name, digest in found.items())


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Workflow]:
    """A training from files that nothing has run."""
    for part in ("parent", "data"):
        (tmp_path / part).mkdir()
    tiny.write_images(tmp_path / "data")
    pair = {"image": f"{tmp_path}/data/im/*.tif", "labels": f"{tmp_path}/data/lab/*.tif"}
    data = {
        "task": "train",
        "results": str(tmp_path / "run" / "results"),
        "train": {
            **FAST,
            "parent": tiny.write_parent(tmp_path / "parent"),
            "data": [{**pair, "axes": "yx"}],
        },
    }
    flow = Workflow(tmp_path / "run", data)
    yield flow
    flow.end()


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Workflow]:
    """A segmentation whose model learns from new annotations; there are none yet."""
    scene = tmp_path / "scene"
    scenes.write_scene(scene, scenes.cells((5, 60, 70), 25, (7, 10), 0))
    (tmp_path / "parent").mkdir()
    data = scenes.settings(scene, tmp_path / "run" / "results", halo=10)
    data["model"] = "mine"
    data["train"] = {
        **FAST,
        "parent": tiny.write_parent(tmp_path / "parent"),
        "when": "new-annotations",
        "validation": 0.2,
        "held_out": 0.2,
    }
    flow = Workflow(tmp_path / "run", data)
    yield flow
    flow.end()


def annotate(flow: Workflow, *slices: int) -> None:
    """Add slices of the scene with their truth, as a user would who corrected them."""
    path = flow.data["samples"]["a"]["image"]
    image, truth = tifffile.imread(path), tifffile.imread(Path(path).with_name("truth.tif"))
    store = AnnotationStore(flow.folder / "annotations")
    for z in slices:
        box = Box((z, 0, 0), (z + 1, *image.shape[1:]))
        where = Provenance(source=path, region=box, complete=True)
        store.add(image[z : z + 1], truth[z : z + 1].astype(np.uint32), None, where)


def model_of(flow: Workflow) -> str:
    """Hash of the model that the results are from."""
    return str(flow.marker("plan")["outputs"]["plan"]["model_hash"])


def marker(flow: Workflow) -> dict[str, Any]:
    """What the training left."""
    path = flow.folder / "models" / "mine" / ".training" / "trained.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_task_train(training: Workflow) -> None:
    training.run()
    assert trained(training)
    store = ModelStore(training.folder / "models")
    assert store.find("mine").parent.name == "1"
    training.run()
    assert not trained(training)
    assert "Nothing to be done" in training.log()
    # What the weights are a function of trains again; where they go does not.
    training.data["train"]["schedule"] = {**FAST["schedule"], "learning_rate": 2e-3}  # type: ignore[dict-item]
    training.run()
    assert trained(training)
    assert store.find("mine").parent.name == "2"
    training.data["results"] = "elsewhere"
    training.data["stitch"] = {"slice_threshold": 0.3}
    training.run()
    assert not trained(training)
    # Another label image under the old name.
    labels = Path(training.data["train"]["data"][0]["labels"]).parent
    (labels / "0.tif").write_bytes((labels / "1.tif").read_bytes())
    training.run()
    assert trained(training)
    assert [v.number for v in store.versions("mine")] == [1, 2, 3]


def test_training_that_cannot_work_is_one_sentence(training: Workflow) -> None:
    training.data["train"]["data"] = "nothing"
    assert training.start().wait(timeout=200) != 0
    assert "no labelled object in nothing; annotate something first" in training.log()
    assert "Traceback" not in training.log()
    assert not [*training.folder.rglob("trained.json")]


def test_new_annotations_train_before_the_segmentation(loop: Workflow) -> None:
    parent = file_hash(Path(loop.data["train"]["parent"]).parent / "weights.safetensors")
    store = ModelStore(loop.folder / "models")

    # Nothing annotated: the parent segments.
    assert loop.run() == ALL
    assert marker(loop)["promoted"] is False
    assert model_of(loop) == parent
    assert loop.run() == []
    assert not trained(loop)

    # Annotations: a version, in use, and all that depends on the model.
    annotate(loop, 0, 1, 2)
    assert loop.run() == ALL[1:]
    assert trained(loop)
    assert store.find("mine").parent.name == "1"
    assert model_of(loop) == store.version("mine", 1).hash != parent
    assert loop.run() == []
    assert not trained(loop)

    # A version that is not promoted changes nothing that is segmented.
    before, fragments = scenes.result_digest(loop.paths), computed(loop)
    loop.data["train"]["promotion"] = {"when": "never"}
    annotate(loop, 3)
    ran = loop.run()
    assert trained(loop)
    assert [v.number for v in store.versions("mine")] == [1, 2]
    assert model_of(loop) == store.version("mine", 1).hash
    assert scenes.result_digest(loop.paths) == before
    assert computed(loop) == fragments
    assert set(ran) <= set(ALL[1:])
    assert loop.run() == []

    # One that is put to use by hand does.
    store.promote("mine", 2, "by hand")
    assert loop.run() == ALL[1:]
    assert not trained(loop)
    assert model_of(loop) == store.version("mine", 2).hash
    assert loop.run() == []


def test_trained_by_hand(loop: Workflow) -> None:
    """Without `new-annotations` a segmentation never trains, and takes what is in use."""
    loop.data["train"]["when"] = "asked"
    annotate(loop, 0, 1, 2)
    assert loop.run() == ALL
    assert not trained(loop)
    loop.data["task"] = "train"
    loop.run()
    assert trained(loop)
    loop.data["task"] = "segment"
    assert loop.run() == ALL[1:]
    assert model_of(loop) == ModelStore(loop.folder / "models").version("mine", 1).hash
    assert loop.run() == []
