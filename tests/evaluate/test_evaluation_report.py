"""The page of an evaluation, from made-up scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from volsam.evaluate.grid import MEANS
from volsam.evaluate.report import _differences, write_report


def model(values: list[float], objects: int | None = None) -> dict[str, Any]:
    mean = dict.fromkeys(MEANS, sum(values) / len(values))
    result: dict[str, Any] = {
        "path": "model.json",
        "hash": "0123",
        "seconds": {"automatic": 1.0},
        "gaps": [],
        "automatic": {
            "parameters": {"min_size": 3},
            "per_image": [{"name": f"{n}.tif", "mSA": value} for n, value in enumerate(values)],
            "mean": mean,
            "deviation": dict.fromkeys(MEANS, 0.1),
        },
    }
    if objects is not None:
        iou = [0.5, 0.7] if objects else [None, None]
        curve = {"start": "box", "with_mask": True, "name": "box, with mask", "objects": objects}
        curve |= {"iou": iou, **{key: [0.4, 0.6] for key in MEANS}}
        result["interactive"] = {"rounds": 1, "curves": [curve]}
    return result


def scores(models: dict[str, Any]) -> dict[str, Any]:
    images = next(iter(models.values()))["automatic"]["per_image"]
    settings = {"name": "test", "rounds": 1, "data": [{"labels": "lab/*.tif"}], "grid": False}
    return {
        "version": "1",
        "settings": {"evaluate": settings},
        "inputs": {"lab/0.tif": "ffff"},
        "images": [row["name"] for row in images],
        "tuning": [],
        "models": models,
    }


def test_differences_are_paired() -> None:
    first = [0.1, 0.5, 0.9]
    better, mixed, _ = _differences(
        {
            "first": model(first),
            "better": model([v + d for v, d in zip(first, (0.02, 0.03, 0.04), strict=True)]),
            "mixed": model([0.3, 0.3, 0.9]),
            "same": model(first),
        }
    )
    assert (better.mean, better.error) == ("+0.030", "± 0.006")
    assert (better.better, better.worse, better.sign) == (3, 0, 1)
    assert (mixed.mean, mixed.better, mixed.worse, mixed.sign) == ("+0.000", 1, 1, 0)
    (single,) = _differences({"a": model([0.5]), "b": model([0.7])})
    assert (single.error, single.sign) == ("–", 0)


def test_names_are_text_and_plots_of_earlier_settings_go(tmp_path: Path) -> None:
    mine = tmp_path / "mine.png"
    for path in (mine, tmp_path / "grid-2.png", tmp_path / "interactive-iou.png"):
        path.write_bytes(b"old")
    name = "<script>alert(1)</script>"
    write_report(tmp_path, scores({name: model([0.5, 0.6])}))
    page = (tmp_path / "report.html").read_text()
    assert name not in page
    assert "&lt;script&gt;" in page
    assert "Interactive segmentation" not in page
    assert {p.name for p in tmp_path.iterdir()} == {"mine.png", "scores.png", "report.html"}


@pytest.mark.parametrize("objects", [0, 9])
def test_without_objects_there_is_nothing_to_draw(tmp_path: Path, objects: int) -> None:
    write_report(tmp_path, scores({"a": model([0.5], objects), "b": model([0.5])}))
    assert (tmp_path / "interactive-iou.png").exists() == bool(objects)
    page = (tmp_path / "report.html").read_text()
    assert "box, with mask" in page
    assert ("0.700" in page) == bool(objects)
