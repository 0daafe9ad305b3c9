"""Automatic mask generation in evaluations: searched on candidates that are predicted once."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from numpy.typing import NDArray

from volsam.config import Config, validate
from volsam.errors import VolsamError
from volsam.evaluate import run, suite
from volsam.evaluate.amg import AmgEvaluator, amg_parameters, loosest
from volsam.evaluate.grid import AMG_GRID, search
from volsam.evaluate.metrics import segmentation_accuracy
from volsam.evaluate.run import evaluate_models
from volsam.evaluate.suite import Pair, evaluate_model
from volsam.geometry import Box
from volsam.models import Model, load_model
from volsam.paths import EvaluationPaths
from volsam.segment.amg import AmgParameters, segment_amg
from volsam.segment.masks import Candidates, Collector

SQUARES = ((2, 2), (2, 20), (20, 2), (20, 20))
COMBINATIONS = 13 * 15


def found(wrong: float = 0.75) -> tuple[Candidates, NDArray[np.int64]]:
    """Good masks of squares, and a worse one in between that is no object."""
    collected = Collector((40, 40), 0.6, 0.6)
    truth = np.zeros((40, 40), np.int64)
    for number, (y, x) in enumerate(SQUARES, start=1):
        box = Box((y, x), (y + 10, x + 10))
        truth[box.slices] = number
        collected.add(box, np.ones((10, 10), bool), 0.8, 0.82)
    collected.add(Box((33, 0), (36, 30)), np.ones((3, 30), bool), wrong, 0.9)
    return collected.candidates(), truth


def test_scores_are_of_the_labels() -> None:
    candidates, truth = found()
    evaluator = AmgEvaluator([candidates, candidates], [truth, truth * 0])
    parameters = {"pred_iou_thresh": 0.7, "stability_score_thresh": 0.8, "min_size": 20.0}
    labels = segment_amg(candidates, AmgParameters(0.7, 0.8, min_size=20))
    scores = evaluator(parameters)
    first, second = segmentation_accuracy(labels, truth), segmentation_accuracy(labels, truth * 0)
    assert scores["mSA"] == pytest.approx((first["mSA"] + second["mSA"]) / 2)
    assert set(scores) == {"mSA", "SA50", "SA75", "precision", "recall"}
    ignore = np.zeros(truth.shape, bool)
    ignore[30:] = True
    masked = AmgEvaluator([candidates], [truth], [ignore])
    assert masked(parameters)["mSA"] == 1
    plain = AmgEvaluator([candidates], [truth])
    other = AmgEvaluator([found(0.76)[0]], [truth])
    assert len({plain.digest, masked.digest, other.digest}) == 3
    assert plain.digest == AmgEvaluator([found()[0]], [truth]).digest
    with pytest.raises(VolsamError, match="AMG has no parameter 'center_threshold'"):
        evaluator({"center_threshold": 0.5})


def test_search_finds_the_thresholds() -> None:
    candidates, truth = found()
    start = dataclasses.asdict(AmgParameters())
    evaluator = AmgEvaluator([candidates], [truth])
    result = search(evaluator, AMG_GRID, start=start)
    assert len(result.table) == 1 + COMBINATIONS
    assert {name: result.table[0][name] for name in start} == start
    assert result.table[0]["mSA"] == 0
    assert result.scores["mSA"] == 1
    best = amg_parameters(result.best)
    assert 0.75 <= best.pred_iou_thresh < 0.8
    assert best.stability_score_thresh <= 0.82
    assert best.box_nms_thresh == 0.7
    assert best.with_background is True
    assert search(evaluator, AMG_GRID).best == {  # without a start only the grid is known
        name: result.best[name] for name in AMG_GRID
    }


def test_candidates_are_kept_for_the_whole_grid() -> None:
    assert loosest({}, AmgParameters()) == AmgParameters()
    assert loosest(AMG_GRID, AmgParameters()) == AmgParameters(0.6, 0.6)
    assert loosest(AMG_GRID, AmgParameters(0.3, min_size=5)) == AmgParameters(0.3, 0.6, min_size=5)


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Predictions of candidates, on fewer points than usual and with looser thresholds."""
    calls: list[str] = []
    real = suite.predict_candidates

    def few(model: Model, image: Any, **options: Any) -> Candidates:
        calls.append(model.name)
        options["loosest"] = AmgParameters(-np.inf, 0)
        return real(model, image, points_per_side=6, **options)

    monkeypatch.setattr(suite, "predict_candidates", few)
    return calls


