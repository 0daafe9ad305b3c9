"""From annotations to a model in use: versions, promotion, and what a failure leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from volsam import __version__
from volsam.annotate.store import AnnotationStore, Provenance
from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.models import load_model
from volsam.models.store import ModelStore
from volsam.train import run as module
from volsam.train.promotion import better
from volsam.train.run import train_model, training_digest
from volsam.train.settings import Train
from volsam.train.sources import data_sources


def settings(images: Path, **changes: Any) -> Train:
    data = {
        "name": "mine",
        "data": [{"image": f"{images}/im/*.tif", "labels": f"{images}/lab/*.tif", "axes": "yx"}],
        "batch": 1,
        "objects": 2,
        "min_size": 12,
        "parts": "automatic",
        "interactive": {"sub_iterations": 2},
        "schedule": {"epochs": 1, "steps": 1},
        "promotion": {"when": "always"},
    }
    return Train.model_validate({**data, **changes})


def train(chosen: Train, models: Path, parent: str) -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []
    return train_model(chosen, models, parent, threads=1, say=said.append), said


@pytest.fixture(autouse=True)
def small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thresholds are tuned elsewhere."""
    monkeypatch.setattr(module, "AIS_GRID", {"min_size": (10.0, 20.0)})


def test_publishes_a_whole_version(images: Path, parent: str, tmp_path: Path) -> None:
    chosen = settings(images, parts="joint")
    found, said = train(chosen, tmp_path, parent)
    version = ModelStore(tmp_path).version("mine", 1)
    assert (found["name"], found["version"], found["promoted"]) == ("mine", 1, True)
    assert found["hash"] == version.hash
    for scores in (found["before"], found["after"]):
        assert set(scores) >= {"mSA", "SA50", "SA75", "box", "point"}
    described = version.description()
    assert described["parent"] == chosen.parent
    assert described["metrics"]["after"] == found["after"]
    assert described["ais"]["min_size"] in (0, 10, 20)
    assert described["tuning"]["images"] >= 1
    assert described["training"]
    model = load_model(str(version.path))
    assert model.sam is not None
    names = {path.name for path in version.folder.iterdir()}
    assert names >= {"weights.safetensors", "model.json", "card.md", "report.html", "progress.json"}
    assert ModelStore(tmp_path).find("mine") == version.path
    assert not [*(tmp_path / "mine" / ".training").iterdir()]
    assert any("images to learn from" in line for line in said)
    assert "not in use" not in said[-1]


def test_same_training_is_not_run_again(images: Path, parent: str, tmp_path: Path) -> None:
    first, _ = train(settings(images), tmp_path, parent)
    before = (tmp_path / "mine" / "promoted.json").read_bytes()
    again, said = train(settings(images, when="new-annotations"), tmp_path, parent)
    assert again == first
    assert said[0] == "version 1 of mine is this training already"
    assert (tmp_path / "mine" / "promoted.json").read_bytes() == before
    other, _ = train(settings(images, seed=1), tmp_path, parent)
    assert other["version"] == 2
    back, _ = train(settings(images), tmp_path, parent)
    assert back["version"] == 1
    assert ModelStore(tmp_path).find("mine").parent.name == "1"


def test_digest_names_settings_data_and_parent(images: Path, tmp_path: Path) -> None:
    def digest(parent: str = "p", **changes: Any) -> str:
        return training_digest(settings(images, **changes), [parent])

    assert digest() == digest()
    assert digest() == digest(promotion={"when": "never"}) == digest(when="new-annotations")
    other = tmp_path / "other"
    for part in ("im", "lab"):
        (other / part).mkdir(parents=True)
        for path in (images / part).iterdir():
            (other / part / path.name).write_bytes(path.read_bytes())
    data = [{"image": f"{other}/im/*.tif", "labels": f"{other}/lab/*.tif", "axes": "yx"}]
    moved = digest(data=data)
    different = [digest(), digest("q"), digest(seed=1), digest(adapt="lora"), moved]
    (other / "lab" / "0.tif").write_bytes((images / "lab" / "1.tif").read_bytes())
    assert len({*different, digest(data=data)}) == 6


def test_promotion_is_asked_anew(images: Path, parent: str, tmp_path: Path) -> None:
    """`promotion` is no part of the training: the version there is, is judged by the new rule."""
    never, _ = train(settings(images, promotion={"when": "never"}), tmp_path, parent)
    assert not never["promoted"]
    assert never["why"] == "promotion.when is never"
    assert ModelStore(tmp_path).promoted("mine") is None
    always, said = train(settings(images), tmp_path, parent)
    assert (always["version"], always["promoted"]) == (1, True)
    assert said[0] == "version 1 of mine is this training already"


