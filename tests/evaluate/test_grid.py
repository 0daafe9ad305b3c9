"""Grid search: what is found, that nothing is evaluated twice, and that it goes on after a kill."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage as ndi

from volsam.errors import VolsamError
from volsam.evaluate.grid import (
    AIS_GRID,
    AIS_GRID_FULL,
    AMG_GRID,
    AisEvaluator,
    ais_parameters,
    search,
)
from volsam.evaluate.metrics import segmentation_accuracy
from volsam.segment.ais import AisParameters, segment_ais

GRID = {"a": (0.0, 1.0, 2.0, 3.0), "b": (-1.0, 0.0, 1.0)}


class Hill:
    """Highest at (2, 1); counts its calls."""

    digest = "hill"

    def __init__(self, limit: int | None = None) -> None:
        self.calls: list[dict[str, float]] = []
        self.limit = limit

    def __call__(self, parameters: Mapping[str, float]) -> dict[str, float]:
        if self.limit is not None and len(self.calls) == self.limit:
            raise KeyboardInterrupt
        self.calls.append(dict(parameters))
        return {"mSA": -((parameters["a"] - 2) ** 2) - (parameters["b"] - 1) ** 2, "other": 1.0}


def negative_sum(parameters: Mapping[str, float]) -> dict[str, float]:
    return {"mSA": -sum(parameters.values())}


def test_exhaustive_finds_the_best_and_sees_all_once() -> None:
    hill = Hill()
    seen: list[tuple[int, int]] = []
    result = search(hill, GRID, progress=lambda done, total: seen.append((done, total)))
    assert result.best == {"a": 2, "b": 1}
    assert result.scores == {"mSA": 0, "other": 1}
    assert len(hill.calls) == len(result.table) == 12
    assert result.table[0] == {"a": 0, "b": -1, "mSA": -8, "other": 1}
    assert seen == [(k, 12) for k in range(1, 13)]
    json.dumps(result.to_json())


def test_coordinates_find_it_with_fewer() -> None:
    hill = Hill()
    result = search(hill, GRID, exhaustive=False, rounds=5)
    assert result.best == {"a": 2, "b": 1}
    assert len(hill.calls) == len({tuple(c.items()) for c in hill.calls}) < 12
    # A start beside the grid counts, and what it fixes stays.
    result = search(Hill(), {"a": GRID["a"]}, exhaustive=False, start={"a": 2.1, "b": 0.5})
    assert result.best == {"a": 2, "b": 0.5}


def test_first_of_equals_and_another_metric() -> None:
    assert search(Hill(), GRID, metric="other").best == {"a": 0, "b": -1}
    with pytest.raises(VolsamError, match="no number for the metric 'dice'"):
        search(Hill(), GRID, metric="dice")
    with pytest.raises(VolsamError, match="no values"):
        search(Hill(), {"a": ()})


@pytest.mark.parametrize("exhaustive", [True, False])
def test_goes_on_after_a_kill(tmp_path: Path, exhaustive: bool) -> None:
    store = tmp_path / "work" / "grid.jsonl"
    whole = search(Hill(), GRID, exhaustive=exhaustive)
    with pytest.raises(KeyboardInterrupt):
        search(Hill(limit=4), GRID, exhaustive=exhaustive, store=store)
    with store.open("a") as file:
        file.write('{"key": "torn')
    rest = Hill()
    assert search(rest, GRID, exhaustive=exhaustive, store=store) == whole
    assert len(rest.calls) == len(whole.table) - 4
    nothing = Hill(limit=0)
    assert search(nothing, GRID, exhaustive=exhaustive, store=store) == whole


def test_other_data_is_evaluated_again(tmp_path: Path) -> None:
    store = tmp_path / "grid.jsonl"
    search(Hill(), GRID, store=store)
    again = Hill()
    search(again, GRID, store=store, data="other images")
    assert len(again.calls) == 12


def test_processes_give_the_same(tmp_path: Path) -> None:
    one = search(negative_sum, GRID)
    assert search(negative_sum, GRID, workers=2, store=tmp_path / "grid.jsonl") == one


def nuclei() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Perfect maps of a row of discs that touch in pairs."""
    y, x = np.mgrid[:40, :120]
    truth = np.zeros((40, 120), np.int64)
    center, boundary = np.ones((2, 40, 120), np.float32)
    for number, cx in enumerate((14, 31, 60, 77, 105), start=1):
        disc = (y - 20) ** 2 + (x - cx) ** 2 <= 81
        truth[disc] = number
        distance = ndi.distance_transform_edt(disc)
        boundary[disc] = (1 - distance / distance.max())[disc]
        center[disc] = (np.hypot(y - 20, x - cx) / 9)[disc]
    return np.stack([(truth > 0).astype(np.float32), center, boundary]), truth


def test_ais_evaluator() -> None:
    maps, truth = nuclei()
    evaluator = AisEvaluator([maps, maps], [truth, np.zeros_like(truth)])
    scores = evaluator({"center_threshold": 0.4, "min_size": 10.0})
    labels = segment_ais(*maps, AisParameters(center_threshold=0.4, min_size=10))
    first, second = segmentation_accuracy(labels, truth), segmentation_accuracy(labels, truth * 0)
    assert scores["mSA"] == pytest.approx((first["mSA"] + second["mSA"]) / 2)
    assert set(scores) == {"mSA", "SA50", "SA75", "precision", "recall"}
    ignore = np.zeros(truth.shape, bool)
    ignore[:, 60:] = True
    masked = AisEvaluator([maps], [truth], [ignore])
    expected = segmentation_accuracy(segment_ais(*maps), truth, mask=~ignore)["mSA"]
    assert masked({})["mSA"] == expected
    assert masked.digest != AisEvaluator([maps], [truth]).digest != evaluator.digest
    with pytest.raises(VolsamError, match="no parameter 'threshold'"):
        evaluator({"threshold": 0.5})


def test_ais_search_improves_on_bad_parameters() -> None:
    maps, truth = nuclei()
    evaluator = AisEvaluator([maps], [truth])
    start = {"center_threshold": 0.9, "boundary_threshold": 0.95, "distance_smoothing": 4.0}
    before = evaluator(start)
    result = search(evaluator, AIS_GRID, exhaustive=False, start=start)
    assert result.scores["mSA"] > before["mSA"]
    assert result.scores["SA50"] == 1
    parameters = ais_parameters(result.best)
    assert segmentation_accuracy(segment_ais(*maps, parameters), truth)["SA50"] == 1


def test_default_grids_are_of_known_parameters() -> None:
    for grid in (AIS_GRID, AIS_GRID_FULL):
        ais_parameters({name: values[0] for name, values in grid.items()})
    assert np.prod([len(v) for v in AIS_GRID_FULL.values()]) == 450
    assert AMG_GRID["stability_score_thresh"][-1] == 0.95
    assert AMG_GRID["pred_iou_thresh"][-1] == 0.9
