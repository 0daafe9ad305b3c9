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


def test_only_what_is_read_counts(tmp_path: Path) -> None:
    path = array(tmp_path / "a.zarr", np.stack([[IMAGE] * 2] * 3))
    path.joinpath("c", "2", "1", "1", "1", "1").unlink()
    for timepoint, channel in ((2, 0), (1, 1)):
        volume = opened(path, axes="tczyx", timepoint=timepoint, channel=channel)
        assert "1 of 360 chunks" in str(check_chunks(volume))
    for timepoint in (2, "all"):
        volume = opened(path, axes="tczyx", timepoint=timepoint, channel=1)
        with pytest.raises(VolsamError, match="t 2–2, c 1–1, z 8–15, y 8–15, x 8–15"):
            check_chunks(volume)


def test_frames_are_no_neighbours(tmp_path: Path) -> None:
    """A frame without its chunk in a sequence of whole planes."""
    image = IMAGE[:4]
    path = array(tmp_path / "a.zarr", image, chunks=(1, 32, 40))
    path.joinpath("c", "2", "0", "0").unlink()
    assert "1 of 4 chunks" in str(check_chunks(opened(path, axes="tyx", timepoint="all")))
    with pytest.raises(VolsamError, match="z 2–2"):
        check_chunks(opened(path))


def test_other_fill_values(tmp_path: Path) -> None:
    """What is absent reads as the fill value, so that value is what is empty."""
    image = IMAGE.copy()
    image[8:16, 8:16, 8:16] = 1000
    how = {"fill_value": 1000, "config": {"write_empty_chunks": False}}
    with pytest.raises(VolsamError, match="probably lost"):
        check_chunks(opened(array(tmp_path / "a.zarr", image, **how)))
    image[6:18, 6:18, 6:18] = 1000
    assert TOLD in str(check_chunks(opened(array(tmp_path / "b.zarr", image, **how))))


def test_other_formats_have_none(tmp_path: Path) -> None:
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", IMAGE, photometric="minisblack")
    assert check_chunks(opened(tmp_path / "a.tif")) is None
