"""`volsam merge-slices`: label arrays in every format, though few of them tell their axes."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from volsam.cli.merge import merge_file
from volsam.volume.labels import open_level

# An object through all slices, and one in a single slice.
LABELS = np.zeros((3, 20, 24), np.uint16)
for z in range(3):
    LABELS[z, 3:9, 4:12] = 10 * z + 1
LABELS[1, 14:18, 16:20] = 2


def write(kind: str, folder: Path) -> Path:
    path = folder / f"labels.{kind}"
    if kind == "zarr":
        zarr.create_array(path, data=LABELS)
    elif kind == "ome.zarr":
        axes = [{"name": a, "type": "time" if a == "t" else "space"} for a in "tzyx"]
        scale = [{"type": "scale", "scale": [1, 3, 1, 1]}]
        levels = [{"path": "0", "coordinateTransformations": scale}]
        image = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
        zarr.open_group(path, mode="w", attributes={"ome": image})["0"] = LABELS[None]
    elif kind == "h5":
        with h5py.File(path, "w") as file:
            file["labels"] = LABELS
    else:
        tifffile.imwrite(path, LABELS, photometric="minisblack")
    return path


@pytest.mark.parametrize("kind", ["zarr", "ome.zarr", "h5", "tif"])
def test_every_format(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "merged.ome.zarr"
    merge_file(write(kind, tmp_path), out, None, "micro-sam", None, None, unique_ids=True)
    merged = np.asarray(open_level(out, "objects", 0, "r")[:])
    np.testing.assert_array_equal(merged, np.where(LABELS == 2, 2, LABELS > 0))
