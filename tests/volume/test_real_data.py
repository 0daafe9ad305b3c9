"""Real files of the shared data open and read; skipped where they are absent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from volsam.geometry import Box
from volsam.volume.normalise import estimate
from volsam.volume.source import open_volume


@pytest.mark.parametrize(
    ("name", "axes", "shape"),
    [
        ("em_isbi2012/image.tif", "zyx", (15, 512, 512)),
        ("em_vnc_sstem/image.tif", "zyx", (20, 704, 704)),
        ("bbbc050_mouse_embryo_3d/train/images/Emb01_t501.tif", "zyx", None),
        ("wsi_he/cmu-1-small-region.svs", None, (1, 2967, 2220)),
        ("ctc_dic_hela/01", None, (84, 512, 512)),
    ],
)
def test_open_and_read(shared_data: Path, name: str, axes: str | None, shape) -> None:
    path = shared_data / name
    if not path.exists():
        pytest.skip(f"no {path}")
    volume = open_volume(path, axes=axes)
    assert shape in (None, volume.info.shape)
    if path.suffix == ".tif":
        box = Box((3, 10, 20), (6, 50, 90))
        assert np.array_equal(volume.read(box), tifffile.imread(path)[box.slices])
    normalisation = estimate(volume, limit=1 << 18)
    plane = volume.read(Box((0, 0, 0), (1, 100, 100)))
    assert 0 <= normalisation.apply(plane).mean() <= 1


def test_starting_up_loads_no_image_library() -> None:
    code = (
        "import sys, volsam.volume.source, volsam.volume.fingerprint;"
        "print([m for m in ('zarr', 'tifffile', 'h5py', 'skimage', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
