"""Blocks, layout, workers and order are no part of the result.

From the same predictions and tile grid, any block size and any order of completion give the same
labels, and the same bytes where the output layout is the same.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import scenes

from volsam.blocks import runner
from volsam.blocks.cluster.local import open_local
from volsam.blocks.ledger import record_path
from volsam.config import validate
from volsam.paths import SamplePaths
from volsam.stages import ingest as ingest_stage
from volsam.stages import plan as plan_stage

SHAPE = (5, 40, 44)
TILE, HALO = 16, 6  # 3 x 3 tiles
Grid = tuple[int, int]
# As many tiles again, the last of them narrow; and one tile for all.
GRIDS: tuple[Grid, ...] = ((TILE, HALO), (18, 5), (44, 8))
LAYOUTS: dict[str, dict[str, Any]] = {
    "small shards": {"chunk": [1, 8, 8], "shard": [2, 16, 16]},
    "odd chunks": {"chunk": [3, 13, 7], "shard": [3, 26, 21]},
    "one shard": {"chunk": [5, 20, 22], "shard": [5, 40, 44]},
    "no shards": {"chunk": [2, 20, 20], "shard": [2, 20, 20], "ome_zarr": "0.4"},
}
HUGE = 2**33
BATCHES, PER_BATCH = 16, 13


def labels_of(scene: str) -> scenes.Labels:
    if scene == "rod":
        return scenes.rod(SHAPE)
    if scene == "sheet":
        return scenes.sheet(SHAPE)
    if scene == "corners":
        return scenes.corners(SHAPE, TILE)
    if scene == "plane":
        return scenes.cells((1, *SHAPE[1:]), 12, (4, 6), 3)
    labels = scenes.cells(SHAPE, 40, (5, 7), 1)
    if scene == "gaps":
        labels[2, :, ::2] = 0
        labels[3, :20] = 0
    if scene == "empty":
        labels[:] = 0
    if scene == "half empty":
        labels[:, 14:] = 0
        labels[1:3] = 0
    return labels


SCENES = ("cells", "rod", "sheet", "corners", "plane", "gaps", "empty", "half empty")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    for scene in SCENES:
        scenes.write_scene(root / scene, labels_of(scene), noise=0.03)
    return root


@pytest.fixture(autouse=True)
def _pyramid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two levels, although the volumes are too small to have them."""
    for module in (ingest_stage, plan_stage):
        monkeypatch.setattr(module, "pyramid_factors", lambda info: ((1, 2, 2),))


def shift_ids(paths: SamplePaths) -> None:
    """Let the objects be numbered from beyond 2**32."""
    lookup = np.load(paths.lookup)
    lookup[lookup > 0] += np.uint64(HUGE)
    np.save(paths.lookup, lookup)
    path = record_path(paths, "partition")
    record = json.loads(path.read_text())
    record["outputs"]["objects"] += HUGE
    path.write_text(json.dumps(record))


def run(
    folder: Path,
    results: Path,
    scene: str,
    layout: str,
    compute: dict[str, int],
    order: scenes.Order | None = None,
    huge: bool = False,
    grid: Grid = GRIDS[0],
    **options: Any,
) -> SamplePaths:
    data = scenes.settings(
        folder / scene, results, tile=grid[0], halo=grid[1], output=LAYOUTS[layout], compute=compute
    )
    first = scenes.STAGES[: scenes.STAGES.index("label")]
    paths = scenes.run_pipeline(data, stages=first, order=order, **options)
    if huge:
        shift_ids(paths)
    return scenes.run_pipeline(data, stages=("label", "measure"), order=order, **options)


