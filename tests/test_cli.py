"""The command line: what it says, and that it starts without the heavy libraries."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import scenes
from typer.testing import CliRunner

from volsam import __version__
from volsam.blocks.lease import lease
from volsam.blocks.ledger import record_path
from volsam.cli.app import app
from volsam.cli.clean import INTERMEDIATE, clean_sample
from volsam.cli.summary import print_summary
from volsam.config import validate
from volsam.errors import VolsamError
from volsam.paths import SamplePaths

SMALL = (3, 40, 44)


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.stdout.strip() == __version__


def test_starts_without_torch_and_dask() -> None:
    heavy = "('torch', 'distributed', 'zarr')"
    code = f"import sys, volsam.cli.app; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_error_is_one_line_and_exit_1(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "volsam", "run", "plan", "--sample", "a", "--config"]
    done = subprocess.run([*command, str(tmp_path / "c.yaml")], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "No such file" in done.stderr


def test_unknown_stage(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["run", "sgement", "--config", "{}", "--sample", "a"])
    assert isinstance(result.exception, VolsamError)
    assert "There is no stage 'sgement'; use one of ingest, plan" in str(result.exception)


def test_stage_out_of_order(tmp_path: Path) -> None:
    scenes.write_scene(tmp_path, scenes.cells(SMALL, 5, (5, 7), 0))
    data = scenes.settings(tmp_path, tmp_path / "r")
    with pytest.raises(VolsamError, match="Stage plan of sample a is not finished"):
        scenes.run_pipeline(data, stages=("ingest", "segment"))


@pytest.mark.parametrize("active", [True, False])
def test_the_summary_ends_with_a_command_that_the_shell_finds(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    active: bool,
) -> None:
    results = tmp_path / "r"
    marker = SamplePaths(str(results), "a").marker("label")
    marker.parent.mkdir(parents=True)
    marker.write_text(
        '{"outputs": {"objects": 3, "store": "a.ome.zarr", "labels": "labels/objects"}}'
    )
    script = tmp_path / "my env" / "volsam"
    script.parent.mkdir()
    script.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(script.with_name("python")))
    monkeypatch.setenv("PATH", str(script.parent) if active else str(tmp_path))
    print_summary(validate({"results": str(results), "samples": {"a": {"image": "a.tif"}}}))
    printed = capsys.readouterr().out.splitlines()[-1]
    expected = ["view", "volsam" if active else str(script), "view", str(results / "a")]
    assert shlex.split(printed, comments=True) == expected


def test_clean_and_run_again(tmp_path: Path) -> None:
    scenes.write_scene(tmp_path, scenes.cells(SMALL, 8, (5, 7), 0))
    data = scenes.settings(tmp_path, tmp_path / "r", halo=7)
    paths = scenes.run_pipeline(data)
    before = scenes.result_digest(paths)
    config = validate(data)
    with (
        lease(paths.work / "lease.json", "stage label of sample a"),
        pytest.raises(VolsamError, match="in use by stage label"),
    ):
        clean_sample(config, "a")
    freed = clean_sample(config, "a")
    assert freed > 0
    for gone in (paths.fragments, paths.fragment_table, paths.offsets, paths.lookup):
        assert not gone.exists()
    for stage in INTERMEDIATE:
        assert not paths.marker(stage).exists()
        assert not record_path(paths, stage).exists()
        assert not paths.ledger(stage).exists()
    assert scenes.result_digest(paths) == before
    assert clean_sample(config, "a") == 0
    # The last stages still stand on their own tables.
    scenes.run_pipeline(data, stages=("measure",))
    assert scenes.result_digest(paths) == before
    # What was removed comes back as it was.
    assert scenes.result_digest(scenes.run_pipeline(data)) == before


def test_clean_of_nothing(tmp_path: Path) -> None:
    config = validate({"results": str(tmp_path), "samples": {"a": {"image": "x.tif"}}})
    assert clean_sample(config, "a") == 0
