"""Blocks in which an image is copied."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from volsam.geometry import Box
from volsam.volume.info import VolumeInfo
from volsam.volume.ingest import image_layout, plan_ingest
from volsam.volume.layout import choose_layout


@pytest.mark.parametrize(
    ("plane", "together", "channels", "times"),
    [
        ((2048, 2048), (2048, 2048), 1, 1),
        ((5000, 5000), (5000, 5000), 1, 1),
        ((5000, 5000), (5000, 5000), 4, 1),
        ((9000, 12000), (9000, 12000), 1, 1),
        ((20000, 20000), (16, 20000), 1, 1),  # by strips, as large planes are read
        ((20000, 20000), (20000, 20000), 1, 5),  # 763 MiB do not fit
        ((5000, 5000), (256, 256), 1, 1),
    ],
)
def test_what_is_stored_together_is_read_once(
    plane: tuple, together: tuple, channels: int, times: int
) -> None:
    """Of a compressed plane every block that needs a part decodes all."""
    info = VolumeInfo(
        shape=(64, *plane),
        dtype="uint16",
        channels=channels,
        timepoints=1,
        voxel_size=None,
        unit="micrometer",
        channel_names=(),
        format="tiff",
        path="a.tif",
        key=None,
        chunks=(1, *together),
    )
    layout = image_layout(info, "0.5")
    boxes = [box for _, box in plan_ingest(info, layout)]
    assert max(b.size for b in boxes) * 2 * channels <= 2**28
    assert sum(b.size for b in boxes) == np.prod(info.shape)
    first = [b for b in boxes if b.start[0] == 0]
    pieces = {
        (y, x) for y in range(0, plane[0], together[0]) for x in range(0, plane[1], together[1])
    }
    for y, x in list(pieces)[:: max(1, len(pieces) // 50)]:
        piece = Box((0, y, x), (1, y + together[0], x + together[1]))
        assert sum(b.intersect(piece).size > 0 for b in first) <= times
    assert np.prod(layout.shards) * 2 >= 2**23  # not in many small files either
    # Where it gains nothing, or each chunk is a file, they are as ever.
    usual = {version: choose_layout(info.shape, info.dtype, version) for version in ("0.4", "0.5")}
    assert image_layout(info, "0.4") == usual["0.4"]
    assert image_layout(dataclasses.replace(info, sliced=True), "0.5") == usual["0.5"]
