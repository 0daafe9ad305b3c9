"""What a stage reads is opened once by a worker, however many blocks there are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scenes
import tifffile

from volsam.stages import evaluate
from volsam.volume import source

LABELS = scenes.cells((12, 60, 60), 8, (9, 12), 0)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was opened."""
    times: Counter[str] = Counter()
    find = source._find_reader

    def counted(path: Path) -> Any:
        times[path.name] += 1
        return find(path)

    monkeypatch.setattr(source, "_find_reader", counted)
    return times


def test_a_mask_and_a_truth_are_opened_once(
    tmp_path: Path, opened: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "BLOCK", (2, 20, 20))
    scenes.write_scene(tmp_path, LABELS)
    tifffile.imwrite(tmp_path / "mask.tif", np.ones(LABELS.shape, np.uint8))
    sample = {name: str(tmp_path / f"{name}.tif") for name in ("mask", "truth")}
    data = scenes.settings(tmp_path, tmp_path / "results", sample=sample)
    data["evaluate"] = {"baseline": False}
    data["compute"] = {"block_slices": 2, "block_tiles": 1}
    scenes.run_pipeline(data, stages=("ingest", "plan"))
    opened.clear()
    scenes.run_pipeline(data, stages=("segment",))
    assert opened["mask.tif"] == 1
    scenes.run_pipeline(data, stages=("overlap", "partition", "label"))
    opened.clear()
    scenes.run_pipeline(data, stages=("evaluate",))
    assert opened["truth.tif"] == 1


def test_given_labels_are_opened_once(
    tmp_path: Path, opened: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("volsam.stages.number.BLOCK", (2, 20, 20))
    scenes.write_scene(tmp_path, LABELS)
    sample = {"segmentation": str(tmp_path / "truth.tif")}
    data = scenes.settings(tmp_path, tmp_path / "results", sample=sample)
    data.pop("model")
    scenes.run_pipeline(data, stages=("ingest", "plan"))
    opened.clear()
    scenes.run_pipeline(data, stages=("number",))
    assert opened["truth.tif"] == 1
