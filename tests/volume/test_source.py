"""Round trips: every format and order of the axes gives back the voxels that were written."""

from __future__ import annotations

import pickle
from itertools import permutations
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.volume.info import require_voxel_size, unit_name
from volsam.volume.source import open_volume

SIZES = {"t": 2, "c": 3, "z": 5, "y": 20, "x": 24}


def numbers(axes: str, dtype: str = "uint16", seed: int = 0) -> np.ndarray:
    """Random image whose axes are named by `axes`."""
    shape = [SIZES[a] for a in axes]
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def expected(image: np.ndarray, axes: str, t: int = 0, c: int | slice = 0) -> np.ndarray:
    """The (z, y, x) or (c, z, y, x) that a reader should return."""
    for letter in "zct":
        if letter not in axes:
            image, axes = image[None], letter + axes
    ordered = image.transpose([axes.index(a) for a in "tczyx"])
    return ordered[t, c]


def check(volume, image: np.ndarray, axes: str, t: int = 0, c: int = 0) -> None:
    """Whole volume, one box, and all channels."""
    want = expected(image, axes, t, c)
    got = volume.read(Box.of(volume.info.shape))
    assert volume.info.shape == want.shape
    assert got.dtype == image.dtype.newbyteorder("=")
    assert np.array_equal(got, want)
    z = want.shape[0]
    box = Box((z // 2, 3, 5), (z, 15, 24))
    assert np.array_equal(volume.read(box), want[box.slices])
    every = expected(image, axes, t, slice(None))
    assert np.array_equal(volume.read_channels(box), every[(slice(None), *box.slices)])
    if "t" in axes:
        check_sequence(open_volume(**volume._arguments | {"timepoint": "all"}), image, axes, c)


def check_sequence(volume, image: np.ndarray, axes: str, c: int) -> None:
    """All frames, one after the other."""
    frames = [expected(image, axes, t, slice(None)) for t in range(SIZES["t"])]
    stack = np.concatenate(frames, axis=1)
    assert volume.info.frames == SIZES["t"]
    assert volume.info.depth == frames[0].shape[1]
    assert volume.info.shape == stack.shape[1:]
    start = volume.info.shape[0] // 2 - 1
    box = Box((start, 3, 5), (start + 2, 15, 24))
    assert np.array_equal(volume.read(box), stack[(c, *box.slices)])
    assert np.array_equal(volume.read_channels(box), stack[(slice(None), *box.slices)])


def test_only_a_sequence_has_frames(tmp_path: Path, write_ome_zarr) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", numbers("zyx"), "zyx")
    with pytest.raises(VolsamError, match="no time axis"):
        open_volume(path, timepoint="all")


SPEC_ORDERS = ["tczyx", "tzyx", "czyx", "zyx", "tcyx", "cyx", "tyx", "yx", "xy", "cyzx"]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", SPEC_ORDERS)
def test_ome_zarr_orders(tmp_path: Path, write_ome_zarr, axes: str, version: str) -> None:
    image = numbers(axes)
    path = write_ome_zarr(tmp_path / "a.zarr", image, axes, version)
    t = 1 if "t" in axes else 0
    c = 2 if "c" in axes else 0
    volume = open_volume(path, timepoint=t if "t" in axes else None, channel=c)
    check(volume, image, axes, t, c)
    assert volume.info.format == f"ome-zarr-{version}"
    assert volume.info.voxel_size == (2.0 if "z" in axes else 1.0, 0.5, 0.5)
    assert (volume.info.channels, volume.info.timepoints) == (3 if c else 1, 2 if t else 1)


@settings(max_examples=40, deadline=None)
@given(
    axes=st.sampled_from(
        [
            "".join(order)
            for letters in ("zyx", "czyx", "tczyx", "tyx", "cyx")
            for order in permutations(letters)
        ]
    ),
    container=st.sampled_from(["zarr2", "zarr3", "hdf5"]),
    dtype=st.sampled_from(["uint8", "int16", "uint32", "float32", "float64", ">u2"]),
)
def test_plain_arrays_any_order(tmp_path_factory, axes: str, container: str, dtype: str) -> None:
    image = numbers(axes, dtype)
    folder = tmp_path_factory.mktemp("plain")
    key = "group/raw"
    if container == "hdf5":
        path = folder / "a.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset(key, data=image, chunks=True)
    else:
        path = folder / "a.zarr"
        root = zarr.open_group(path, mode="w", zarr_format=int(container[-1]))
        array = root.create_array(
            key, shape=image.shape, dtype=image.dtype, chunks=(7,) * image.ndim
        )
        array[...] = image
    t = 1 if "t" in axes else 0
    volume = open_volume(
        path, key=key, axes=axes, timepoint=t if "t" in axes else None, voxel_size=(3, 1, 1)
    )
    check(volume, image, axes, t)
    assert require_voxel_size(volume.info) == (3, 1, 1)


def test_chunks_are_not_listed_to_open_an_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lie beside the metadata, and there may be millions."""
    image = numbers("zyx")
    zarr.create_array(tmp_path / "a", data=image, chunks=(1, 2, 2), zarr_format=2)

    def listed(path: Path) -> None:
        raise AssertionError(f"{path} is listed")

    monkeypatch.setattr(Path, "iterdir", listed)
    monkeypatch.setattr("os.scandir", listed)
    assert np.array_equal(open_volume(tmp_path / "a", axes="zyx").read(Box.of(image.shape)), image)


def test_zarr_array_at_root(tmp_path: Path) -> None:
    image = numbers("zyx")
    for version in (2, 3):
        path = tmp_path / f"{version}.zarr"
        zarr.create_array(path, data=image, zarr_format=version)
        check(open_volume(path, axes="zyx"), image, "zyx")


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("axes", ["yx", "zyx", "czyx", "tzcyx"])
def test_tiff(tmp_path: Path, axes: str, compression, tile, byteorder: str) -> None:
    image = numbers(axes)
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        image,
        compression=compression,
        tile=tile,
        byteorder=byteorder,
        photometric="minisblack",
        metadata={"axes": axes.upper()},
    )
    volume = open_volume(path, timepoint=1 if "t" in axes else None)
    check(volume, image, axes, 1 if "t" in axes else 0)
    assert volume.info.voxel_size is None


@pytest.mark.parametrize("axes", ["yx", "zyx", "czyx", "zcyx", "tczyx"])
def test_ome_tiff(tmp_path: Path, axes: str) -> None:
    image = numbers(axes)
    path = tmp_path / "a.ome.tif"
    metadata: dict = {
        "axes": axes.upper(),
        "PhysicalSizeX": 250.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.5,
        "PhysicalSizeYUnit": "µm",
        "PhysicalSizeZ": 2.0,
    }
    if "c" in axes:
        metadata["Channel"] = {"Name": ["DAPI", "GFP", "RFP"]}
    tifffile.imwrite(path, image, metadata=metadata, compression="zlib", photometric="minisblack")
    t = 1 if "t" in axes else 0
    volume = open_volume(path, timepoint=1 if t else None, channel="GFP" if "c" in axes else None)
    check(volume, image, axes, t, 1 if "c" in axes else 0)
    assert volume.info.unit == "nanometer"
    assert volume.info.voxel_size == pytest.approx((2000.0, 500.0, 250.0))
    in_micrometers = open_volume(path, timepoint=1 if t else None, unit="µm").info
    assert in_micrometers.unit == "micrometer"
    assert in_micrometers.voxel_size == pytest.approx((2.0, 0.5, 0.25))


def test_imagej_tiff(tmp_path: Path) -> None:
    image = numbers("zcyx")
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        image,
        imagej=True,
        resolution=(4.0, 2.0),
        metadata={"axes": "ZCYX", "spacing": 3.0, "unit": "micron"},
    )
    volume = open_volume(path, channel=1)
    check(volume, image, "zcyx", c=1)
    assert volume.info.voxel_size == pytest.approx((3.0, 0.5, 0.25))


def test_colour_samples_are_channels(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    path = tmp_path / "rgb.tif"
    for planar in ("contig", "separate"):
        image = rgb if planar == "contig" else rgb.transpose(2, 0, 1)
        tifffile.imwrite(path, image, photometric="rgb", planarconfig=planar)
        volume = open_volume(path, channel={0: 0.5, "2": 0.25})
        assert volume.info.channels == 3
        mixed = volume.read(Box.of(volume.info.shape))
        assert mixed.dtype == np.float32
        assert np.allclose(mixed[0], rgb[..., 0] * 0.5 + rgb[..., 2] * 0.25)
    tifffile.imwrite(path, rgb, photometric="rgb")
    with pytest.raises(VolsamError, match="colour samples"):
        open_volume(path, axes="zyx")


def test_pyramidal_tiff(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (128, 96), np.uint8)
    path = tmp_path / "p.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tif:
        size = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
        tif.write(image, subifds=1, tile=(32, 32), metadata=size)
        tif.write(image[::2, ::2], subfiletype=1, tile=(32, 32))
    assert open_volume(path).info.factors == ((1, 2, 2),)
    half = open_volume(path, level=1)
    assert np.array_equal(half.read(Box.of(half.info.shape))[0], image[::2, ::2])
    assert half.info.voxel_size == (1.0, 1.0, 1.0)
    stated = open_volume(path, level=1, voxel_size=(1, 0.3, 0.3)).info
    assert stated.voxel_size == pytest.approx((1.0, 0.6, 0.6))


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_folder_in_natural_order(tmp_path: Path, compression: str | None) -> None:
    image = np.random.default_rng(0).integers(0, 255, (12, 20, 24), np.uint8)
    for z, plane in enumerate(image):
        tifffile.imwrite(tmp_path / f"slice{z + 1}.tif", plane, compression=compression)
    volume = open_volume(tmp_path)
    assert volume.info.format == "tiff-folder"
    assert np.array_equal(volume.read(Box.of(volume.info.shape)), image)
    box = Box((8, 2, 3), (11, 9, 20))
    assert np.array_equal(volume.read(box), image[box.slices])
    assert open_volume(tmp_path, axes="tyx", timepoint=9).info.timepoints == 12
    assert np.array_equal(
        open_volume(tmp_path, axes="tyx", timepoint=9).read(Box.of((1, 20, 24)))[0], image[9]
    )


def test_levels_scale_translation_and_factors(tmp_path: Path, write_ome_zarr) -> None:
    image = numbers("zyx")
    path = tmp_path / "a.zarr"
    levels = [image, image[:, ::2, ::2], image[::2, ::4, ::4]]

    def dataset(i: int, factor: tuple[int, int, int]) -> dict:
        scale = [s * f for s, f in zip((2.0, 0.5, 0.5), factor, strict=True)]
        shift = [10.0, 20.0, 30.0]
        return {
            "path": f"s{i}",
            "coordinateTransformations": [
                {"type": "scale", "scale": scale},
                {"type": "translation", "translation": shift},
            ],
        }

    datasets = [dataset(0, (1, 1, 1)), dataset(1, (1, 2, 2)), dataset(2, (2, 4, 4))]
    twice = [{"type": "scale", "scale": [2.0, 2.0, 2.0]}]
    write_ome_zarr(path, image, "zyx", datasets=datasets, coordinateTransformations=twice)
    group = zarr.open_group(path)
    for i in (1, 2):
        group.create_array(f"s{i}", data=levels[i])
    first = open_volume(path).info
    assert first.voxel_size == (4.0, 1.0, 1.0)
    assert first.translation == (20.0, 40.0, 60.0)
    assert first.factors == ((1, 2, 2), (2, 4, 4))
    second = open_volume(path, level=1)
    assert np.array_equal(second.read(Box.of(second.info.shape)), levels[1])
    assert second.info.voxel_size == (4.0, 2.0, 2.0)
    assert second.info.factors == ((2, 2, 2),)
    # What is stated is said of level 0, and so is what it contradicts.
    assert not open_volume(path, level=2, voxel_size=(4.0, 1.0, 1.0)).info.warnings
    third = open_volume(path, level=2, voxel_size=(9.0, 3.0, 3.0)).info
    assert third.voxel_size == (18.0, 12.0, 12.0)
    assert third.warnings == open_volume(path, voxel_size=(9.0, 3.0, 3.0)).info.warnings
    assert "4 × 1 × 1" in third.warnings[0]


def test_series_group_is_found(tmp_path: Path, write_ome_zarr) -> None:
    """bioformats2raw puts the image into a numbered group."""
    image = numbers("zyx")
    zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    write_ome_zarr(tmp_path / "a.zarr" / "0", image, "zyx", "0.4")
    volume = open_volume(tmp_path / "a.zarr")
    assert volume.info.key == "0"
    check(volume, image, "zyx")


def test_stated_voxel_size_wins_and_contradiction_is_said(tmp_path: Path, write_ome_zarr) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", numbers("zyx"), "zyx")
    info = open_volume(path, voxel_size={"z": 1.0, "y": 0.5, "x": 0.5}).info
    assert info.voxel_size == (1.0, 0.5, 0.5)
    (warning,) = info.warnings
    assert "1 × 0.5 × 0.5" in warning
    assert "2 × 0.5 × 0.5" in warning
    # The same size in another unit is no contradiction.
    info = open_volume(path, voxel_size=(2000, 500, 500), unit="nm").info
    assert (info.voxel_size, info.unit, info.warnings) == ((2000, 500, 500), "nanometer", ())


def test_numbers_of_the_file_are_in_its_unit(tmp_path: Path, write_ome_zarr) -> None:
    axes = [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"]
    scale = [{"type": "scale", "scale": [45.0, 4.6, 4.6]}]
    datasets = [{"path": "s0", "coordinateTransformations": scale}]
    path = write_ome_zarr(tmp_path / "a.zarr", numbers("zyx"), "zyx", axes=axes, datasets=datasets)

    def said(*size: float, unit: str | None = None) -> tuple[str, int]:
        info = open_volume(path, voxel_size=size, unit=unit).info
        assert info.voxel_size == size
        return info.unit, len(info.warnings)

    assert said(45, 4.6, 4.6) == ("nanometer", 0)
    assert said(45.2, 4.6, 4.6) == ("nanometer", 0)
    assert said(0.045, 0.0046, 0.0046) == ("micrometer", 0)
    assert said(40, 4, 4) == ("micrometer", 1)
    assert said(45, 4.6, 4.6, unit="µm") == ("micrometer", 1)


def test_scale_of_one_without_unit_is_no_voxel_size(tmp_path: Path, write_ome_zarr) -> None:
    axes = [{"name": a, "type": "space"} for a in "zyx"]
    datasets = [
        {"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]}
    ]
    path = write_ome_zarr(tmp_path / "a.zarr", numbers("zyx"), "zyx", axes=axes, datasets=datasets)
    info = open_volume(path).info
    assert info.voxel_size is None
    with pytest.raises(VolsamError, match="voxel_size"):
        require_voxel_size(info)


def test_volume_travels_as_arguments(tmp_path: Path) -> None:
    image = numbers("zyx")
    tifffile.imwrite(tmp_path / "a.tif", image, metadata={"axes": "ZYX"})
    volume = open_volume(tmp_path / "a.tif", voxel_size=(2, 1, 1))
    sent = pickle.dumps(volume)
    assert len(sent) < 1000
    check(pickle.loads(sent), image, "zyx")


def test_size_one_axes_may_be_stated_or_left_out(tmp_path: Path, write_ome_zarr) -> None:
    image = numbers("zyx")
    path = write_ome_zarr(tmp_path / "a.zarr", image[None, None], "tczyx")
    check(open_volume(path, axes="zyx"), image, "zyx")
    path = write_ome_zarr(tmp_path / "b.zarr", image[0], "yx")
    check(open_volume(path, axes="zyx"), image[0], "yx")


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("µm", "micrometer"),
        ("μm", "micrometer"),
        (r"\u00B5m", "micrometer"),
        ("um", "micrometer"),
        ("microns", "micrometer"),
        ("Micrometre", "micrometer"),
        ("nanometers", "nanometer"),
        ("mm", "millimeter"),
        ("pixel", "pixel"),
    ],
)
def test_units_are_spelled_as_ome_zarr_does(spelled: str, name: str) -> None:
    assert unit_name(spelled) == name


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("count", [3, 4])
def test_planes_of_colour_may_be_slices(
    tmp_path: Path, count: int, compression: str | None
) -> None:
    """tifffile writes so every stack of 3 or 4 slices, if it is not told otherwise."""
    image = np.random.default_rng(0).integers(0, 999, (count, 30, 40)).astype(np.uint16)
    path = tmp_path / "a.tif"
    with pytest.warns(DeprecationWarning, match="photometric"):
        tifffile.imwrite(path, image, compression=compression)
    assert open_volume(path, channel=0).info.channels == count
    for axes, time in (("zyx", None), ("tyx", 2)):
        volume = open_volume(path, axes=axes, timepoint=time)
        assert f"{count} planes of colour samples" in volume.info.warnings[0]
        expected = image if time is None else image[time][None]
        assert np.array_equal(volume.read(Box.of(volume.info.shape)), expected)
