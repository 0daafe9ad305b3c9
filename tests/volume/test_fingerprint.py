"""A fingerprint follows content, not dates; results inside the input do not change it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from volsam.errors import VolsamError
from volsam.volume import fingerprint as module
from volsam.volume.fingerprint import fingerprint
from volsam.volume.labels import create_labels

IMAGE = np.random.default_rng(0).integers(0, 255, (4, 20, 20), np.uint8)


@pytest.fixture(params=["0.4", "0.5"])
def image(request, tmp_path: Path, write_ome_zarr) -> Path:
    return write_ome_zarr(tmp_path / "a.zarr", IMAGE, "zyx", request.param)


def date(folder: Path, second: int) -> None:
    """A date of its own for a state: file systems whose clock ticks in milliseconds may give it none."""
    for file in folder.rglob("*"):
        os.utime(file, (second, second))


def test_dates_and_place_do_not_matter(image: Path, tmp_path: Path) -> None:
    first = fingerprint(image)
    copy = tmp_path / "copy.zarr"
    shutil.copytree(image, copy)
    date(copy, 1)
    again = fingerprint(copy)
    assert again.content == first.content
    assert again.stat != first.stat


def test_any_byte_matters(image: Path) -> None:
    first = fingerprint(image)
    array = zarr.open_array(image / "s0", mode="r+")
    array[0, 0, 0] += 1
    date(image, 1)
    second = fingerprint(image, first)
    assert second.content != first.content
    array[0, 0, 0] -= 1
    date(image, 2)
    assert fingerprint(image, second).content == first.content


def test_metadata_of_equal_length_matter(image: Path) -> None:
    first = fingerprint(image)
    for file in image.iterdir():
        if file.is_file():
            file.write_text(file.read_text().replace("0.5", "0.7"))
    assert fingerprint(image, first).content != first.content


def test_untouched_input_is_not_read_again(image: Path, monkeypatch) -> None:
    first = fingerprint(image)
    monkeypatch.setattr(module, "_content", None)
    assert fingerprint(image, first) == first
    assert fingerprint(image, tuple(first)) == first


@pytest.mark.parametrize("consolidated", [True, False])
def test_labels_in_the_input_do_not_change_it(image: Path, consolidated: bool) -> None:
    if consolidated:
        zarr.consolidate_metadata(image)
    first = fingerprint(image)
    create_labels(
        image,
        shape=IMAGE.shape,
        dtype="uint32",
        chunks=(4, 8, 8),
        shards=None,
        voxel_size=None,
        unit="micrometer",
        has_image=True,
    )
    assert fingerprint(image) == first
    labels = fingerprint(image / "labels" / "objects")
    zarr.open_array(image / "labels" / "objects" / "0", mode="r+")[...] = 1
    assert fingerprint(image / "labels" / "objects").content != labels.content


def test_large_inputs_are_sampled(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "WHOLE_BELOW", 1000)
    monkeypatch.setattr(module, "_PIECE", 64)
    path = tmp_path / "a.bin"
    data = bytearray(10_000)
    path.write_bytes(data)
    first = fingerprint(path)
    for place in (0, 4990, 9999):
        data[place] = 1
        path.write_bytes(data)
        assert fingerprint(path).content != first.content
        data[place] = 0
    data.append(0)
    path.write_bytes(data)
    assert fingerprint(path).content != first.content


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(VolsamError, match="nothing at"):
        fingerprint(tmp_path / "no")