def test_every_image_is_predicted_once(tmp_path: Path, points: list[str]) -> None:
    model = load_model(tiny.write_model(tmp_path / "tiny", prompts=True))
    rng = np.random.default_rng(0)
    truth = found()[1]
    pairs = [Pair(name, rng.random(truth.shape, np.float32), truth) for name in "abc"]
    settings: dict[str, Any] = {"interactive": False, "seed": 0, "method": "amg", "neurites": True}
    tuned = evaluate_model(model, pairs[:2], tuning=pairs[2:], grid=True, **settings)
    assert len(points) == 3
    assert len(tuned["grid"]["table"]) == 1 + COMBINATIONS
    assert tuned["automatic"]["method"] == "amg"
    assert tuned["automatic"]["parameters"] == tuned["grid"]["best"]
    assert json.loads(json.dumps(tuned)) == tuned
    assert "vi" in tuned["neurites"]["mean"]
    own = evaluate_model(model, pairs[:2], grid=False, **settings)
    assert own["automatic"]["parameters"] == dataclasses.asdict(AmgParameters())


def configured(folder: Path, models: list[str], automatic: str, **more: Any) -> Config:
    data = tiny.write_discs(folder / "images", 1)
    settings = {"data": [data], "models": models, "rounds": 0, "automatic": automatic}
    results = str(folder / "results")
    return validate({"task": "evaluate", "results": results, "evaluate": settings | more})


def quiet(text: str) -> None:
    del text


def test_both_stand_side_by_side(tmp_path: Path, points: list[str]) -> None:
    full = tiny.write_model(tmp_path / "full", 0)
    mute = tiny.write_model(tmp_path / "mute", 1, prompts=False)
    config = configured(tmp_path, [full, mute], "both", grid=True)
    scores = evaluate_models(config, say=quiet)
    assert list(scores["models"]) == [full, f"{full} (AMG)", mute]
    methods = [model["automatic"]["method"] for model in scores["models"].values()]
    assert methods == ["ais", "amg", "ais"]
    assert "interactive" in scores["models"][full]
    assert "interactive" not in scores["models"][f"{full} (AMG)"]
    paths = EvaluationPaths(config.results, "models")
    assert len(list(paths.folder.glob("grid-*.png"))) == 3
    page = paths.report.read_text()
    for text in ("AMG: box nms thresh", "AIS: boundary threshold", "best of 196 combinations"):
        assert text in page
    assert points == ["full"]
    evaluate_models(configured(tmp_path, [full], "amg", grid=True, name="other"), say=quiet)
    assert points == ["full"]  # kept
    with pytest.raises(VolsamError, match="takes no prompts, which AMG needs"):
        evaluate_models(configured(tmp_path, [mute], "amg", grid=True), say=quiet)


def test_a_model_without_decoder_gets_amg(
    tmp_path: Path, points: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny.write_model(tmp_path / "bare", 0)
    real = run.load_model

    def bare(*arguments: Any, **options: Any) -> Model:
        model = real(*arguments, **options)
        model._decoder = None
        return model

    monkeypatch.setattr(run, "load_model", bare)
    scores = evaluate_models(configured(tmp_path, [path], "auto"), say=quiet)
    (name,) = scores["models"]
    assert name == f"{path} (AMG)"
    assert "interactive" in scores["models"][name]
    again = evaluate_models(configured(tmp_path, [path], "both"), say=quiet)
    assert list(again["models"]) == [name]
    assert points == ["bare"]
    with monkeypatch.context() as patch:
        patch.setattr(suite, "predict_candidates", _out_of_memory)
        with pytest.raises(VolsamError, match=r"lower evaluate\.batch"):
            evaluate_models(configured(tmp_path, [path], "auto", scale=0.9), say=quiet)


def _out_of_memory(*_: Any, **__: Any) -> None:
    raise MemoryError
