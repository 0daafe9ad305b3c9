"""`volsam evaluate`: what it prints and leaves, and how it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tifffile
import tiny
import yaml

from volsam.cli import main


class Evaluation:
    """A configuration on disk, and the command."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.marker = folder, folder / "marker.json"
        self.data: dict[str, Any] = {
            "task": "evaluate",
            "results": str(folder / "results"),
            "evaluate": {
                "models": [tiny.write_model(folder / name, n) for n, name in enumerate("ab")],
                "data": [tiny.write_discs(folder, 1)],
                "rounds": 1,
            },
        }

    def run(self, monkeypatch: pytest.MonkeyPatch) -> int:
        config = self.folder / "config.yaml"
        config.write_text(yaml.safe_dump(self.data))
        command = ["evaluate", "--config", str(config), "--marker", str(self.marker)]
        monkeypatch.setattr(sys, "argv", ["volsam", *command, "--threads", "1"])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0


@pytest.fixture
def evaluation(tmp_path: Path) -> Evaluation:
    return Evaluation(tmp_path)


def test_table_marker_and_report(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluation.run(monkeypatch) == 0
    said = capsys.readouterr()
    names = evaluation.data["evaluate"]["models"]
    for name in names:
        assert f"| {name} | 1 |" in said.out
    assert "report in" in said.err
    marker = json.loads(evaluation.marker.read_text())
    assert list(marker["models"]) == names
    assert set(marker["models"][names[0]]) >= {"mSA", "SA50", "precision", "recall"}
    assert (evaluation.folder / "results/evaluation/models/report.html").is_file()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"models": ["nothing.pt"]}, ("no model or file", "nothing.pt")),
        ({"models": ["predictions:maps.zarr"]}, ("predictions:maps.zarr",)),
        ({"data": [{"image": "none/*.tif", "labels": "none/*.tif"}]}, ("matches 0 files",)),
        ({"data": "none"}, ("no image with truth in none",)),
        ({"rounds": -1}, ("evaluate.rounds",)),
        ({"data": "held-out"}, ("the section train is missing",)),
        ({"grid": True, "tuning": "same"}, ("is given twice",)),
    ],
)
def test_refusals_are_one_sentence(
    evaluation: Evaluation,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: dict[str, Any],
    words: tuple[str, ...],
) -> None:
    if fault.get("tuning") == "same":
        fault = fault | {"tuning": evaluation.data["evaluate"]["data"]}
    evaluation.data["evaluate"] |= fault
    assert evaluation.run(monkeypatch) == 1
    last = capsys.readouterr().err.rstrip().splitlines()[-1]
    assert last.startswith("error: ")
    assert last.endswith(".")
    for word in words:
        assert word in last
    assert not evaluation.marker.exists()
    assert not list((evaluation.folder / "results").rglob("scores.json"))


def test_labels_of_another_shape(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = evaluation.folder / "lab" / "0.tif"
    tifffile.imwrite(path, tifffile.imread(path)[:-3])
    assert evaluation.run(monkeypatch) == 1
    assert "give labels of the same pixels" in capsys.readouterr().err


def test_help_needs_no_torch() -> None:
    code = "import sys, volsam.cli.app, volsam.cli.evaluate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
