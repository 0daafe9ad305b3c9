"""Tiled against untiled: with a halo that covers an object's radius, tiles do not show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scenes

from volsam.evaluate.metrics import segmentation_accuracy

SHAPE = (6, 150, 160)
RADIUS = (8, 14)


def labels_by(folder: Path, results: Path, **options: Any) -> npt.NDArray[Any]:
    data = scenes.settings(folder, results, **options)
    stages = scenes.STAGES[: scenes.STAGES.index("measure")]
    return scenes.read_labels(scenes.run_pipeline(data, stages=stages))


@pytest.mark.parametrize("seed", range(3))
def test_tiles_agree_with_the_whole_image(seed: int, tmp_path: Path) -> None:
    """Touching nuclei, stored whole-image predictions with noise."""
    truth = scenes.cells(SHAPE, 60, RADIUS, seed)
    folder = tmp_path / "scene"
    scenes.write_scene(folder, truth, noise=0.1, seed=seed)
    untiled = labels_by(folder, tmp_path / "untiled", tile=160, halo=0)
    tiled = labels_by(folder, tmp_path / "tiled", tile=40, halo=16, compute={"block_tiles": 4})
    assert untiled.max() > 30
    assert segmentation_accuracy(untiled, truth)["SA50"] > 0.8  # the scene is a fair one
    assert segmentation_accuracy(tiled, untiled)["SA50"] >= 0.99

    # In z nothing is cut at all: the objects of matching fragments are the same.
    for size in (1, 4):
        again = labels_by(
            folder, tmp_path / f"z{size}", tile=160, halo=0, compute={"block_slices": size}
        )
        np.testing.assert_array_equal(again, untiled)


def test_columns_through_all_slices_are_the_same_partition(tmp_path: Path) -> None:
    """Straight columns: tiled and untiled give identical objects through all slices."""
    plane = scenes.cells((1, *SHAPE[1:]), 45, RADIUS, 7)
    truth = np.repeat(plane, SHAPE[0], axis=0)
    folder = tmp_path / "scene"
    scenes.write_scene(folder, truth, noise=0.02)
    untiled = labels_by(folder, tmp_path / "untiled", tile=160, halo=0)
    tiled = labels_by(folder, tmp_path / "tiled", tile=40, halo=16)
    for labels in (untiled, tiled):
        assert len(np.unique(labels)) == len(np.unique(truth))
        for number in np.unique(labels)[1:]:
            assert (labels == number).any(axis=(1, 2)).all()
    assert segmentation_accuracy(tiled, untiled)["SA50"] == 1.0
