"""`volsam track`: weights from truth, corrections from edited lineages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dishes
import pytest
import scenes
from typer.testing import CliRunner

from volsam.cli.app import app
from volsam.errors import VolsamError
from volsam.exchange.geff import write_geff
from volsam.exchange.tracks_table import write_tracks_csv
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
