"""`task: evaluate` by Snakemake: what a change reruns, and what a kill loses."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tifffile
import tiny
from flow import Workflow

from volsam.paths import EvaluationPaths

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Evaluation(Workflow):
    """A workflow whose task is to evaluate two models."""

    def __init__(self, folder: Path) -> None:
        models = [tiny.write_model(folder / name, seed) for seed, name in enumerate("ab")]
        data = [tiny.write_discs(folder / "images", 2)]
        settings: dict[str, Any] = {"models": models, "data": data, "rounds": 1}
        super().__init__(
            folder / "run",
            {"task": "evaluate", "results": str(folder / "results"), "evaluate": settings},
        )
        self.inputs = folder
        self.evaluated = EvaluationPaths(self.data["results"], "models")

    def runs(self) -> bool:
        """Whether a run had something to do."""
        super().run()
        nothing = "Nothing to be done" in self.log()
        assert nothing != ("evaluate models models" in self.log())
        return not nothing

    def parts(self) -> dict[str, int]:
        """Kept parts, with the time of their writing."""
        return {
            path.name: path.stat().st_mtime_ns
            for path in (self.evaluated.work / "parts").glob("*.json")
        }


@pytest.fixture
def evaluation(tmp_path: Path) -> Iterator[Evaluation]:
    flow = Evaluation(tmp_path)
    yield flow
    flow.end()


def test_changes_rerun_what_depends_on_them(evaluation: Evaluation) -> None:
    paths = evaluation.evaluated
    assert evaluation.runs()
    assert paths.report.is_file()
    before = paths.scores.read_bytes()
    parts = evaluation.parts()
    assert len(parts) == 4
    assert not evaluation.runs()
    evaluation.data["stitch"] = {"max_gap": 0}
    assert not evaluation.runs()  # models are not stitched

    evaluation.data["evaluate"]["rounds"] = 2
    assert evaluation.runs()
    assert len(evaluation.parts()) == 6
    assert parts.items() <= evaluation.parts().items()
    evaluation.data["evaluate"]["rounds"] = 1
    assert evaluation.runs()
    assert paths.scores.read_bytes() == before

    label = evaluation.inputs / "images" / "lab" / "1.tif"
    labels = tifffile.imread(label)
    labels[labels == 2] = 0
    tifffile.imwrite(label, labels)
    assert evaluation.runs()
    assert paths.scores.read_bytes() != before
    assert not evaluation.runs()
    tiny.write_model(evaluation.inputs / "b", 7)
    old = json.loads(paths.scores.read_text())["models"]
    assert evaluation.runs()
    new = json.loads(paths.scores.read_text())["models"]
    a, b = evaluation.data["evaluate"]["models"]
    assert new[a] == old[a]
    assert new[b]["hash"] != old[b]["hash"]
    assert not evaluation.runs()


def test_killed_and_run_again(evaluation: Evaluation) -> None:
    evaluation.data["evaluate"]["rounds"] = 8
    process = evaluation.start()
    deadline = time.monotonic() + 120
    while not evaluation.parts() and time.monotonic() < deadline:
        time.sleep(0.05)
    evaluation.end()
    assert process.returncode != 0
    kept = evaluation.parts()
    assert kept
    assert evaluation.runs()
    assert kept.items() <= evaluation.parts().items()
    assert evaluation.evaluated.report.is_file()
    assert not list(Path(evaluation.data["results"]).rglob("*.partial"))
    assert not evaluation.runs()


def test_failure_keeps_the_old_result(evaluation: Evaluation) -> None:
    assert evaluation.runs()
    before = evaluation.evaluated.scores.read_bytes()
    evaluation.data["evaluate"]["data"][0]["labels"] = "none/*.tif"
    process = evaluation.start()
    assert process.wait(timeout=120) == 1
    assert "matches 2 files and none/*.tif 0" in evaluation.log()
    assert evaluation.evaluated.scores.read_bytes() == before
