"""`volsam track`: weights from truth, corrections from edited lineages and labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import dishes
import numpy as np
import pytest
import scenes
import tifffile
import zarr
from typer.testing import CliRunner

from volsam.cli.app import app
from volsam.errors import VolsamError
from volsam.exchange.geff import write_geff
from volsam.exchange.tracks_table import write_tracks_csv
from volsam.track.correction_table import read_rows
from volsam.track.lineage import Lineage
from volsam.track.tables import read_lineage


def call(*arguments: Any) -> str:
    result = CliRunner().invoke(app, ["track", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def tracked(folder: Path, **sample: Any) -> tuple[Path, Lineage]:
    """A tracked dish: its configuration and its lineage."""
    dishes.write_sequence(folder)
    given = {"segmentation": str(folder / "labels.tif"), **sample}
    data = dishes.settings(folder, folder / "r", sample=given)
    config = folder / "my.yaml"
    config.write_text(json.dumps(data))
    return config, read_lineage(scenes.run_pipeline(data, stages=dishes.GIVEN).lineage)


@pytest.mark.parametrize("kind", ["csv", "geff"])
def test_edits_become_corrections(tmp_path: Path, kind: str) -> None:
    config, lineage = tracked(tmp_path)
    kept = [link for link in lineage.links().tolist() if link[1] != lineage.links()[-1][1]]
    edited = tmp_path / f"edited.{kind}"
    write = write_tracks_csv if kind == "csv" else write_geff
    write(edited, Lineage.of(lineage.objects, kept))
    table = tmp_path / "corrections.csv"
    said = call("correct", "--config", config, "--sample", "a", edited, "--out", table)
    assert "0 links added and 1 cut" in said
    assert len(table.read_text().splitlines()) == 2
    with pytest.raises(VolsamError, match="names no table of corrections"):
        call("correct", "--config", config, "--sample", "a", edited)
    with pytest.raises(VolsamError, match="is no edited lineage"):
        call("correct", "--config", config, "--sample", "a", tmp_path / "x.txt", "--out", table)
    with pytest.raises(VolsamError, match="no sample 'b'"):
        call("correct", "--config", config, "--sample", "b", edited, "--out", table)


@pytest.mark.parametrize("kind", ["tif", "zarr"])
def test_edited_labels_become_corrections(tmp_path: Path, kind: str) -> None:
    config, _ = tracked(tmp_path)
    correct = ("correct", "--config", config, "--sample", "a")
    table = tmp_path / "corrections.csv"
    paths = scenes.SamplePaths(str(tmp_path / "r"), "a")
    labels = scenes.read_labels(paths)
    known = np.unique(labels[1])[1:]
    labels[1][labels[1] == known[1]] = known[0]
    labels[2][(labels[2] > 0) & (np.indices(dishes.SHAPE)[0] > 56)] = 90  # half of the second cell
    edited = tmp_path / "edited.tif"
    if kind == "tif":
        tifffile.imwrite(edited, labels, photometric="minisblack")
    else:  # saved in its place
        edited = paths.store / "labels" / "objects"
        result = tmp_path / "objects"
        shutil.copytree(edited, result)
        zarr.open_array(result / "0", mode="r+")[:] = labels
        edited = result
    said = call(*correct, "--labels", edited, "--out", table)
    assert "1 merges and 1 splits of objects" in said
    assert "add corrections:" in said
    assert [(row.action, row.first.frame) for row in read_rows(table)] == [
        ("merge", 1),
        ("split", 2),
    ]
    data = json.loads(config.read_text())
    data["samples"]["a"]["corrections"] = str(table)
    stages = [
        stage for name in dishes.GIVEN for stage in (name, "regroup")[: 1 + (name == "number")]
    ]
    again = scenes.read_labels(scenes.run_pipeline(data, stages=stages))
    counts = [len(np.unique(frame)) for frame in again]
    assert counts == [len(np.unique(frame)) for frame in labels]


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    config, _ = tracked(tmp_path)
    correct = ("correct", "--config", config, "--sample", "a", "--out", tmp_path / "c.csv")
    edited = tmp_path / "edited.tif"
    with pytest.raises(VolsamError, match="Nothing was edited"):
        call(*correct)
    with pytest.raises(VolsamError, match="nothing at"):
        call(*correct, "--labels", edited)
    with pytest.raises(VolsamError, match="--labels alone"):
        call(*correct, tmp_path / "edited.xml", "--labels", edited)
    for kind, frames, message in (("u2", 3, "has shape"), ("f4", dishes.FRAMES, "holds float32")):
        stack = np.zeros((frames, *dishes.SHAPE), kind)
        tifffile.imwrite(edited, stack, photometric="minisblack")
        with pytest.raises(VolsamError, match=message):
            call(*correct, "--labels", edited)
    stack = np.zeros((dishes.FRAMES, *dishes.SHAPE), np.uint8)
    tifffile.imwrite(edited, stack, photometric="minisblack")
    assert not (tmp_path / "c.csv").exists()
    assert "28 objects were erased" in call(*correct, "--labels", edited)


def test_weights_are_fitted_to_truth(tmp_path: Path) -> None:
    config, _ = tracked(tmp_path, truth_tracks=str(tmp_path / "01_GT"))
    dishes.write_truth(tmp_path)
    weights = tmp_path / "weights.json"
    assert "fitted to" in call("fit", "--config", config, "--out", weights)
    data = json.loads(config.read_text()) | {"track": {"weights": str(weights)}}
    paths = scenes.run_pipeline(data, stages=dishes.GIVEN)
    assert len(read_lineage(paths.lineage)) == 5
    plain = json.loads(config.read_text())
    del plain["samples"]["a"]["truth_tracks"]
    config.write_text(json.dumps(plain))
    with pytest.raises(VolsamError, match="No sample names a tracked truth"):
        call("fit", "--config", config, "--out", weights)
