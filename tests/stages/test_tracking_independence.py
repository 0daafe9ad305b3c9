"""Runs of frames, order and workers are no part of lineages: 200 random combinations, byte for byte."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scenes
import tifffile

from volsam.blocks.ledger import record_path
from volsam.paths import SamplePaths
from volsam.stages import observe as observe_stage

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
FIRST = ("ingest", "plan", "number", "label", "measure")
REST = ("observe", "link", "tracks", "export")
COMBINATIONS = 100  # of each sequence


def synthetic(folder: Path) -> dict[str, Any]:
    """Cells that wander through each other's way, come, go and divide."""
    rng = np.random.default_rng(5)
    rows, columns = np.indices((96, 96))
    labels = np.zeros((12, 96, 96), np.uint16)
    cells = [(rng.uniform(8, 88, 2), rng.normal(0, 1.5, 2)) for _ in range(14)]
    for frame in range(len(labels)):
        for number in rng.permutation(len(cells)):
            (y, x), _ = cells[number]
            labels[frame][(rows - y) ** 2 + (columns - x) ** 2 <= 16] = number + 1
        moved = []
        for place, step in cells:
            place = place + step + rng.normal(0, 0.7, 2)
            if rng.random() < 0.04:
                moved.append((place + np.array([0, 5]), step))
            if rng.random() > 0.03:
                moved.append((place, step))
        cells = moved
    image = (200 * (labels > 0) + rng.normal(100, 8, labels.shape)).astype(np.uint16)
    return written(folder, image, labels)


def real(folder: Path) -> dict[str, Any]:
    """A part of a real sequence of nuclei with silver masks."""
    home = SHARED / "ctc_fluo_hela"
    if not home.is_dir():
        pytest.skip(f"no data at {home}")
    part = (slice(200, 500), slice(400, 700))
    images = [tifffile.imread(home / "01" / f"t{t:03}.tif")[part] for t in range(12)]
    masks = [tifffile.imread(home / "01_ST/SEG" / f"man_seg{t:03}.tif")[part] for t in range(12)]
    return written(folder, np.stack(images), np.stack(masks))


def written(folder: Path, image: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    folder.mkdir()
    tifffile.imwrite(folder / "image.tif", image, photometric="minisblack")
    tifffile.imwrite(folder / "labels.tif", labels, photometric="minisblack")
    sample = {
        "image": str(folder / "image.tif"),
        "segmentation": str(folder / "labels.tif"),
        "axes": "tyx",
        "voxel_size": {"y": 1.0, "x": 1.0},
    }
    return {"task": "track", "results": str(folder / "r"), "samples": {scenes.SAMPLE: sample}}


def forget(paths: SamplePaths) -> None:
    """Let the stages of linking run again, from nothing."""
    for stage in REST:
        for path in (paths.marker(stage), record_path(paths, stage), paths.ledger(stage)):
            path.unlink(missing_ok=True)
        shutil.rmtree(paths.tables(stage), ignore_errors=True)
    for path in (paths.ctc, paths.geff):
        shutil.rmtree(path, ignore_errors=True)


def outputs(paths: SamplePaths) -> dict[str, Any]:
    """Every byte that users open."""
    files = (paths.lineage, paths.tracks_csv, paths.trackmate, *sorted(paths.ctc.iterdir()))
    stores = scenes.tree_digest(paths.store / "labels") | scenes.tree_digest(paths.geff)
    return stores | {path.name: path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("sequence", [synthetic, real])
def test_lineages_do_not_depend_on_how_they_are_computed(
    sequence: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = sequence(tmp_path / "data")
    data["track"] = {"window": 5, "overlap": 3}
    paths = scenes.run_pipeline(data, stages=FIRST)
    rng = random.Random(1)
    expected: dict[str, Any] = {}
    for number in range(COMBINATIONS):
        forget(paths)
        monkeypatch.setattr(observe_stage, "RUN", rng.randint(1, 13))
        seed = rng.random()

        def order(blocks: list[Any], seed: float = seed) -> list[Any]:
            return random.Random(seed).sample(blocks, len(blocks))

        several = {"cluster": "local", "workers": 2} if number % 50 == 49 else {}
        scenes.run_pipeline(data, stages=REST, order=order, **several)
        found = outputs(paths)
        expected = expected or found
        assert found == expected, f"combination {number}"
