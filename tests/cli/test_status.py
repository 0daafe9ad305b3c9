"""`volsam status`: what is done, what runs, what failed and why, what it cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import scenes

from volsam.blocks.lease import lease
from volsam.blocks.ledger import Ledger
from volsam.blocks.state import State
from volsam.cli.status import print_status, statuses
from volsam.errors import VolsamError
from volsam.paths import SamplePaths


def test_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenes.write_scene(tmp_path, scenes.cells((3, 40, 40), 6, (6, 8), 0))
    scenes.run_pipeline(scenes.settings(tmp_path, tmp_path / "results"))
    assert print_status(tmp_path / "results", expected=["a", "b"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[1:]] == list(scenes.STAGES)
    assert all(line.split()[2] == "done" for line in lines[1:])
    assert last.split() == ["b", "waiting"]


def test_failed_stage_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenes.write_scene(tmp_path, scenes.cells((3, 40, 40), 6, (6, 8), 0))
    data = scenes.settings(tmp_path, tmp_path / "results")
    (tmp_path / "image.tif").write_bytes(b"no image")
    with pytest.raises(VolsamError):
        scenes.run_pipeline(data)
    assert print_status(tmp_path / "results", failures_only=True) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("a, ingest failed: ")
    assert "image.tif" in line


def test_running_and_stopped(tmp_path: Path) -> None:
    paths = SamplePaths(str(tmp_path), "a")
    with (
        lease(paths.work / "lease.json", "test"),
        Ledger(paths.ledger("segment"), "d") as ledger,
    ):
        ledger.begin()
        state = State(paths, "segment", voxels=1000)
        state.begin(10, 0)
        ledger.append(
            {"block": "0:0", "seconds": 1800.0, "gpus": 2}, {"block": "0:1", "seconds": 1.0}
        )
        state.step(0, ["0:2", "0:3"], {"0:2": ["MemoryError: no room"]})
        state.note()
        (found,) = statuses(tmp_path)
        assert (found.state, found.done, found.blocks) == ("running", 2, 10)
        assert found.running == ["0:2", "0:3"]
        assert found.rate is not None
        assert found.left is not None
        assert found.gpu_hours == 1.0
        assert found.reasons == ["block 0:2: MemoryError: no room"]
    (found,) = statuses(tmp_path)
    assert found.state == "stopped"
    assert found.running == []


def test_no_results(tmp_path: Path) -> None:
    with pytest.raises(VolsamError, match="no samples"):
        print_status(tmp_path)


def test_torn_state_is_no_state(tmp_path: Path) -> None:
    paths = SamplePaths(str(tmp_path), "a")
    path = paths.work / "state" / "plan.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"state": "done"})[:-3])
    assert list(statuses(tmp_path)) == []
