"""Tiny volumes and working folders for Snakemake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import scenes
from flow import Workflow


def make(folder: Path) -> Workflow:
    """A volume of a few cells, a configuration, and a folder to work in."""
    scene = folder / "scene"
    scenes.write_scene(scene, scenes.cells((5, 60, 70), 25, (7, 10), 0))
    data = scenes.settings(
        scene,
        folder / "run" / "results",
        halo=10,
        compute={"block_slices": 3, "block_tiles": 2},
        output={"chunk": [4, 32, 32], "shard": [4, 64, 64]},
    )
    return Workflow(folder / "run", data)


@pytest.fixture
def workflow(tmp_path: Path) -> Iterator[Workflow]:
    """A workflow that nothing has run."""
    flow = make(tmp_path)
    yield flow
    flow.end()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workflow]:
    """A finished workflow that the tests of a module share; each leaves it finished."""
    flow = make(tmp_path_factory.mktemp("workflow"))
    assert flow.run() == [*scenes.STAGES, "report"]
    yield flow
    flow.end()
