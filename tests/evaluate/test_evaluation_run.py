"""Models side by side: what is computed, what is kept, and what the page says."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import tiny
from pydantic import ValidationError

from volsam.annotate.store import AnnotationStore
from volsam.config import Config, validate
from volsam.errors import VolsamError
from volsam.evaluate import run
from volsam.evaluate.run import candidates, evaluate_models, gather_images
from volsam.evaluate.settings import Evaluate
from volsam.evaluate.suite import as_trained
from volsam.inputs import evaluation_inputs
from volsam.paths import EvaluationPaths


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two models with prompts, one without, and images."""
    folder = tmp_path_factory.mktemp("scene")
    return {
        "a": tiny.write_model(folder / "a", 0),
        "b": tiny.write_model(folder / "b", 1),
        "mute": tiny.write_model(folder / "mute", 2, prompts=False),
        "data": [tiny.write_discs(folder / "images", 2)],
        "tuning": [tiny.write_discs(folder / "tuning", 1, 9)],
    }


def configured(
    folder: Path, scene: dict[str, Any], more: dict[str, Any] | None = None, **evaluate: Any
) -> Config:
    settings = {"data": scene["data"], "models": [scene["a"], scene["b"]], "rounds": 1}
    data = {"task": "evaluate", "results": str(folder / "results"), "evaluate": settings | evaluate}
    return validate(data | (more or {}))


