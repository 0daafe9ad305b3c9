"""Channels by number or name, and mixes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.volume.source import open_volume


def test_channel_mix_and_names(tmp_path: Path, write_ome_zarr) -> None:
    image = np.random.default_rng(0).integers(0, 200, (3, 5, 20, 24)).astype(np.uint16)
    path = write_ome_zarr(tmp_path / "a.zarr", image, "czyx", "0.4")
    zarr.open_group(path).attrs["omero"] = {"channels": [{"label": n} for n in ("a", "b", "c")]}
    volume = open_volume(path, channel={"a": 1, "c": -0.5})
    assert volume.info.channel_names == ("a", "b", "c")
    got = volume.read(Box.of(volume.info.shape))
    assert got.dtype == np.float32
    assert np.allclose(got, image[0] - 0.5 * image[2])
    assert np.array_equal(open_volume(path, channel="b").read(Box.of((5, 20, 24))), image[1])


def test_channels_between_those_of_a_mix_are_not_read(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 99, (20, 2, 8, 9)).astype(np.uint16)
    zarr.create_array(tmp_path / "a", data=image, chunks=(1, 2, 8, 9))
    for channel in (4, 12):
        (tmp_path / "a" / "c" / str(channel) / "0" / "0" / "0").write_bytes(b"torn")
    weights = {0: 1.0, 2: 2.0, 11: -1.0, 19: 0.5}
    volume = open_volume(tmp_path / "a", axes="czyx", channel=weights)
    expected = sum(weight * image[channel] for channel, weight in weights.items())
    assert np.allclose(volume.read(Box.of((2, 8, 9))), expected)
    with pytest.raises(VolsamError, match="damaged"):
        volume.read_channels(Box.of((2, 8, 9)))
