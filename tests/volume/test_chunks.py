"""Absent chunks: counted where they may be empty, refused where data end at their borders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.volume.chunks import check_chunks, stored_chunks
from volsam.volume.source import Volume, open_volume

IMAGE = np.random.default_rng(0).integers(1, 200, (24, 32, 40)).astype(np.uint16)
TOLD = "of 60 chunks"


def array(path: Path, image: np.ndarray = IMAGE, **how: object) -> Path:
    """Store an image in chunks of 8 voxels along z, y and x and of 1 along others."""
    how = {"chunks": (1,) * (image.ndim - 3) + (8, 8, 8)} | how
    zarr.create_array(path, shape=image.shape, dtype=image.dtype, **how)[...] = image
    return path


def opened(path: Path, **how: object) -> Volume:
    return open_volume(path, **({"axes": "zyx"} | how))


ENCODINGS = {
    "nested": {},
    "dots": {"chunk_key_encoding": {"name": "default", "separator": "."}},
    "format 2": {"zarr_format": 2},
    "format 2, nested": {
        "zarr_format": 2,
        "chunk_key_encoding": {"name": "v2", "separator": "/"},
    },
}


@pytest.mark.parametrize("how", ENCODINGS.values(), ids=ENCODINGS)
def test_chunks_are_found_under_every_name(how: dict, tmp_path: Path) -> None:
    image = IMAGE.copy()
    image[8:16, :8, 24:] = image[:8] = 0
    made = zarr.open_array(
        array(tmp_path / "a.zarr", image, config={"write_empty_chunks": False}, **how)
    )
    present = stored_chunks(made)
    expected = np.ones((3, 4, 5), bool)
    expected[1, 0, 3:] = expected[0] = False
    np.testing.assert_array_equal(present, expected)
    assert present.sum() == made.nchunks_initialized


def test_shards_count_as_chunks(tmp_path: Path) -> None:
    path = array(tmp_path / "a.zarr", shards=(8, 16, 16))
    assert check_chunks(opened(path)) is None
    (path / "c" / "2" / "1" / "2").unlink()
    (path / "c" / "2" / "1" / "1").unlink()
    told = check_chunks(opened(path))
    assert told == f"2 of 18 chunks of {path} are missing and read as 0."
    assert not opened(path).read(Box((17, 17, 17), (24, 24, 24))).any()


@pytest.mark.parametrize("shards", [None, (8, 16, 16)])
@pytest.mark.parametrize("place", [(1, 1, 1), (0, 0, 0), (2, 1, 2)])
def test_a_chunk_that_is_lost_alone(place: tuple, shards: tuple | None, tmp_path: Path) -> None:
    path = array(tmp_path / "a.zarr", shards=shards)
    path.joinpath("c", *map(str, place)).unlink()
    z, y, x = (n * size for n, size in zip(place, shards or (8, 8, 8), strict=True))
    with pytest.raises(VolsamError, match=f"z {z}–{z + 7}, y {y}–.*, x {x}–.*probably lost"):
        check_chunks(opened(path))


def test_what_may_be_empty_is_told(tmp_path: Path) -> None:
    """Sparse data, a border, a part of a mosaic, a stack that ended early."""
    sparse, border, mosaic, short = (IMAGE.copy() for _ in range(4))
    sparse[:] = 0
    sparse[4:7, 4:28, 4:36] = 9  # faces of chunks of which less than half is bright
    border[:, :, :13] = 0
    mosaic[8:, 8:24, 16:] = 0
    short[16:] = 0
    for name, image in {"s": sparse, "b": border, "m": mosaic, "e": short}.items():
        path = array(tmp_path / name, image, config={"write_empty_chunks": False})
        assert TOLD in str(check_chunks(opened(path))), name


def test_only_the_time_point_and_region_that_are_read_count(tmp_path: Path) -> None:
    path = array(tmp_path / "a.zarr", np.stack([[IMAGE] * 2] * 3))
    path.joinpath("c", "2", "1", "1", "1", "1").unlink()
    told = "1 of 360 chunks"
    volume = opened(path, axes="tczyx", timepoint=1)
    assert told in str(check_chunks(volume))
    for timepoint in (2, "all"):  # all channels are measured, whichever is segmented
        volume = opened(path, axes="tczyx", timepoint=timepoint, channel=0)
        with pytest.raises(VolsamError, match="t 2–2, c 1–1, z 8–15, y 8–15, x 8–15"):
            check_chunks(volume)
    volume = opened(path, axes="tczyx", timepoint=2)
    assert told in str(check_chunks(volume, Box((16, 0, 0), (24, 32, 40))))
    with pytest.raises(VolsamError, match="probably lost"):
        check_chunks(volume, Box((15, 10, 10), (24, 32, 40)))


def test_planes_may_be_black(tmp_path: Path) -> None:
    """Writers leave out a black section where a chunk is a plane; gaps of slices are bridged."""
    image = IMAGE.copy()
    image[5] = 0
    how = {"chunks": (1, 32, 40), "config": {"write_empty_chunks": False}}
    path = array(tmp_path / "a.zarr", image, **how)
    assert "1 of 24 chunks" in str(check_chunks(opened(path)))
    assert "1 of 24 chunks" in str(check_chunks(opened(path, axes="tyx", timepoint="all")))


def test_folders_of_chunks_may_be_links(tmp_path: Path) -> None:
    path = array(tmp_path / "a.zarr")
    (path / "c" / "1" / "1").rename(tmp_path / "elsewhere")
    (path / "c" / "1" / "1").symlink_to(tmp_path / "elsewhere")
    (path / "c" / "1" / "1" / "around").symlink_to(path / "c")
    assert check_chunks(opened(path)) is None


def test_a_damaged_neighbour_proves_nothing(tmp_path: Path) -> None:
    path = array(tmp_path / "a.zarr")
    path.joinpath("c", "1", "1", "1").unlink()
    beside = path.joinpath("c", "1", "1", "2")
    beside.write_bytes(beside.read_bytes()[:10])
    assert "1 of 60 chunks" in str(check_chunks(opened(path)))


def test_other_fill_values(tmp_path: Path) -> None:
    """What is absent reads as the fill value, so that value is what is empty."""
    image = IMAGE.copy()
    image[8:16, 8:16, 8:16] = 1000
    how = {"fill_value": 1000, "config": {"write_empty_chunks": False}}
    with pytest.raises(VolsamError, match="probably lost"):
        check_chunks(opened(array(tmp_path / "a.zarr", image, **how)))
    image[6:18, 6:18, 6:18] = 1000
    assert TOLD in str(check_chunks(opened(array(tmp_path / "b.zarr", image, **how))))


@pytest.mark.parametrize("fill", [None, np.nan])
def test_fill_values_that_are_no_numbers(fill: float | None, tmp_path: Path) -> None:
    image = np.full(IMAGE.shape, fill or 0, np.float32)
    image[4:7, 4:28, 4:36] = 9  # sparse
    how = {"fill_value": fill, "zarr_format": 2, "config": {"write_empty_chunks": False}}
    told = f"read as {fill or 0}."
    assert told in str(check_chunks(opened(array(tmp_path / "a.zarr", image, **how))))
    path = array(tmp_path / "b.zarr", IMAGE.astype(np.float32), **how)
    (path / "1.1.1").unlink()
    with pytest.raises(VolsamError, match="probably lost"):
        check_chunks(opened(path))


def test_other_formats_have_none(tmp_path: Path) -> None:
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", IMAGE, photometric="minisblack")
    assert check_chunks(opened(tmp_path / "a.tif")) is None
