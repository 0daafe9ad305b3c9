"""The table of objects has the mean intensity of every channel, named or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scenes
import tifffile

from volsam.stages.objects import add_up, distinct_names, finish, measure_block

SHAPE = (2, 32, 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("channels")
    scenes.write_scene(root, scenes.cells(SHAPE, 5, (6, 8), 2))
    image = tifffile.imread(root / "image.tif")
    both = np.stack([image, 7 + 0 * image], axis=1)
    tifffile.imwrite(root / "two.tif", both, photometric="minisblack")
    said = {"axes": "ZCYX", "Channel": {"Name": ["DAPI", "DAPI"]}}
    tifffile.imwrite(root / "two.ome.tif", both, photometric="minisblack", metadata=said)
    return root


def test_sums_of_blocks_are_joined_one_by_one() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 50, (40, 6, 7)).astype(np.uint32)
    image = rng.integers(0, 2**16, (2, 40, 6, 7)).astype(np.uint16)

    def blocks(depth: int) -> Iterator[pa.Table]:
        for z in range(0, 40, depth):
            part = slice(z, z + depth)
            yield measure_block(labels[part], image[:, part], (z, 0, 0))

    labels[labels == 7] = 0
    whole = add_up(blocks(40), range(1, 50))
    assert whole["id"].to_pylist() == [n for n in range(1, 50) if n != 7]
    assert whole.equals(measure_block(labels, image, (0, 0, 0)))
    assert all(add_up(blocks(depth), range(1, 50)).equals(whole) for depth in (1, 7))
    parts = [finish(whole.slice(n, 20), (1, 1, 1), "micrometer", ()) for n in (0, 20, 40)]
    assert pa.concat_tables(parts).equals(finish(whole, (1, 1, 1), "micrometer", ()))


@pytest.mark.parametrize(
    ("image", "axes", "channel", "names"),
    [
        ("image.tif", "zyx", None, ["0"]),
        ("two.tif", "zcyx", 1, ["0", "1"]),
        ("two.tif", "zcyx", {"0": 0.5, "1": 0.5}, ["0", "1"]),
        ("two.ome.tif", None, 0, ["0", "1"]),
    ],
)
def test_every_channel_is_measured(
    folder: Path,
    tmp_path: Path,
    image: str,
    axes: str | None,
    channel: int | dict[str, float] | None,
    names: list[str],
) -> None:
    sample = {"image": str(folder / image), "axes": axes, "channel": channel}
    paths = scenes.run_pipeline(scenes.settings(folder, tmp_path, sample=sample))
    table = pq.read_table(paths.objects)
    found = [name for name in table.column_names if name.startswith("mean_intensity_")]
    assert found == [f"mean_intensity_{name}" for name in names]
    labels, pixels = scenes.read_labels(paths), tifffile.imread(folder / "image.tif")
    means = [pixels[labels == number].mean() for number in table["id"].to_pylist()]
    assert len(means) > 1
    np.testing.assert_allclose(table["mean_intensity_0"], means, rtol=1e-6)
    if len(names) == 2:
        assert set(table["mean_intensity_1"].to_pylist()) == {7}


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ([], ["0", "1", "2"]),
        (["DAPI", "GFP", "RFP"], ["DAPI", "GFP", "RFP"]),
        (["DAPI", "GFP", "DAPI"], ["0", "GFP", "2"]),
        (["DAPI", "", " "], ["DAPI", "1", "2"]),
        (["2", "GFP", ""], ["0", "1", "2"]),
    ],
)
def test_channels_are_told_apart(names: list[str], shown: list[str]) -> None:
    assert distinct_names(names, 3) == shown
