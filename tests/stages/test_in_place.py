"""An OME-Zarr stays where it is, be it a group of what was named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scenes
import tifffile
import zarr

from volsam.cli.view import layers

SHAPE = (2, 32, 32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scenes.write_scene(tmp_path / "scene", scenes.cells(SHAPE, 5, (6, 8), 2))
    return tmp_path / "scene"


def write_image(folder: Path, inner: str = "", unit: str | None = "micrometer") -> Path:
    """The scene's image as an OME-Zarr of two levels; voxels are 3 x 1 x 1, or 1 without a unit."""
    path = folder / "image.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group = group.create_group(inner) if inner else group
    pixels = tifffile.imread(folder / "image.tif")
    datasets = []
    for level, step in enumerate((1, 2)):
        group.create_array(str(level), data=pixels[:, ::step, ::step], chunks=(1, 16, 16))
        scale = [{"type": "scale", "scale": [3.0 if unit else 1.0, float(step), float(step)]}]
        datasets.append({"path": str(level), "coordinateTransformations": scale})
    measure = {"unit": unit} if unit else {}
    axes = [{"name": name, "type": "space", **measure} for name in "zyx"]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": datasets}],
    }
    return path


def planned(folder: Path, results: Path, **sample: Any) -> dict[str, Any]:
    """What a run of the image alone decided."""
    data = scenes.settings(folder, results, sample={"axes": None, **sample})
    data["model"] = "embedded"
    data["tiles"] = {}
    paths = scenes.run_pipeline(data, stages=("ingest", "plan"))
    outputs: dict[str, Any] = json.loads(paths.marker("plan").read_text())["outputs"]
    return outputs


@pytest.mark.parametrize("into", ["results", "input"])
@pytest.mark.parametrize("key", ["0", None])
def test_an_image_in_a_group_is_shown_under_its_labels(
    folder: Path, tmp_path: Path, key: str | None, into: str
) -> None:
    image = write_image(folder, "0")
    sample: dict[str, Any] = {"image": str(image), "axes": None, "key": key}
    data = scenes.settings(folder, tmp_path / "r", sample=sample, output={"labels_into": into})
    paths = scenes.run_pipeline(data)
    (picture, _, first), (labels, _, second) = layers(paths.folder)
    assert (first, second) == ("image", "labels")
    np.testing.assert_array_equal(picture[0], tifffile.imread(folder / "image.tif"))
    assert np.asarray(labels[0]).any()
    store = image / "0" if into == "input" else paths.store
    stored = store / "labels" / "objects"
    said = json.loads((stored / "zarr.json").read_text())["attributes"]["ome"]
    source = said["image-label"]["source"]["image"]
    assert (stored / source).resolve() == (image / "0").resolve()


@pytest.mark.parametrize("unit", ["micrometer", None])
def test_a_stated_voxel_size_wins_at_any_level(
    folder: Path, tmp_path: Path, unit: str | None
) -> None:
    image = str(write_image(folder, unit=unit))
    size = {"z": 9, "y": 3, "x": 3}
    for level, expected in enumerate(([9, 3, 3], [9, 6, 6])):
        sample = {"image": image, "voxel_size": size, "level": level}
        found = planned(folder, tmp_path / str(level), **sample)
        assert found["plan"]["voxel_size"] == expected
        assert len(found["warnings"]) == (1 if unit else 0)
