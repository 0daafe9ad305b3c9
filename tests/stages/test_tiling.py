"""Tiled against untiled: with a halo that covers an object's radius, tiles do not show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scenes

from volsam.evaluate.metrics import segmentation_accuracy

RADIUS = (8, 14)
WHOLE = 512  # a tile that holds the whole plane
BLOCK = {"block_slices": 8, "block_tiles": 8}


def labels_by(folder: Path, results: Path, **options: Any) -> npt.NDArray[Any]:
    output = {"chunk": [8, 256, 256], "shard": [8, 512, 512]}
    data = scenes.settings(folder, results, **{"output": output, "compute": BLOCK, **options})
    stages = scenes.STAGES[: scenes.STAGES.index("measure")]
    return scenes.read_labels(scenes.run_pipeline(data, stages=stages))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("shape", "count"), [((1, 260, 260), 110), ((10, 160, 160), 120)])
def test_tiles_agree_with_the_whole_image(
    shape: tuple[int, int, int], count: int, seed: int, tmp_path: Path
) -> None:
    """Touching nuclei, stored whole-image predictions with noise, a halo of one radius."""
    truth = scenes.cells(shape, count, RADIUS, seed)
    folder = tmp_path / "scene"
    scenes.write_scene(folder, truth, noise=0.1, seed=seed)
    untiled = labels_by(folder, tmp_path / "untiled", tile=WHOLE, halo=0)
    tiled = labels_by(folder, tmp_path / "tiled", tile=48, halo=16)
    if shape[0] == 1:  # the scene is a fair one
        assert segmentation_accuracy(untiled, truth)["SA50"] > 0.9
    assert segmentation_accuracy(tiled, untiled)["SA50"] >= 0.99


def test_columns_through_all_slices_are_the_same_partition(tmp_path: Path) -> None:
    """Straight columns: tiled and untiled give the same objects through all slices."""
    plane = scenes.cells((1, 150, 160), 45, RADIUS, 7)
    truth = np.repeat(plane, 6, axis=0)
    folder = tmp_path / "scene"
    scenes.write_scene(folder, truth, noise=0.02)
    untiled = labels_by(folder, tmp_path / "untiled", tile=WHOLE, halo=0)
    tiled = labels_by(folder, tmp_path / "tiled", tile=40, halo=16)
    for labels in (untiled, tiled):
        for number in np.unique(labels)[1:]:
            assert (labels == number).any(axis=(1, 2)).all()
    assert segmentation_accuracy(tiled, untiled)["SA50"] == 1.0


def test_nothing_is_cut_in_z(tmp_path: Path) -> None:
    """Blocks of slices, one by one or all at once: the same objects."""
    folder = tmp_path / "scene"
    scenes.write_scene(folder, scenes.cells((6, 150, 160), 50, RADIUS, 1), noise=0.1)
    whole = labels_by(folder, tmp_path / "whole", tile=WHOLE, halo=0)
    assert whole.max() > 30
    for size in (1, 4):
        compute = {"block_slices": size, "block_tiles": 1}
        cut = labels_by(folder, tmp_path / str(size), tile=WHOLE, halo=0, compute=compute)
        np.testing.assert_array_equal(cut, whole)
