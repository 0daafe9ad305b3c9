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


def write_image(folder: Path, inner: str = "") -> Path:
    """The scene's image as an OME-Zarr, its voxels 3 x 1 x 1 micrometer."""
    path = folder / "image.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group = group.create_group(inner) if inner else group
    group.create_array("0", data=tifffile.imread(folder / "image.tif"), chunks=(1, 32, 32))
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [3.0, 1.0, 1.0]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": datasets}],
    }
    return path


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
