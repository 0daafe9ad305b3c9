"""What the plan and later stages refuse: one sentence, exit code 1, nothing half-written."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scenes
import tifffile
import zarr
from spoils import IMAGE, SHAPE, Refusal, Spoil, Write

from volsam.stages import forecast

if TYPE_CHECKING:
    from conftest import Bench


# What the plan refuses.


def _sample(**keys: Any) -> Spoil:
    return lambda b: b.sample.update(keys)


def _other(role: str) -> Spoil:
    def spoil(b: Bench) -> None:
        tifffile.imwrite(b.folder / f"{role}.tif", IMAGE[:, :-1], photometric="minisblack")
        b.sample[role] = str(b.folder / f"{role}.tif")

    return spoil


def _predictions(shape: tuple[int, ...], dtype: str) -> Spoil:
    def spoil(b: Bench) -> None:
        path = b.folder / "predictions.zarr"
        zarr.create_array(path, shape=shape, dtype=dtype, chunks=shape, overwrite=True)[:] = 0

    return spoil


def _scale(**keys: float) -> Spoil:
    """A scale that no model works at."""
    return lambda b: b.data.update(model="embedded", scale=keys, tiles={})


PLANS: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "region": (_sample(region={"y": [0, 41]}), ("Region y", "40 voxels")),
    "empty region": (_sample(region={"z": [2, 2]}), ("Region z", "empty")),
    "level of a TIFF": (_sample(level=1), ("image.tif", "level")),
    "channel": (_sample(channel=1), ("Channel 1",)),
    "channel name": (_sample(channel="DAPI"), ("'DAPI'",)),
    "mask missing": (_sample(mask="nowhere.tif"), ("nowhere.tif",)),
    "mask of another shape": (_other("mask"), ("mask.tif", "(4, 39, 44)", "(4, 40, 44)")),
    "predictions missing": (
        lambda b: b.data.update(model="predictions:no.zarr"),
        ("nothing at no.zarr",),
    ),
    "predictions of another shape": (
        _predictions((3, 4, 40, 43), "f4"),
        ("predictions.zarr", "(4, 40, 43)", "(4, 40, 44)"),
    ),
    "two predictions": (_predictions((2, *SHAPE), "f4"), ("predictions.zarr", "2 channels")),
    "predictions of whole numbers": (
        _predictions((3, *SHAPE), "u1"),
        ("predictions.zarr", "uint8"),
    ),
    "tiny tile": (lambda b: b.data["tiles"].update(size=16, halo=20), ("tiles.size",)),
    "memory": (
        lambda b: b.data.update(compute={"max_memory_gb": 0.001}),
        ("memory", "compute.batch"),
    ),
    "a scale of dots": (
        _scale(diameter=0.01),
        ("Key scale resamples", "factor of 1.64e+03", "sees 0 of its pixels"),
    ),
    "a small pixel size": (_scale(pixel_size=0.001), ("Key scale", "factor of 1e+03")),
    "a scale of worlds": (
        _scale(diameter=5000),
        ("scale resamples", "factor of 0.00328", "305 times as long"),
    ),
    "files": (
        lambda b: b.data.update(compute={"max_files": 2}),
        ("about", "files", "compute.max_files", "output.shard"),
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_plans(bench: Bench, name: str) -> None:
    spoil, words = PLANS[name]
    spoil(bench)
    bench.refuses("plan", *words, plan="level" not in name)


def test_copy_of_the_image_that_does_not_fit(bench: Bench, refusal: Refusal) -> None:
    """The forecast counts the copy until it is there; an image in place needs none."""
    usage = shutil.disk_usage(bench.root)._replace(free=20_000)
    bench.patch.setattr(forecast.shutil, "disk_usage", lambda path: usage)
    words = ("13.8 KiB of it a copy of the image, before compression", "19.5 KiB are free")
    refusal(bench.plan(), *words)
    bench.run_before("plan")
    assert bench.plan().code == 0
    assert bench.run("plan").code == 0
    bench.results = bench.root / "more"
    bench.data["results"] = str(bench.results)
    refusal(bench.plan(), *words)
    bench.sample["image"] = str(bench.root / "results" / "a" / "a.ome.zarr")
    assert bench.plan().code == 0


def test_channels_and_levels(bench: Bench, ome_zarr: Write) -> None:
    ome_zarr(np.stack([IMAGE, IMAGE]), "czyx")
    bench.refuses("plan", "2 channels", "image.zarr")
    bench.sample["channel"] = 0
    bench.sample["level"] = 3
    bench.results = bench.root / "more"
    bench.data["results"] = str(bench.results)
    bench.refuses("plan", "image.zarr", "Level 3")


# Later stages.


def test_stage_out_of_order(bench: Bench, refusal: Refusal) -> None:
    refusal(bench.run("segment"), "Stage plan", "not finished")
    bench.unfinished("segment")
    bench.run_before("plan")
    path = bench.paths.work / "ledger" / "ingest.json"
    path.write_text(path.read_text()[:99])
    refusal(bench.run("plan"), "Stage ingest", "ingest.json")


def test_plan_of_another_version(bench: Bench, refusal: Refusal) -> None:
    bench.run_before("segment")
    path = bench.paths.work / "ledger" / "plan.json"
    marker = json.loads(path.read_text())
    del marker["outputs"]["plan"]["halo"]
    path.write_text(json.dumps(marker))
    refusal(bench.run("segment"), "another version")


def test_nan_in_predictions(bench: Bench) -> None:
    array = zarr.open_array(bench.folder / "predictions.zarr", mode="r+")
    array[1, 2, 30, 30] = np.nan
    bench.refuses("segment", "predictions.zarr", "slice 2", plan=False)
    assert not list(bench.paths.tables("segment").glob("*.parquet"))


def test_embeddings_of_predictions(bench: Bench) -> None:
    bench.data["compute"] = {"store_embeddings": True}
    bench.refuses("encode", "store_embeddings", plan=False)


def test_label_overflow(bench: Bench) -> None:
    bench.data["output"] = {"dtype": "uint16"}
    bench.run_before("label")
    path = bench.paths.work / "ledger" / "partition.json"
    marker = json.loads(path.read_text())
    marker["outputs"]["objects"] = 70000
    bench.patch.setattr(bench, "run_before", lambda stage: path.write_text(json.dumps(marker)))
    bench.refuses("label", "70000 objects", "uint16", plan=False)
    assert not (bench.paths.store / "labels").exists()


def test_truth(bench: Bench, refusal: Refusal) -> None:
    _other("truth")(bench)
    refusal(bench.plan(), "truth.tif", "(4, 39, 44)", "(4, 40, 44)")
    bench.run_before("measure")
    done = scenes.tree_digest(bench.paths.store)
    bench.patch.setattr(bench, "run_before", lambda stage: None)
    bench.refuses("evaluate", "truth.tif", "(4, 39, 44)", plan=False)
    halves = np.full(SHAPE, 0.5, np.float32)
    tifffile.imwrite(bench.folder / "truth.tif", halves, photometric="minisblack")
    bench.refuses("evaluate", "truth.tif", "float32", plan=False)
    assert scenes.tree_digest(bench.paths.store) == done
