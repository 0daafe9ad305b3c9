"""What a run will need, and what is refused for it."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import scenes
import tifffile
import zarr

from volsam.config import Compute, validate
from volsam.errors import VolsamError
from volsam.stages.forecast import Forecast
from volsam.stages.runplan import RunPlan

SMALL = Forecast(
    tiles=1,
    blocks=10,
    voxels=1,
    fragment_bytes=1,
    label_bytes=1,
    embedding_bytes=0,
    copy_bytes=0,
    worker_bytes=1,
    files=5,
    tile_seconds=None,
)


def test_embeddings_count_where_they_are_kept(tmp_path: Path) -> None:
    large = replace(SMALL, embedding_bytes=2**60)
    large.check(tmp_path, Compute())
    with pytest.raises(VolsamError, match="store no embeddings"):
        large.check(tmp_path, Compute(store_embeddings=True))
    with pytest.raises(VolsamError, match="about 15 files"):
        SMALL.check(tmp_path, Compute(store_embeddings=True, max_files=14))


def test_scale_is_blamed_only_where_it_is_the_cause(tmp_path: Path) -> None:
    memory = psutil.virtual_memory().total
    for enlarged, words in ((4.0, "scale resamples"), (1.5, "lower compute.batch")):
        with pytest.raises(VolsamError, match=words):
            replace(SMALL, worker_bytes=9 * memory, enlarged=enlarged).check(tmp_path, Compute())


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("axes", "task"), [("zyx", "segment"), ("czyx", "segment"), ("tyx", "track")]
)
def test_files_and_bytes_of_the_copy(tmp_path: Path, axes: str, task: str, version: str) -> None:
    """What is forecast of the copy is what ingest writes."""
    shape = (*((2,) if axes == "czyx" else ()), 3, 600, 300)
    image = np.random.default_rng(0).integers(1, 2**16, shape, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "image.tif", image, photometric="minisblack")
    labels = np.zeros((3, 600, 300), np.uint16)
    scenes.write_scene(tmp_path / "scene", labels[:, :30, :30])
    tifffile.imwrite(tmp_path / "labels.tif", labels, photometric="minisblack")
    sample = {"image": str(tmp_path / "image.tif"), "axes": axes, "channel": 0}
    sample |= {"voxel_size": {"y": 1, "x": 1}, "segmentation": str(tmp_path / "labels.tif")}
    data = {"results": str(tmp_path / "results"), "task": task, "samples": {"a": sample}}
    data["output"] = {"ome_zarr": version}
    paths = scenes.run_pipeline(data, stages=("ingest", "plan"))
    names = [p for p in paths.store.rglob("*") if p.is_file() and p.name.strip("0123456789") == ""]
    stage = scenes.make_stage(validate(data), "plan")
    own = {"path": sample["image"], "key": None, "axes": axes}
    _, before = stage.resolve(own, sample_voxels=False)  # type: ignore[attr-defined]
    _, after = stage.resolve(  # type: ignore[attr-defined]
        {"path": str(paths.store), "key": None, "axes": None}, sample_voxels=False
    )
    assert before.files == after.files
    assert after.copy_bytes == 0
    arrays = [array for _, array in zarr.open_group(paths.store, mode="r").arrays()]
    assert before.copy_bytes == sum(2 * int(np.prod(array.shape)) for array in arrays)
    sample["image"] = str(paths.store)
    sample["axes"] = None
    _, in_place = scenes.make_stage(validate(data), "plan").resolve(  # type: ignore[attr-defined]
        {"path": str(paths.store), "key": None, "axes": None}, sample_voxels=False
    )
    assert in_place.copy_bytes == 0
    assert before.files - in_place.files == len(names)


@pytest.mark.parametrize("seed", range(20))
def test_blocks_and_tiles_are_those_of_the_stages(seed: int) -> None:
    """They are counted without a look at each, of which there may be millions."""
    rng = np.random.default_rng(seed)
    z, y, x = (int(n) for n in rng.integers(1, [12, 200, 200]))
    start = [int(rng.integers(0, n)) for n in (z, y, x)]
    stop = [int(rng.integers(a + 1, n + 1)) for a, n in zip(start, (z, y, x), strict=True)]
    data = {field.name: None for field in fields(RunPlan)}
    data |= {"shape": (z, y, x), "voxel_size": (), "translation": (), "factors": ()}
    data |= {"region": (start, stop), "tile": int(rng.integers(16, 60)), "halo": 8}
    data |= {"block_slices": int(rng.integers(1, 6)), "block_tiles": int(rng.integers(1, 4))}
    plan = RunPlan.from_json(data)
    tiles = [len(list(plan.tiles(block))) for block in plan.tile_blocks()]
    assert plan.counts() == (len(tiles), sum(tiles))