def quiet(text: str) -> None:
    del text


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Which parts of which models were computed."""
    calls: list[tuple[str, str]] = []
    real = run.evaluate_model

    def count(model: Any, images: Any, **options: Any) -> dict[str, Any]:
        calls.append((model.name, "interactive" if options["interactive"] else "automatic"))
        return real(model, images, **options)

    monkeypatch.setattr(run, "evaluate_model", count)
    return calls


def test_everything_is_written_and_told(
    tmp_path: Path, scene: dict[str, Any], counted: list[tuple[str, str]]
) -> None:
    config = configured(
        tmp_path,
        scene,
        models=[scene["a"], scene["b"], scene["mute"]],
        grid=True,
        tuning=scene["tuning"],
        neurites=True,
    )
    scores = evaluate_models(config, say=quiet)
    paths = EvaluationPaths(config.results, "models")
    assert json.loads(paths.scores.read_text()) == scores
    assert list(scores["models"]) == [scene["a"], scene["b"], scene["mute"]]
    assert len(scores["images"]) == 2
    assert len(scores["tuning"]) == 1
    assert scores["inputs"] == evaluation_inputs(config)
    first, _, mute = scores["models"].values()
    assert first["grid"]["on"] == "tuning"
    assert len(first["interactive"]["curves"]) == 4
    assert set(first["neurites"]["mean"]) >= {"vi", "rand_error"}
    assert "interactive" not in mute
    assert mute["gaps"] == [f"Model {scene['mute']} takes no prompts and is left out."]
    pictures = {p.name for p in paths.folder.glob("*.png")}
    assert pictures == {
        *("scores.png", "interactive-iou.png", "interactive-msa.png"),
        *("grid-1.png", "grid-2.png", "grid-3.png"),
    }
    page = paths.report.read_text()
    for text in (*scores["models"], mute["gaps"][0], "adapted Rand error", "Search for parameters"):
        assert text in page
    assert page.count("data:image/png") == 6
    # In the letters of the pictures, which differ with the names of the models, it stands by chance.
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    assert not list(Path(config.results).rglob("*.partial"))


def test_what_is_known_is_not_computed_again(
    tmp_path: Path, scene: dict[str, Any], counted: list[tuple[str, str]]
) -> None:
    config = configured(tmp_path, scene)
    paths = EvaluationPaths(config.results, "models")
    parts = ("automatic", "interactive")
    evaluate_models(config, say=quiet)
    assert counted == [("a", part) for part in parts] + [("b", part) for part in parts]
    before = paths.scores.read_bytes(), paths.report.read_bytes()
    counted.clear()
    evaluate_models(config, say=quiet)
    assert counted == []
    assert (paths.scores.read_bytes(), paths.report.read_bytes()) == before
    evaluate_models(configured(tmp_path, scene, rounds=2), say=quiet)
    assert counted == [("a", "interactive"), ("b", "interactive")]
    counted.clear()
    fewer = configured(tmp_path, scene, models=[scene["b"]], interactive=False, name="one")
    evaluate_models(fewer, say=quiet)
    assert counted == []
    one = EvaluationPaths(config.results, "one")
    assert [p.name for p in one.folder.glob("*.png")] == ["scores.png"]
    evaluate_models(configured(tmp_path, scene, interactive=False), say=quiet)
    assert [p.name for p in paths.folder.glob("*.png")] == ["scores.png"]


def test_a_kill_loses_one_part_at_most(
    tmp_path: Path,
    scene: dict[str, Any],
    counted: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = configured(tmp_path, scene)
    with monkeypatch.context() as patch:
        counting = run.evaluate_model

        def die(model: Any, images: Any, **options: Any) -> dict[str, Any]:
            if model.name == "b" and options["interactive"]:
                raise KeyboardInterrupt
            return counting(model, images, **options)

        patch.setattr(run, "evaluate_model", die)
        with pytest.raises(KeyboardInterrupt):
            evaluate_models(config, say=quiet)
    assert not EvaluationPaths(config.results, "models").scores.exists()
    damaged = sorted((EvaluationPaths(config.results, "").work / "parts").glob("*.json"))
    assert len(damaged) == 3
    counted.clear()
    evaluate_models(config, say=quiet)
    assert counted == [("b", "interactive")]
    damaged[0].write_text('{"result": {')
    counted.clear()
    evaluate_models(config, say=quiet)
    assert len(counted) == 1


def test_changed_images_and_weights_are_computed_again(
    tmp_path: Path, scene: dict[str, Any], counted: list[tuple[str, str]]
) -> None:
    images = tmp_path / "images"
    own = {**scene, "data": [tiny.write_discs(images, 2)]}
    own["a"] = tiny.write_model(tmp_path / "a", 0)
    config = configured(tmp_path, own, interactive=False)
    evaluate_models(config, say=quiet)
    known = evaluation_inputs(config)
    labels = tifffile.imread(images / "lab" / "0.tif")
    labels[labels == 1] = 0
    tifffile.imwrite(images / "lab" / "0.tif", labels)
    assert evaluation_inputs(config) != known
    counted.clear()
    evaluate_models(config, say=quiet)
    assert len(counted) == 2
    known = evaluation_inputs(config)
    tiny.write_model(tmp_path / "a", 5)
    assert evaluation_inputs(config) != known
    counted.clear()
    evaluate_models(config, say=quiet)
    assert counted == [("a", "automatic")]


def test_unknown_pixels_and_images(tmp_path: Path, scene: dict[str, Any]) -> None:
    entry = tiny.write_discs(tmp_path, 3)
    empty = np.zeros((56, 60), np.uint16)
    tifffile.imwrite(tmp_path / "lab" / "0.tif", empty)
    images, tuning = gather_images(configured(tmp_path, scene, data=[entry]))
    assert len(images) == 3  # nothing to be found there counts, too
    assert images[1].ignore is None
    assert not tuning
    images, _ = gather_images(configured(tmp_path, scene, data=[{**entry, "sparse": True}]))
    assert len(images) == 2  # nothing is known of the empty one
    assert images[0].ignore is not None
    np.testing.assert_array_equal(images[0].ignore, images[0].labels == 0)


def test_annotations_and_held_out_images(tmp_path: Path, scene: dict[str, Any]) -> None:
    notes = str(tmp_path / "notes")
    with pytest.raises(VolsamError, match="no image with truth in"):
        evaluate_models(configured(tmp_path, scene, data=notes), say=quiet)
    assert len(AnnotationStore(notes)) == 0
    train = {"name": "mine", "data": [tiny.write_discs(tmp_path / "many", 12)], "held_out": 0.3}
    config = configured(tmp_path, scene, {"train": train}, data="held-out", grid=True)
    images, tuning = gather_images(config)
    assert evaluation_inputs(config).keys() >= {str(tmp_path / "many" / "im" / "0.tif")}
    names = {pair.name for pair in images} | {pair.name for pair in tuning}
    assert len(names) == len(images) + len(tuning) < 12
    assert images
    assert tuning


def test_models_that_are_the_same_are_refused(tmp_path: Path, scene: dict[str, Any]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(Path(scene["a"]).parent, copy)
    config = configured(tmp_path, scene, models=[scene["a"], str(copy / "model.json")])
    with pytest.raises(VolsamError, match="are the same weights"):
        candidates(config)
    train = {"train": {"name": "mine", "parent": "embedded"}}
    untrained = configured(tmp_path, scene, train, models=["embedded", "mine"])
    with pytest.raises(VolsamError, match="Models embedded and mine are the same weights"):
        candidates(untrained)
    assert len(candidates(configured(tmp_path, scene))) == 2


def test_default_is_the_key_model(tmp_path: Path, scene: dict[str, Any]) -> None:
    (only,) = candidates(configured(tmp_path, scene, {"model": scene["b"]}, models=None))
    assert only.name == only.spec == scene["b"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": ["a", "a"]}, "twice"),
        ({"tuning": "more"}, "grid must be true"),
        ({"tuning": "held-out", "grid": True}, "worthless"),
        ({"models": []}, "at least 1"),
    ],
)
def test_settings_that_contradict_themselves(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Evaluate.model_validate(settings)


def test_intensities_are_as_the_model_was_trained(tmp_path: Path, scene: dict[str, Any]) -> None:
    config = configured(tmp_path, scene)
    images, _ = gather_images(config)
    stretched = tiny.write_model(tmp_path / "minmax", 0, normalisation="minmax")
    own, other = (run.load_model(path) for path in (scene["a"], stretched))
    assert as_trained(images, own) == images
    for pair, changed in zip(images, as_trained(images, other), strict=True):
        assert (changed.image.min(), changed.image.max()) == pytest.approx((0, 1))
        assert np.corrcoef(pair.image.ravel(), changed.image.ravel())[0, 1] == pytest.approx(1)


def test_models_of_another_split_are_told(tmp_path: Path, scene: dict[str, Any]) -> None:
    train = {"name": "mine", "data": [tiny.write_discs(tmp_path / "many", 12)], "held_out": 0.3}
    plan = configured(tmp_path, scene, {"train": train}, data="held-out")
    names = [pair.name for pair in gather_images(plan)[0]]
    known = {"training": "x", "held_out": names}
    same = tiny.write_model(tmp_path / "same", 4, **known)
    fewer = tiny.write_model(tmp_path / "fewer", 5, **{**known, "held_out": names[1:]})
    models = [scene["a"], same, fewer]
    config = configured(
        tmp_path, scene, {"train": train}, data="held-out", models=models, interactive=False
    )
    found = evaluate_models(config, say=quiet)["models"]
    assert [len(found[name]["gaps"]) for name in models] == [0, 0, 1]
    assert f"may have learnt from 1 of the {len(names)} images" in found[fewer]["gaps"][0]
