"""Snakemake for real: what a change reruns, and what it leaves alone."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import scenes
import tifffile
import yaml
import zarr
from flow import REPOSITORY, Workflow

from volsam.paths import SamplePaths

SNAKEFILE = REPOSITORY / "workflow" / "Snakefile"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_second_run_does_nothing(finished: Workflow) -> None:
    before = scenes.result_digest(finished.paths)
    assert finished.run() == []
    assert "Nothing to be done" in finished.log()
    assert scenes.result_digest(finished.paths) == before
    assert finished.paths.report.is_file()
    assert not list(finished.folder.rglob("*.partial"))


def test_profile_with_dask(workflow: Workflow, finished: Workflow) -> None:
    """The profile as it is, workers and all, gives what one process gives."""
    assert workflow.run(cluster="local") == [*scenes.STAGES, "report"]
    np.testing.assert_array_equal(
        scenes.read_labels(workflow.paths), scenes.read_labels(finished.paths)
    )
    assert workflow.run(cluster="local") == []


def test_stitch_parameter_reruns_partition_and_after(finished: Workflow) -> None:
    finished.data["stitch"] = {"slice_threshold": 0.37}
    assert finished.run() == ["partition", "label", "measure", "report"]
    assert finished.marker("partition")["settings"]["stitch"]["slice_threshold"] == 0.37
    assert finished.run() == []


def test_ais_parameter_reruns_segment_and_after(finished: Workflow) -> None:
    finished.data["ais"] = {"foreground_threshold": 0.45}
    assert finished.run() == ["segment", "overlap", "partition", "label", "measure", "report"]
    assert finished.run() == []


def test_output_layout_reruns_label_and_after(finished: Workflow) -> None:
    before = scenes.read_labels(finished.paths)
    finished.data["output"]["chunk"] = [2, 32, 32]
    assert finished.run() == ["label", "measure", "report"]
    array = zarr.open_array(finished.paths.store / "labels" / "objects" / "0", mode="r")
    assert array.chunks == (2, 32, 32)
    np.testing.assert_array_equal(scenes.read_labels(finished.paths), before)


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        ("compute", {"max_files": 10**6, "max_memory_gb": 1000}),
        ("models", "elsewhere"),
        ("train", {"name": "mine", "parent": "embedded"}),
    ],
)
def test_limits_rerun_nothing(finished: Workflow, section: str, keys: object) -> None:
    before = finished.data.get(section)
    own = {**before, **keys} if isinstance(before, dict) and isinstance(keys, dict) else keys
    finished.data[section] = own
    try:
        assert finished.run() == []
    finally:
        finished.data[section] = before
        if before is None:
            del finished.data[section]


def test_limits_are_kept_to(workflow: Workflow) -> None:
    """What reruns nothing is nevertheless handed to the stage that refuses by it."""
    workflow.data["compute"]["max_files"] = 2
    assert workflow.start().wait(timeout=200) == 1
    assert "compute.max_files is 2" in workflow.log()
    workflow.data["compute"]["max_files"] = 1000
    assert workflow.run("--until", "plan") == ["plan"]
    workflow.data["output"]["labels_into"] = "input"
    assert workflow.start().wait(timeout=200) == 1
    assert "image.tif, which is no OME-Zarr" in workflow.log()


def test_version_of_labels_reruns_label_and_after(workflow: Workflow) -> None:
    scenes.run_pipeline(workflow.data, stages=("ingest",))
    image = workflow.folder / "image.ome.zarr"
    shutil.move(workflow.paths.store, image)
    shutil.rmtree(workflow.paths.folder)
    workflow.data["samples"]["a"] = {"image": str(image)}
    workflow.run()
    before = scenes.read_labels(workflow.paths)
    workflow.data["output"]["ome_zarr"] = "0.4"
    assert workflow.run() == ["label", "measure", "report"]
    np.testing.assert_array_equal(scenes.read_labels(workflow.paths), before)
    workflow.data["output"]["labels_into"] = "input"
    assert workflow.run() == ["label", "measure", "report"]
    assert workflow.run() == []


def test_key_that_no_stage_reads_reruns_nothing(finished: Workflow) -> None:
    """Another sample is another matter: its key does not touch this one."""
    finished.data["samples"]["b"] = {**finished.data["samples"]["a"], "level": 3}
    try:
        # Sample b cannot run, its image has no levels; nothing of sample a is asked for.
        process = finished.start("--dry-run", str(finished.paths.marker("report")))
        process.wait(timeout=200)
        assert process.returncode == 0, finished.log()
        assert "Nothing to be done" in finished.log()
    finally:
        del finished.data["samples"]["b"]


def test_touched_input_reruns_nothing(finished: Workflow) -> None:
    image = Path(finished.data["samples"]["a"]["image"])
    image.touch()
    assert finished.run() == []


def test_changed_content_with_the_old_date_is_noticed(finished: Workflow) -> None:
    image = Path(finished.data["samples"]["a"]["image"])
    before = image.stat()
    pixels = tifffile.imread(image)
    pixels[0, :9, :9] += 7
    image.unlink()
    tifffile.imwrite(image, pixels, photometric="minisblack")
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns - 10**12))
    assert image.stat().st_size == before.st_size
    ran = finished.run()
    assert ran[0] == "ingest"
    assert ran[-2:] == ["measure", "report"]
    stored = zarr.open_array(finished.paths.store / "0", mode="r")
    np.testing.assert_array_equal(np.asarray(stored).squeeze(), pixels)
    assert finished.run() == []


def test_changed_predictions_are_noticed(finished: Workflow) -> None:
    store = Path(finished.data["model"].partition(":")[2])
    array = zarr.open_array(store, mode="r+")
    array[0, 0, :5, :5] = 0.25
    assert finished.run() == [*scenes.STAGES[1:], "report"]


def test_clean_then_run(finished: Workflow) -> None:
    before = scenes.result_digest(finished.paths)
    command = [sys.executable, "-m", "volsam", "clean", "--config", str(finished.config)]
    assert finished.start_command(command).wait(timeout=200) == 0, finished.log()
    assert not finished.paths.fragments.exists()
    assert not finished.paths.lookup.exists()
    assert finished.run() == []
    assert scenes.result_digest(finished.paths) == before
    # What was removed is made again when a change needs it.
    finished.data["stitch"] = {"slice_threshold": 0.33}
    assert finished.run() == ["segment", "overlap", "partition", "label", "measure", "report"]
    assert finished.run() == []


def test_wrong_key_is_one_sentence(finished: Workflow) -> None:
    finished.data["stich"] = {}
    try:
        process = finished.start()
        assert process.wait(timeout=200) != 0
        assert "Key stich is unknown" in finished.log()
        assert "Traceback" not in finished.log()
    finally:
        del finished.data["stich"]


def test_demo_runs_only_where_nothing_is_asked_for(workflow: Workflow) -> None:
    """A configuration that names no sample is not filled with the demo's, though the demo is there."""
    demo = workflow.folder / "config" / "config.yaml"
    demo.parent.mkdir()
    demo.write_text(yaml.safe_dump(workflow.data))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--dry-run"]
    command += ["--workflow-profile", str(REPOSITORY / "profiles" / "local"), "--cores", "1"]
    assert workflow.start_command(command).wait(timeout=200) == 0, workflow.log()
    assert workflow.stages_run() == [*scenes.STAGES, "report"]
    mine = workflow.folder / "my.yaml"
    mine.write_text("results: mine")
    assert workflow.start_command([*command, "--configfile", str(mine)]).wait(timeout=200) == 1
    assert "samples is empty; name at least one image" in workflow.log()
    assert workflow.stages_run() == []


