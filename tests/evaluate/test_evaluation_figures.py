"""Figures and tables are written, whole, for what results there can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from volsam.errors import VolsamError
from volsam.evaluate.figures import grid_figure, interactive_figure, scores_figure, table_markdown
from volsam.evaluate.grid import search

SCORES = ("mSA", "SA50", "SA75", "precision", "recall")
DENSE = ("vi_split", "vi_merge", "vi", "rand_error")


def result(level: float, objects: int = 9) -> dict[str, Any]:
    rise = [level + 0.1 * k for k in range(4)]
    curves = [
        {
            "start": start,
            "with_mask": masked,
            "name": f"{start}, {'with' if masked else 'without'} mask",
            "objects": objects,
            "iou": rise if objects else [None] * 4,
            **dict.fromkeys(SCORES, rise),
        }
        for start in ("point", "box")
        for masked in (False, True)
    ]

    def part(names: tuple[str, ...]) -> dict[str, Any]:
        mean, deviation = dict.fromkeys(names, level), dict.fromkeys(names, 0.1)
        return {"per_image": [{}] * 4, "mean": mean, "deviation": deviation}

    interactive = {"rounds": 3, "curves": curves}
    return {"automatic": part(SCORES), "neurites": part(DENSE), "interactive": interactive}


BOTH = {"before": result(0.4), "after": result(0.5)}


def test_pictures(tmp_path: Path) -> None:
    interactive_figure(BOTH, tmp_path / "curves.png")
    interactive_figure({"empty": result(0.4, objects=0)}, tmp_path / "empty.png", metric="iou")
    scores_figure(BOTH, tmp_path / "scores.svg")
    grid = {"center_threshold": (0.3, 0.5), "boundary_threshold": (0.4, 0.5, 0.6), "min_size": (0,)}
    found = search(lambda p: {"mSA": -abs(p["center_threshold"] - 0.5)}, grid, exhaustive=False)
    grid_figure(found.to_json(), tmp_path / "grid.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "curves.png",
        "empty.png",
        "grid.png",
        "scores.svg",
    ]
    for path in tmp_path.glob("*.png"):
        picture = np.asarray(Image.open(path).convert("L"))
        assert min(picture.shape) > 300
        assert picture.std() > 5
    assert "<svg" in (tmp_path / "scores.svg").read_text()


def test_refusals_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(VolsamError, match="no interactive part"):
        interactive_figure({"a": {}}, tmp_path / "a.png")
    with pytest.raises(VolsamError, match=r"end its name in \.png"):
        scores_figure(BOTH, tmp_path / "a.exe")
    found = search(lambda p: {"mSA": 0.0}, {"a": (1.0,)}).to_json()
    with pytest.raises(VolsamError, match="plot one of a"):
        grid_figure(found, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_table() -> None:
    text = table_markdown(BOTH | {"only | curves": {"interactive": BOTH["after"]["interactive"]}})
    automatic, neurites, interactive = text.strip().split("\n\n")
    assert automatic.splitlines()[2].startswith("| before | 4 | 0.400 ± 0.100 |")
    assert len(automatic.splitlines()) == len(neurites.splitlines()) == 4
    assert "| before | point, without mask | 9 | 3 | 0.400 | 0.500 | 0.700 |" in interactive
    assert len(interactive.splitlines()) == 2 + 3 * 4
    assert r"| only \| curves |" in interactive
    assert "–" in table_markdown({"none": result(0.4, objects=0)})
