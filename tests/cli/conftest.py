"""A bench for the command line: a small scene, its configuration, and what a refusal must look like."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import scenes
import zarr

from volsam.cli import main
from volsam.paths import SamplePaths
from volsam.stages import STAGES

SHAPE = (4, 40, 44)


class Outcome(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


def check_refusal(outcome: Outcome, *words: str) -> str:
    """The command failed with one sentence, the last line on stderr, that contains the words."""
    assert outcome.code == 1, outcome
    last = outcome.err.rstrip("\n").splitlines()[-1]
    assert last.startswith("error: "), outcome.err
    assert len(re.findall(r"^error: ", outcome.err, re.MULTILINE)) == 1, outcome.err
    assert "Traceback" not in outcome.err
    sentence = last.removeprefix("error: ")
    assert sentence.endswith("."), sentence
    # In brackets stands what a library says, as it says it.
    own = re.sub(r"\(.*\)", "", sentence)
    assert not re.search(r"\.\s+[A-Z]", own), f"more than one sentence: {sentence}"
    for word in words:
        assert word in sentence, f"{word!r} is not in: {sentence}"
    return sentence


class Bench:
    """One scene that a test may spoil.

    Attributes
    ----------
    folder : Path
        Inputs: image.tif, predictions.zarr, truth.tif.
    data, sample : dict
        Plain configuration, and the part of its one sample.
    """

    def __init__(self, folder: Path, root: Path, capsys: Any, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.root = folder, root
        self.results = root / "results"
        self.data: dict[str, Any] = scenes.settings(folder, self.results)
        self.sample: dict[str, Any] = self.data["samples"][scenes.SAMPLE]
        self.capsys, self.patch = capsys, patch

    @property
    def paths(self) -> SamplePaths:
        """Where the results lie."""
        return SamplePaths(str(self.results), scenes.SAMPLE)

    def config(self) -> Path:
        """File of the configuration as it is now."""
        path = self.root / "config.yaml"
        path.write_text(json.dumps(self.data))
        return path

    def call(self, *arguments: object) -> Outcome:
        """Run `volsam` in this process."""
        self.capsys.readouterr()
        self.patch.setattr(sys, "argv", ["volsam", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        captured = self.capsys.readouterr()
        return Outcome(int(left.value.code or 0), captured.out, captured.err)

    def plan(self) -> Outcome:
        """`volsam plan`."""
        return self.call("plan", "--config", self.config())

    def arguments(self, stage: str) -> tuple[object, ...]:
        """Arguments that run a stage."""
        common = ("--sample", scenes.SAMPLE, "--cluster", "inline")
        return ("run", stage, "--config", self.config(), *common)

    def run(self, stage: str, *options: object) -> Outcome:
        """`volsam run <stage>`."""
        return self.call(*self.arguments(stage), *options)

    def run_before(self, stage: str) -> None:
        """Run all stages before this one; they must succeed."""
        order = (*scenes.STAGES, "evaluate", "report")
        for name in order[: order.index("segment" if stage == "encode" else stage)]:
            if name == "evaluate" and "truth" not in self.sample:
                continue
            outcome = self.run(name)
            assert outcome.code == 0, outcome.err

    def unfinished(self, stage: str) -> None:
        """Nothing claims that the stage is done, and nothing half-written is left."""
        assert not self.paths.marker(stage).exists()
        assert not self.paths.ledger(stage).with_suffix(".json").exists()
        results = {"measure": self.paths.objects, "evaluate": self.paths.metrics}
        order = list(STAGES)
        for name in order[order.index(stage) :]:
            assert not results.get(name, self.paths.report).exists()
        for folder in (self.results, self.folder):
            assert not [p for p in folder.rglob("*") if p.name.endswith((".partial", ".part"))]
        assert not (self.paths.work / "lease.json").exists()

    def refuses(self, stage: str, *words: str, plan: bool = True) -> None:
        """The stage refuses, the forecast too if `plan`, and the input stays as it is."""
        before = scenes.tree_digest(self.folder)
        if plan:
            written = scenes.tree_digest(self.results)
            check_refusal(self.plan(), *words)
            assert scenes.tree_digest(self.results) == written  # a forecast writes nothing
        self.run_before(stage)
        check_refusal(self.run(stage), *words)
        self.unfinished(stage)
        assert scenes.tree_digest(self.folder) == before


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs that are in order."""
    folder = tmp_path_factory.mktemp("scene")
    scenes.write_scene(folder, scenes.cells(SHAPE, 12, (5, 7), 1))
    return folder


@pytest.fixture
def bench(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Bench:
    """A scene of the test's own."""
    shutil.copytree(scene, tmp_path / "input")
    return Bench(tmp_path / "input", tmp_path, capsys, monkeypatch)


@pytest.fixture
def refusal() -> Callable[..., str]:
    """Function ``(outcome, *words) -> sentence``."""
    return check_refusal


@pytest.fixture
def ome_zarr(bench: Bench) -> Callable[..., Path]:
    """Function ``(image, order) -> path`` that makes an OME-Zarr 0.5 the sample's image."""

    def write(image: np.ndarray, order: str = "zyx") -> Path:
        path = bench.folder / "image.zarr"
        group = zarr.open_group(path, mode="w", zarr_format=3)
        chunks = [1 if name in "tc" else {"z": 2}.get(name, 20) for name in order]
        array = group.create_array("0", shape=image.shape, dtype=image.dtype, chunks=chunks)
        array[...] = image
        kinds = {"t": "time", "c": "channel"}
        axes = [{"name": name, "type": kinds.get(name, "space")} for name in order]
        scale = [{"type": "scale", "scale": [1.0] * len(order)}]
        level = {"path": "0", "coordinateTransformations": scale}
        group.attrs["ome"] = {
            "version": "0.5",
            "multiscales": [{"axes": axes, "datasets": [level]}],
        }
        bench.sample["image"] = str(path)
        del bench.sample["axes"]
        return path

    return write
