"""Bad input is refused in one sentence that names the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.volume.checks import check_finite, open_fitting
from volsam.volume.source import labels_arguments, open_volume

IMAGE = np.random.default_rng(0).integers(0, 60000, (6, 32, 40), np.uint16)


def refused(call: Callable[[], object], *words: str) -> None:
    """The call raises one sentence that contains the words."""
    with pytest.raises(VolsamError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    for word in words:
        assert word in text, text


def test_missing_path(tmp_path: Path) -> None:
    refused(lambda: open_volume(tmp_path / "no.tif"), "nothing at", "no.tif")


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    labels, mask = tmp_path / "labels.tif", tmp_path / "mask.tif"
    for path, kind in ((labels, "u2"), (mask, "f4")):
        tifffile.imwrite(path, IMAGE.astype(kind), photometric="minisblack")

    def fit(
        role: str, path: Path, frames: int | None = None, depth: int = 6, **options: bool
    ) -> None:
        shape = (depth, 32, 40)
        open_fitting(role, labels_arguments(str(path), None, shape, frames), shape, **options)

    fit("truth", labels)
    fit("truth", labels, 6)
    fit("mask", mask, numbered=False)
    refused(lambda: fit("truth", labels, depth=7), "The truth ", "has shape (6, 32, 40)", "shape.")
    refused(
        lambda: fit("truth", labels, 7, 7), "give one of the image's shape, with all its frames."
    )
    refused(
        lambda: fit("mask", mask, depth=7, numbered=False), "The mask ", "and the image (7, 32, 40)"
    )
    refused(lambda: fit("truth", mask), "holds float32", "whole")


def test_empty_folder_and_foreign_file(tmp_path: Path) -> None:
    refused(lambda: open_volume(tmp_path), "neither Zarr metadata nor TIFF")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    refused(lambda: open_volume(tmp_path / "a.png"), "is no TIFF, HDF5 or Zarr")
    (tmp_path / "empty.tif").touch()
    refused(lambda: open_volume(tmp_path / "empty.tif"), "damaged")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"imagej": True},
        {"compression": "zlib", "tile": (16, 16)},
        {"ome": True, "compression": "zlib"},
        {"ome": True},
    ],
)
def test_truncated_tiff(tmp_path: Path, options: dict, share: float) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE, metadata={"axes": "ZYX"}, **options)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    refused(lambda: open_volume(path, axes="zyx"), "a.tif")


def test_damaged_tiff_plane_is_refused_at_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE, metadata={"axes": "ZYX"}, compression="zlib")
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[3].dataoffsets[0]
    raw = bytearray(path.read_bytes())
    raw[offset : offset + 64] = bytes(64)
    path.write_bytes(raw)
    volume = open_volume(path)
    volume.read(Box((0, 0, 0), (2, 32, 40)))
    refused(lambda: volume.read(Box((2, 0, 0), (5, 32, 40))), "z 2–4", "damaged")


def test_truncated_hdf5(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["raw"] = IMAGE
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    refused(lambda: open_volume(path, key="raw", axes="zyx"), "a.h5", "truncated")


def test_hdf5_key(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["raw"] = IMAGE
        file["group/labels"] = IMAGE
    refused(lambda: open_volume(path, axes="zyx"), "choose one with key", "group/labels, raw")
    refused(lambda: open_volume(path, key="rwa", axes="zyx"), "no array 'rwa'", "raw")
    refused(lambda: open_volume(path, key="group", axes="zyx"), "no array 'group'")
    refused(lambda: open_volume(path, key="raw", axes="zyx", level=1), "no resolution levels")


def test_zarr_key_and_metadata(tmp_path: Path, write_ome_zarr) -> None:
    path = tmp_path / "a.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.create_array("raw", data=IMAGE)
    root.create_array("other", data=IMAGE)
    refused(lambda: open_volume(path, axes="zyx"), "choose an image or array", "other, raw")
    refused(lambda: open_volume(path, key="no", axes="zyx"), "no array or image 'no'", "raw")
    refused(lambda: open_volume(path, key="raw", axes="zyx", level=1), "has no levels")
    (path / "zarr.json").write_text("{ torn")
    refused(lambda: open_volume(path, axes="zyx"), "zarr.json", "torn")
    image = write_ome_zarr(tmp_path / "b.zarr", IMAGE, "zyx", "0.4")
    (image / "s0" / ".zarray").unlink()
    refused(lambda: open_volume(image), "Level 's0'", "cannot be opened")


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("ctzyx", "outside the OME-Zarr specification"),
        ("zcyx", "outside the OME-Zarr specification"),
        ("zyxc", "outside the OME-Zarr specification"),
        ("qzyx", "not all of t, c, z, y, x"),
    ],
)
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_order_outside_the_specification(
    tmp_path: Path, write_ome_zarr, order: str, words: str, version: str
) -> None:
    image = np.zeros([2] * (len(order) - 2) + [20, 20], np.uint8)
    path = write_ome_zarr(tmp_path / "a.zarr", image, order, version)
    refused(lambda: open_volume(path), words, "key", "axes")
    # The hint works.
    if "q" not in order:
        open_volume(path, key="s0", axes=order, timepoint=0 if "t" in order else None)


def test_ome_zarr_metadata(tmp_path: Path, write_ome_zarr) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", IMAGE, "zyx", datasets=[])
    refused(lambda: open_volume(path), "incomplete or malformed")
    path = write_ome_zarr(tmp_path / "b.zarr", IMAGE, "zyx", "0.6")
    refused(lambda: open_volume(path), "OME-Zarr 0.6")
    path = write_ome_zarr(tmp_path / "c.zarr", IMAGE, "zyx")
    refused(lambda: open_volume(path, level=1), "Level 1", "it has 1")
    refused(lambda: open_volume(path, axes="tyx"), "contradict the metadata", "'zyx'")


def test_corrupt_chunk(tmp_path: Path, write_ome_zarr) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", IMAGE, "zyx")
    chunk = path / "s0" / "c" / "0" / "2" / "1"
    chunk.write_bytes(chunk.read_bytes()[:10])
    volume = open_volume(path)
    volume.read(Box((0, 0, 0), (6, 8, 8)))
    refused(lambda: volume.read(Box.of((6, 32, 40))), "z 0–5", "damaged")


def test_unsupported_types(tmp_path: Path) -> None:
    for dtype in ("bool", "complex64", "S3"):
        path = tmp_path / f"{dtype}.h5"
        with h5py.File(path, "w") as file:
            file["raw"] = np.zeros((4, 20, 20), dtype)
        refused(lambda path=path: open_volume(path, axes="zyx"), "only integers and floating")


def test_zero_size_axis(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["raw"] = np.zeros((0, 20, 20), np.uint8)
    refused(lambda: open_volume(path, axes="zyx"), "Axis z", "size 0")


def test_axes(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE)
    refused(lambda: open_volume(path), "order of the axes", "6 × 32 × 40", "zyx")
    refused(lambda: open_volume(path, axes="czyx"), "4 axes", "has 3")
    refused(lambda: open_volume(path, axes="zqx"), "'zqx'")
    refused(lambda: open_volume(path, axes="zzx"), "'zzx'")
    refused(lambda: open_volume(path, axes="zcx"), "'zcx'")


def test_channels_as_slices(tmp_path: Path, write_ome_zarr) -> None:
    four = np.random.default_rng(0).integers(0, 255, (4, 32, 40), np.uint8)
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, four, metadata={"axes": "CYX"}, photometric="minisblack")
    refused(lambda: open_volume(path, axes="zyx"), "4 channels", "call it c")
    path = write_ome_zarr(tmp_path / "a.zarr", four, "cyx")
    refused(lambda: open_volume(path, axes="zyx"), "contradict the metadata")
    path = tmp_path / "rgba.tif"
    tifffile.imwrite(path, four.transpose(1, 2, 0), photometric="rgb", extrasamples=["unassalpha"])
    refused(lambda: open_volume(path, axes="zyx"), "4 colour samples", "call it c")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["raw"] = four.transpose(1, 2, 0)
    refused(lambda: open_volume(path, axes="zyx"), "Axis x", "looks like channels")


def test_choices(tmp_path: Path, write_ome_zarr) -> None:
    image = np.zeros((2, 3, 4, 20, 20), np.uint8)
    path = write_ome_zarr(tmp_path / "a.zarr", image, "tczyx")
    refused(lambda: open_volume(path), "2 time points", "timepoint")
    refused(lambda: open_volume(path, timepoint=2), "Time point 2")
    refused(lambda: open_volume(path, timepoint=0, channel=3), "Channel 3", "it has 3")
    refused(lambda: open_volume(path, timepoint=0, channel="DAPI"), "no channel named 'DAPI'")
    refused(lambda: open_volume(path, timepoint=0, channel=None), "3 channels", "choose one")
    refused(lambda: open_volume(path, timepoint=0, channel={0: 0}), "weights", "are 0")
    refused(lambda: open_volume(path, timepoint=0, channel={0: float("nan")}), "weight")
    refused(lambda: open_volume(path, timepoint=0, voxel_size=(1, 0, 1)), "three positive numbers")
    refused(lambda: open_volume(path, timepoint=0, voxel_size=(1, 1, 1), unit="kg"), "'kg'")


def test_unequal_folder(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "1.tif", IMAGE[0])
    tifffile.imwrite(tmp_path / "2.tif", IMAGE[0, :, :-1])
    refused(lambda: open_volume(tmp_path), "2.tif", "must be equal")
    (tmp_path / "2.tif").write_bytes((tmp_path / "1.tif").read_bytes()[:500])
    refused(lambda: open_volume(tmp_path), "2.tif", "truncated")
    refused(lambda: open_volume(tmp_path, level=1), "no key or level")


def test_not_finite() -> None:
    block = np.zeros((2, 3, 4), np.float32)
    check_finite(block)
    block[1, 2, 3] = np.inf
    refused(lambda: check_finite(block, (10, 20, 30), "a.tif"), "a.tif", "z 11, y 22, x 33")
    block[1, 0, 0] = np.nan
    refused(lambda: check_finite(block, (10, 20, 30), "a.tif"), "nan", "z 11, y 20, x 30")


def test_box_outside_is_a_fault_of_the_caller(tmp_path: Path, write_ome_zarr) -> None:
    volume = open_volume(write_ome_zarr(tmp_path / "a.zarr", IMAGE, "zyx"))
    with pytest.raises(ValueError, match="reaches beyond"):
        volume.read(Box((0, 0, 0), (7, 32, 40)))
