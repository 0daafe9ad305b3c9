"""Which change of a key asks for the network again: digests of stages that have run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import scenes
import zarr

from volsam.config import validate
from volsam.errors import VolsamError
from volsam.paths import SamplePaths

FIRST = ("ingest", "plan")
Change = Callable[[dict[str, Any]], None]


def _set(section: str, **keys: Any) -> Change:
    return lambda data: data.update({section: {**data.get(section, {}), **keys}})


# What cannot change a label or where fragments lie.
CHANGES: dict[str, Change] = {
    "max_files": _set("compute", max_files=10**6),
    "max_memory_gb": _set("compute", max_memory_gb=1000.0),
    "models": lambda data: data.update(models="elsewhere"),
    "truth_tracks": lambda data: data["samples"]["a"].update(truth_tracks="01_GT"),
    "train": lambda data: data.update(train={"name": "mine", "parent": "vit_b"}),
    "dtype": _set("output", dtype="uint16"),
    # A copy is of the output's version, and takes no labels as an input.
    "labels_into": _set("output", labels_into="input"),
    "ome_zarr": _set("output", ome_zarr="0.4"),
}
CASES = [("copied", name) for name in list(CHANGES)[:-2]]
CASES += [("in place", name) for name in CHANGES]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene with its image in two forms, and the first stages of a run on each."""
    folder = tmp_path_factory.mktemp("scene")
    scenes.write_scene(folder, scenes.cells((3, 40, 44), 8, (5, 7), 1))
    paths = scenes.run_pipeline(scenes.settings(folder, folder / "copied"), stages=FIRST)
    shutil.copytree(paths.store, folder / "image.ome.zarr")
    scenes.run_pipeline(settings(folder, "in place"), stages=FIRST)
    return folder


def settings(folder: Path, kind: str) -> dict[str, Any]:
    """Configuration of a run on the TIFF, or on the OME-Zarr."""
    data = scenes.settings(folder, folder / kind)
    if kind == "in place":
        data["samples"]["a"] = {"image": str(folder / "image.ome.zarr")}
    return data


def digest(data: dict[str, Any], stage: str = "segment") -> str:
    """Digest that the stage would have."""
    return scenes.make_stage(validate(data), stage).digest()


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_what_changes_no_fragment_leaves_segment_alone(scene: Path, kind: str, name: str) -> None:
    data = settings(scene, kind)
    scenes.run_pipeline(data, stages=FIRST)
    before = digest(data)
    CHANGES[name](data)
    scenes.run_pipeline(data, stages=FIRST)
    assert digest(data) == before


def test_what_does_change_them_is_noticed(scene: Path) -> None:
    data = settings(scene, "copied")
    scenes.run_pipeline(data, stages=FIRST)
    before = digest(data), digest(data, "ingest")
    data["output"] = {"ome_zarr": "0.4"}  # the copy is another file
    assert digest(data, "ingest") != before[1]
    data = settings(scene, "copied")
    data["normalise"] = {"lower": 5}
    scenes.run_pipeline(data, stages=FIRST)
    assert digest(data) != before[0]


def test_label_follows_the_output_although_nothing_before_does(scene: Path, tmp_path: Path) -> None:
    """The version of labels is that of the output now, and labels into a copy are refused."""
    shutil.copytree(scene / "image.ome.zarr", tmp_path / "image.ome.zarr")
    data = {**settings(scene, "in place"), "results": str(tmp_path / "results")}
    data["samples"]["a"]["image"] = str(tmp_path / "image.ome.zarr")
    paths = scenes.run_pipeline(data)
    before = scenes.read_labels(paths)
    assert (paths.store / "zarr.json").exists()
    data["output"] = {"ome_zarr": "0.4"}
    scenes.run_pipeline(data, stages=("label",))
    assert not (paths.store / "zarr.json").exists()
    assert zarr.open_group(paths.store, mode="r").metadata.zarr_format == 2
    assert (scenes.read_labels(paths) == before).all()
    data["output"] = {"labels_into": "input"}
    scenes.run_pipeline(data, stages=("label",))
    assert (tmp_path / "image.ome.zarr" / "labels" / "objects").is_dir()

    data = {**settings(scene, "copied"), "output": {"labels_into": "input"}}
    with pytest.raises(VolsamError, match=r"image\.tif, which is no OME-Zarr"):
        scenes.make_stage(validate(data), "label")
    assert not (SamplePaths(data["results"], "a").store / "labels").exists()


def test_labels_of_others_are_not_removed_for_another_version(scene: Path, tmp_path: Path) -> None:
    data = {**settings(scene, "in place"), "results": str(tmp_path / "results")}
    paths = scenes.run_pipeline(data)
    mine = zarr.open_group(paths.store / "labels" / "mine", mode="w", zarr_format=3)
    mine.create_array("0", shape=(3, 40, 44), dtype="u2")
    data["output"] = {"ome_zarr": "0.4"}
    with pytest.raises(VolsamError, match="mine exists and was not made by volsam"):
        scenes.run_pipeline(data, stages=("label",))
    assert (paths.store / "labels" / "mine").is_dir()