@pytest.mark.parametrize(
    ("before", "after", "margin", "good", "why"),
    [
        (0.5, 0.6, 0.0, True, "mSA on held-out images 0.600, of its parent 0.500"),
        (0.5, 0.5, 0.0, False, "of its parent 0.500"),
        (0.5, 0.6, 0.2, False, "of its parent 0.500"),
        (None, 0.1, 0.0, True, "its parent has no mSA"),
    ],
)
def test_better(
    before: float | None, after: float, margin: float, good: bool, why: str, images: Path
) -> None:
    chosen = settings(images, promotion={"when": "better", "margin": margin})
    known = {} if before is None else {"mSA": before}
    found, reason = better(chosen, known, {"mSA": after})
    assert found is good
    assert why in reason


def test_metric_that_is_not_measured_is_refused_before_training(
    images: Path, parent: str, tmp_path: Path
) -> None:
    chosen = settings(images, promotion={"when": "better", "metric": "box"})
    with pytest.raises(VolsamError, match=r"promotion.metric is box, which was not measured"):
        better(chosen, {}, {"mSA": 0.5})
    with pytest.raises(VolsamError, match=r"promotion.metric is box, and train.parts is automatic"):
        train(chosen, tmp_path, parent)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("lacking", ["prompts", "decoder"])
def test_parent_that_lacks_a_part(lacking: str, images: Path, parent: str, tmp_path: Path) -> None:
    """What it has is compared; what it lacks begins with random weights."""
    described = json.loads(Path(parent).read_text())
    if lacking == "prompts":
        del described["prompts"]
    state = load_file(Path(parent).parent / "weights.safetensors")
    without = {
        "prompts": ("prompt_encoder.", "mask_decoder."),
        "decoder": ("decoder.",),
    }[lacking]
    home = tmp_path / "parent"
    home.mkdir()
    kept = {k: v for k, v in state.items() if not k.startswith(without)}
    save_file(kept, home / "weights.safetensors")
    (home / "model.json").write_text(json.dumps(described))
    chosen = settings(images, parts="joint", promotion={"when": "better", "metric": "mSA"})
    found, _ = train(chosen, tmp_path / "models", str(home / "model.json"))
    assert {"mSA", "box", "point"} <= set(found["after"])
    assert ("mSA" in found["before"]) is (lacking == "prompts")
    assert ("box" in found["before"]) is (lacking == "decoder")
    if lacking == "decoder":
        assert found["promoted"]
        assert found["why"] == "its parent has no mSA"