def test_two_runs_at_once(workflow: Workflow) -> None:
    runs = [workflow.start(), workflow.start()]
    assert [run.wait(timeout=800) for run in runs] == [0, 0], workflow.log(0) + workflow.log(1)
    reference = {**workflow.data, "results": str(workflow.folder / "reference")}
    expected = scenes.result_digest(scenes.run_pipeline(reference))
    assert scenes.result_digest(workflow.paths) == expected
    lines = (workflow.paths.work / "ledger" / "segment.jsonl").read_text().splitlines()
    assert len(lines) == 1 + workflow.marker("segment")["blocks"]
    assert workflow.run() == []


@pytest.mark.parametrize("into", ["results", "input"])
def test_ome_zarr_in_place(workflow: Workflow, into: str) -> None:
    scenes.run_pipeline(workflow.data, stages=("ingest",))
    image = workflow.folder / "image.ome.zarr"
    shutil.move(workflow.paths.store, image)
    shutil.rmtree(workflow.paths.folder)
    workflow.data["samples"]["a"] = {"image": str(image)}
    workflow.data["output"]["labels_into"] = into
    before = scenes.tree_digest(image)
    workflow.run()
    after = scenes.tree_digest(image)
    if into == "results":
        assert after == before
        store = workflow.paths.store
    else:
        added = after.keys() - before.keys()
        assert added
        assert all(name.startswith("labels/") for name in added)
        assert {name: after[name] for name in before} == before
        assert not workflow.paths.store.exists()
        store = image
    # The label group is a label image of its own.
    group = zarr.open_group(store / "labels" / "objects", mode="r")
    assert "multiscales" in group.attrs["ome"]
    assert np.asarray(group["0"]).max() > 0
    assert workflow.run() == []


def test_one_bad_sample_does_not_stop_the_others(workflow: Workflow) -> None:
    """A sheet of five: one image is missing, one is torn; the others are finished, and it is said."""
    good = workflow.data["samples"][scenes.SAMPLE]
    torn = workflow.folder / "torn.tif"
    torn.write_bytes(Path(good["image"]).read_bytes()[:200])
    images = {"b": good["image"], "c": good["image"], "torn": str(torn), "gone": "gone.tif"}
    rows = ["name,image,axes,voxel_size.z,voxel_size.y,voxel_size.x"]
    rows += [f"{name},{image},zyx,3,1,1" for name, image in images.items()]
    sheet = workflow.folder / "samples.csv"
    sheet.write_text("\n".join(rows) + "\n")
    workflow.data["sheet"] = str(sheet)
    process = workflow.start()
    assert process.wait(timeout=600) == 1
    for name in (scenes.SAMPLE, "b", "c"):
        assert SamplePaths(workflow.data["results"], name).report.is_file()
    log = workflow.log()
    assert "There is nothing at gone.tif, the image of sample gone" in log
    failed = [line for line in log.splitlines() if "ingest failed:" in line]
    assert [line.split(",")[0] for line in failed] == ["gone", "torn"]
    assert not list(workflow.folder.rglob("*.partial"))