class References:
    """First result of each scene and tile grid, layout and kind of ids; all others must equal it."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        self.labels: dict[tuple[str, Grid], npt.NDArray[Any]] = {}
        self.bytes: dict[tuple[str, Grid, str, bool], dict[str, str]] = {}

    def whole(self, scene: str, grid: Grid = GRIDS[0]) -> npt.NDArray[Any]:
        """Labels of a run with one block for all."""
        if (scene, grid) not in self.labels:
            compute = {"block_slices": 8, "block_tiles": 8}
            results = self.root / f"{scene}-{grid[0]}"
            paths = run(self.folder, results, scene, "one shard", compute, grid=grid)
            self.labels[scene, grid] = scenes.read_labels(paths)
        return self.labels[scene, grid]

    def check(
        self, paths: SamplePaths, scene: str, grid: Grid, layout: str, huge: bool, what: str
    ) -> None:
        labels = scenes.read_labels(paths)
        expected = self.whole(scene, grid).astype(labels.dtype)
        if huge and expected.any():
            assert labels.dtype == np.uint64
            expected[expected > 0] += HUGE
        np.testing.assert_array_equal(labels, expected, err_msg=what)
        digest = scenes.result_digest(paths)
        assert digest == self.bytes.setdefault((scene, grid, layout, huge), digest), what


@pytest.fixture(scope="module")
def references(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> References:
    return References(folder, tmp_path_factory.mktemp("references"))


def combinations() -> list[tuple[str, Grid, str, dict[str, int], bool, int]]:
    """At least 200 random ones, the extremes of block size first."""
    chooser = random.Random(20)
    found = []
    for number in range(BATCHES * PER_BATCH):
        size = (
            {"block_slices": 1, "block_tiles": 1}
            if number < len(SCENES)
            else {"block_slices": chooser.randint(1, 5), "block_tiles": chooser.randint(1, 4)}
        )
        scene = SCENES[number % len(SCENES)]
        huge = chooser.random() < 0.25
        grid = chooser.choice(GRIDS)
        found.append((scene, grid, chooser.choice(list(LAYOUTS)), size, huge, number))
    chooser.shuffle(found)
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_combinations(batch: int, references: References, tmp_path: Path) -> None:
    for scene, grid, layout, size, huge, seed in combinations()[batch::BATCHES]:
        shuffle = random.Random(seed)
        paths = run(
            references.folder,
            tmp_path / str(seed),
            scene,
            layout,
            size,
            lambda blocks, shuffle=shuffle: shuffle.sample(blocks, len(blocks)),  # type: ignore[misc]
            huge,
            grid,
        )
        what = f"{scene}, tiles {grid}, {layout}, {size}, ids beyond 2**32: {huge}, order {seed}"
        references.check(paths, scene, grid, layout, huge, what)


@pytest.mark.timeout(280)
def test_two_dask_workers(
    references: References, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_local(2, 1) as workers:

        @contextlib.contextmanager
        def same_cluster(*_: Any) -> Iterator[Any]:
            yield workers

        monkeypatch.setattr(
            runner,
            "open_cluster",
            lambda site, *a, **k: same_cluster() if site.kind == "local" else none(),
        )
        for seed, (scene, grid, layout, size) in enumerate(
            [
                ("cells", GRIDS[0], "odd chunks", {"block_slices": 2, "block_tiles": 1}),
                ("rod", GRIDS[0], "no shards", {"block_slices": 2, "block_tiles": 2}),
                ("gaps", GRIDS[0], "small shards", {"block_slices": 2, "block_tiles": 1}),
                ("corners", GRIDS[1], "odd chunks", {"block_slices": 1, "block_tiles": 2}),
            ]
        ):
            paths = run(
                references.folder,
                tmp_path / str(seed),
                scene,
                layout,
                size,
                grid=grid,
                cluster="local",
                workers=2,
            )
            references.check(paths, scene, grid, layout, False, f"{scene} on Dask")
            pids = {line["pid"] for line in scenes.ledger_lines(paths).values()}
            assert len(pids) > 1


@contextlib.contextmanager
def none() -> Iterator[None]:
    yield None


def test_scenes_are_what_they_say(references: References) -> None:
    """One object through three blocks and more on every axis; objects at block corners; nothing."""
    rod = references.whole("rod")
    assert rod.max() == 1
    for axis, unit in enumerate((1, TILE, TILE)):
        places = np.flatnonzero(rod.any(axis=tuple({0, 1, 2} - {axis})))
        assert len(set(places // unit)) >= 3
    sheet = references.whole("sheet")
    assert sheet.max() == 1
    assert sheet.any(axis=(0, 1)).all()
    corners = references.whole("corners")
    truth = labels_of("corners")
    assert corners.max() == truth.max()
    for number in range(1, int(truth.max()) + 1):
        (label,) = np.unique(corners[truth == number][corners[truth == number] > 0])
        y, x = np.nonzero((corners == label).any(axis=0))
        assert len(set(zip(y // TILE, x // TILE, strict=True))) == 4
    assert references.whole("cells").max() > 15
    assert references.whole("plane").max() > 5
    assert not references.whole("empty").any()


def test_gaps_are_filled_across_block_borders(references: References) -> None:
    labels = references.whole("gaps")
    missing = labels_of("gaps")[2] == 0
    both_sides = (labels[1] == labels[3]) & (labels[1] > 0)
    assert (both_sides & missing).sum() >= 50
    assert (labels[2][both_sides] > 0).all()


def test_global_fragment_ids_beyond_32_bits(folder: Path, tmp_path: Path) -> None:
    """Overlap tables carry 64-bit ids: shifted offsets give shifted edges and nothing else."""
    data = scenes.settings(folder / "cells", tmp_path, tile=TILE, halo=HALO)
    paths = scenes.run_pipeline(data, stages=("ingest", "plan", "segment", "overlap"))

    def edges() -> dict[str, npt.NDArray[Any]]:
        tables = [pq.read_table(p) for p in sorted(paths.tables("overlap").glob("*.parquet"))]
        return {
            name: np.concatenate([table[name].to_numpy() for table in tables])
            for name in tables[0].column_names
        }

    plain = edges()
    np.save(paths.offsets, np.load(paths.offsets) + np.uint64(HUGE))
    paths.ledger("overlap").unlink()
    scenes.run_pipeline(data, stages=("overlap",))
    shifted = edges()
    assert len(plain["u"]) > 50
    for name in plain:
        by = np.uint64(HUGE if name in ("u", "v") else 0)
        np.testing.assert_array_equal(shifted[name].astype(np.uint64) - by, plain[name])


def test_table_follows_the_labels(references: References, folder: Path, tmp_path: Path) -> None:
    size = {"block_slices": 2, "block_tiles": 1}
    paths = run(folder, tmp_path, "cells", "small shards", size, huge=True)
    table = pq.read_table(paths.objects).to_pydict()
    labels = scenes.read_labels(paths)
    ids, voxels = np.unique(labels[labels > 0], return_counts=True)
    assert table["id"] == ids.tolist()
    assert min(table["id"]) > 2**32
    assert table["voxels"] == voxels.tolist()
    coarse = scenes.read_labels(paths, 1)
    assert set(np.unique(coarse)) <= set(np.unique(labels))


def test_output_of_a_second_config_does_not_mix(folder: Path, tmp_path: Path) -> None:
    """The same results folder with another layout, then the first again: the first bytes again."""
    size = {"block_slices": 2, "block_tiles": 2}
    first = scenes.result_digest(run(folder, tmp_path, "cells", "small shards", size))
    other = scenes.result_digest(run(folder, tmp_path, "cells", "one shard", size))
    assert other != first
    assert scenes.result_digest(run(folder, tmp_path, "cells", "small shards", size)) == first


def test_validates() -> None:
    """Layouts of this file are layouts a user may write."""
    for layout in LAYOUTS.values():
        validate({"samples": {"a": {"image": "x"}}, "output": layout})