def test_failure_leaves_no_version_and_goes_on(
    images: Path, parent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_report", broken)
        with pytest.raises(VolsamError, match=r"No space left"):
            train(settings(images), tmp_path, parent)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == [".training"]
    assert ModelStore(tmp_path).versions("mine") == []
    assert not [*tmp_path.rglob("lease.json")]
    found, said = train(settings(images), tmp_path, parent)
    assert found["version"] == 1
    assert "goes on after step 1" in said


def test_held_out_images_are_not_learnt_from(
    images: Path, parent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt, scored = set(), set()
    fit, scores = module._fit, module.scores

    def spy_fit(network: Any, chosen: Any, parts: Any, *rest: Any) -> Any:
        learnt.update(e.name for _, group in parts.train for e in group)
        return fit(network, chosen, parts, *rest)

    def spy_scores(model: Any, pairs: Any, *rest: Any, **more: Any) -> Any:
        scored.update(pair.name for pair in pairs)
        return scores(model, pairs, *rest, **more)

    monkeypatch.setattr(module, "_fit", spy_fit)
    monkeypatch.setattr(module, "scores", spy_scores)
    train(settings(images), tmp_path, parent)
    assert learnt
    assert scored
    assert not learnt & scored


def test_lora_becomes_ordinary_weights(images: Path, parent: str, tmp_path: Path) -> None:
    rate = {"epochs": 1, "steps": 2, "learning_rate": 0.01}
    train(settings(images, adapt="lora", schedule=rate), tmp_path, parent)
    folder = tmp_path / "mine" / "1"
    old = load_file(Path(parent).parent / "weights.safetensors")
    new = load_file(folder / "weights.safetensors")
    assert new.keys() == old.keys()
    changed = {k for k, v in old.items() if not torch.equal(v, new[k])}
    assert any(name.startswith("image_encoder.") for name in changed)
    added = load_file(folder / "lora.safetensors")
    assert added
    assert all(name.endswith((".up", ".down")) for name in added)


def test_a_decision_by_hand_outlives_a_repeated_training(
    images: Path, parent: str, tmp_path: Path
) -> None:
    store = ModelStore(tmp_path)
    train(settings(images), tmp_path, parent)
    train(settings(images, seed=1), tmp_path, parent)
    store.promote("mine", 1, "better pictures")
    for seed in (1, 0):
        found, said = train(settings(images, seed=seed), tmp_path, parent)
        assert store.find("mine").parent.name == "1"
        assert found["promoted"] is (seed == 0)
        why = "better pictures" if seed == 0 else "version 1 was put to use by hand since then"
        assert why in said[-1]
    # What is in use stays so whatever the rule is now, and a new version is judged by it.
    found, _ = train(settings(images, promotion={"when": "never"}), tmp_path, parent)
    assert found["promoted"]
    found, said = train(settings(images, seed=2, promotion={"when": "never"}), tmp_path, parent)
    assert (found["version"], found["promoted"]) == (3, False)
    assert said[-1].endswith("promotion.when is never; version 1 stays in use")
    assert train(settings(images, seed=3), tmp_path, parent)[0]["promoted"]


def test_failure_before_the_first_step_leaves_nothing(
    images: Path, parent: str, tmp_path: Path
) -> None:
    with pytest.raises(VolsamError, match=r"train\.crop is 4096"):
        train(settings(images, crop=4096), tmp_path, parent)
    assert not [*tmp_path.iterdir()]
    train(settings(images), tmp_path, parent)
    with pytest.raises(VolsamError, match=r"train\.crop is 4096"):
        train(settings(images, crop=4096), tmp_path, parent)
    assert not [*(tmp_path / "mine").glob(".training/*")]


def test_the_card_says_what_it_learnt_from_and_how(
    images: Path, parent: str, tmp_path: Path
) -> None:
    chosen = settings(images, licence="CC-BY-4.0", objects=None)
    train(chosen, tmp_path, parent)
    described = ModelStore(tmp_path).version("mine", 1).description()
    (data,) = described["data"]
    assert data["labels"] == chosen.data[0].labels  # type: ignore[union-attr]
    assert data["digest"]
    recipe = described["recipe"]
    assert {k: recipe[k] for k in ("batch", "objects", "precision", "processes", "volsam")} == {
        "batch": 1,
        "objects": 10,
        "precision": "fp32",
        "processes": 1,
        "volsam": __version__,
    }
    assert described["licence"] == "CC-BY-4.0"
    assert described["held_out"]
    assert "CC-BY-4.0" in (tmp_path / "mine" / "1" / "card.md").read_text()
    again, said = train(settings(images, objects=None), tmp_path, parent)
    assert again["version"] == 1  # a licence is no part of a training
    del said


def test_annotations_on_the_card(tmp_path: Path) -> None:
    store = AnnotationStore(tmp_path)
    for number, licence in enumerate(("CC0-1.0", "CC0-1.0", "")):
        image = np.full((1, 16, 16), number, np.uint8)
        region = Box((number, 0, 0), (number + 1, 16, 16))
        source = f"{number % 2}.tif"
        known = Provenance(source=source, region=region, licence=licence, complete=True)
        store.add(image, np.eye(16, dtype=np.uint8)[None] + image, None, known)
    (data,) = data_sources(Train(name="mine", data=str(tmp_path)))
    assert data["licence"] == "CC0-1.0, not stated"
    assert data["sources"] == ["0.tif", "1.tif"]
    assert (data["annotations"], data["slices"]) == (3, 3)


def test_progress_is_told_while_models_are_compared(
    images: Path, parent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("volsam.evaluate.progress.PAUSE", 0.0)
    _, said = train(settings(images), tmp_path, parent)
    for begin in ("tunes thresholds: predict, 1", "tunes thresholds: search", "compares: predict"):
        assert any(line.startswith(begin) for line in said), begin


def test_thresholds_are_tuned_in_pixels_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the scale, what is found means the same to the pipeline, which converts it back."""
    from types import SimpleNamespace

    from volsam.evaluate.suite import Pair
    from volsam.train import run as train_run

    labels = np.zeros((64, 64), np.uint32)
    labels[8:40, 8:40] = 1
    distance = np.where(labels > 0, 0.2, 1.0)
    maps = np.stack([labels > 0, distance, distance]).astype(np.float32)
    monkeypatch.setattr(train_run, "predict_image", lambda model, image, scale: maps)
    asked = []

    def search(evaluator, grid, **options):  # type: ignore[no-untyped-def]
        asked.append((grid, options["start"]))
        end = -1 if len(asked) == 1 else 0
        best = {name: values[end] for name, values in grid.items()}
        return SimpleNamespace(best=best, scores={"mSA": 0.5 - 0.1 * len(asked)})

    monkeypatch.setattr(train_run, "search", search)
    ais = {"min_size": 30, "distance_smoothing": 1.2, "min_foreground": 0.8, "max_center": 0.3}
    model = SimpleNamespace(ais=ais)
    pair = Pair("one", np.zeros((64, 64), np.float32), labels)
    found, _ = train_run.tune(model, [pair], 0.5)  # type: ignore[arg-type]
    (grid, start), (_, other) = asked
    assert (start["min_size"], start["distance_smoothing"]) == (120, 2.4)
    assert (start["min_foreground"], start["max_center"]) == (0, 1)  # single objects are not judged
    assert (other["min_size"], other["distance_smoothing"]) == (0, 3.2)
    largest = {name: values[-1] for name, values in train_run.AIS_GRID.items()}
    assert grid["min_size"][-1] == 4 * largest["min_size"]
    assert found == largest
