"""Blocks, order, workers and kills are no part of lineages: 200 random combinations, byte for byte.

Every third combination is killed, most of them several times, wherever its files change, and goes on in
another order of blocks.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scenes
import strikes
import tifffile

from volsam.blocks.ledger import record_path
from volsam.paths import SamplePaths
from volsam.stages import ingest as ingest_stage
from volsam.stages import plan as plan_stage

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
COMBINATIONS = 100  # of each sequence
LAYOUTS = (
    {"chunk": [2, 80, 80], "shard": [4, 160, 160]},
    {"chunk": [3, 50, 50], "shard": [12, 100, 200]},
)
TRACKING = ("observe", "link", "tracks", "export")
# Where deaths must have been: in every format, and in what comes before.
PLACES = {
    "ctc", "ctc.new", "labels", "ledger", "lineage.parquet", "tables", "track_of.npy",
    "tracks.csv", "tracks.geff", "tracks.xml",
}  # fmt: skip
Outputs = dict[str, dict[str, str]]


def synthetic(folder: Path) -> dict[str, Any]:
    """Cells that wander through each other's way, come, go and divide."""
    rng = np.random.default_rng(5)
    rows, columns = np.indices((96, 96))
    labels = np.zeros((12, 96, 96), np.uint16)
    cells = [(rng.uniform(8, 88, 2), rng.normal(0, 1.5, 2)) for _ in range(14)]
    for frame in range(len(labels)):
        for number in rng.permutation(len(cells)):
            (y, x), _ = cells[number]
            labels[frame][(rows - y) ** 2 + (columns - x) ** 2 <= 16] = number + 1
        moved = []
        for place, step in cells:
            place = place + step + rng.normal(0, 0.7, 2)
            if rng.random() < 0.04:
                moved.append((place + np.array([0, 5]), step))
            if rng.random() > 0.03:
                moved.append((place, step))
        cells = moved
    image = (200 * (labels > 0) + rng.normal(100, 8, labels.shape)).astype(np.uint16)
    return written(folder, image, labels)


def real(folder: Path) -> dict[str, Any]:
    """A part of a real sequence of nuclei with silver masks, where five of them divide."""
    home = SHARED / "ctc_fluo_hela"
    if not home.is_dir():
        pytest.skip(f"no data at {home}")
    part, frames = (slice(450, 630), slice(50, 230)), range(32, 44)
    images = [tifffile.imread(home / "01" / f"t{t:03}.tif")[part] for t in frames]
    masks = [tifffile.imread(home / "01_ST/SEG" / f"man_seg{t:03}.tif")[part] for t in frames]
    return written(folder, np.stack(images), np.stack(masks))


def written(folder: Path, image: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    folder.mkdir()
    tifffile.imwrite(folder / "image.tif", image, photometric="minisblack")
    tifffile.imwrite(folder / "labels.tif", labels, photometric="minisblack")
    sample = {
        "image": str(folder / "image.tif"),
        "segmentation": str(folder / "labels.tif"),
        "axes": "tyx",
        "voxel_size": {"y": 1.0, "x": 1.0},
    }
    return {"task": "track", "results": str(folder / "r"), "samples": {scenes.SAMPLE: sample}}


def products(paths: SamplePaths) -> dict[str, Path]:
    """What users open."""
    return {
        "objects": paths.objects,
        "lineage": paths.lineage,
        "labels": paths.store / "labels",
        "geff": paths.geff,
        "ctc": paths.ctc,
        "csv": paths.tracks_csv,
        "trackmate": paths.trackmate,
    }


def outputs(paths: SamplePaths) -> Outputs:
    """Hash of every file of what users open; none where it is not there."""
    found = {}
    for name, path in products(paths).items():
        single = {"": hashlib.sha256(path.read_bytes()).hexdigest()} if path.is_file() else {}
        found[name] = single or scenes.tree_digest(path)
    return found


def forget(paths: SamplePaths, stale: bool) -> Outputs:
    """Let all stages run again; what they wrote goes, or stays and becomes `stale`."""
    for stage in strikes.STAGES:
        for path in (paths.marker(stage), record_path(paths, stage), paths.ledger(stage)):
            path.unlink(missing_ok=True)
    for name, path in products(paths).items():
        if not stale:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            continue
        inside = {"geff": ".zattrs", "ctc": "res_track.txt", "labels": "tracks/zarr.json"}
        with (path / inside.get(name, "")).open("ab") as file:
            file.write(b"\n")
    return outputs(paths)


def leftovers(paths: SamplePaths) -> list[Path]:
    """Half-written files and folders."""
    patterns = ("*.partial", ".*.new", ".*.old")
    return [path for pattern in patterns for path in paths.folder.rglob(pattern)]


def choose_strikes(rng: random.Random, changes: list[strikes.Change]) -> Iterator[strikes.Strike]:
    """Deaths without end, at changes of an undisturbed run: every stage and place has its turn."""
    groups = Counter((change.stage, change.place) for change in changes)
    while True:
        often = [(s, place) for s, place in groups if s in TRACKING and place != "state"]
        for stage, place in rng.sample(sorted([*groups, *often]), len(groups) + len(often)):
            number = rng.randint(1, groups[stage, place])
            yield strikes.Strike(stage, place, number, rng.choice((0.0, 0.5, 1.0)))


class Sequence:
    """A sequence with what an undisturbed run makes of it, in each layout of the labels."""

    def __init__(self, data: dict[str, Any], notes: Path, rng: random.Random) -> None:
        self.data, self.notes, self.rng = data, notes, rng
        self.paths = scenes.run_pipeline(data, stages=("ingest", "plan"))
        self.expected: list[Outputs] = []
        self.deaths: list[strikes.Change] = []
        plain = strikes.Settings((16, 1024, 1024), 8, (100_000, 1_000_000), None)
        for layout in LAYOUTS:
            data["output"] = layout
            _, changes = strikes.run(data, strikes.STAGES, plain, notes)
            self.expected.append(outputs(self.paths))
        self.strikes = choose_strikes(rng, changes)
        whole, other = self.expected
        assert {name for name in whole if whole[name] != other[name]} == {"labels"}

    def run(self, deaths: int, **options: Any) -> None:
        """One random combination that is to die some times."""
        rng = self.rng
        layout = rng.randrange(len(LAYOUTS))
        self.data["output"] = LAYOUTS[layout]
        before = forget(self.paths, rng.random() < 0.5)
        block = rng.randint(1, 16), rng.randint(40, 400), rng.randint(40, 400)
        run = rng.randint(1, 13)
        linked = rng.randint(1, 200), rng.randint(10, 200)
        to_come = list(islice(self.strikes, deaths))
        to_come.sort(key=lambda strike: strikes.STAGES.index(strike.stage))
        lines: dict[str, Any] = {}
        while True:
            # As Snakemake goes on, or from farther back.
            done = sum(self.paths.marker(stage).exists() for stage in strikes.STAGES)
            stages = strikes.STAGES[rng.randint(0, done) :]
            settings = strikes.Settings(block, run, linked, rng.random())
            strike = to_come.pop(0) if to_come else None
            died, changes = strikes.run(self.data, stages, settings, self.notes, strike, **options)
            now = scenes.ledger_lines(self.paths)
            assert lines.items() <= now.items(), "a block was computed again"
            if not died:
                break
            lines = now
            self.deaths.append(changes[-1])
            for name, files in outputs(self.paths).items():
                known = ({}, before[name], self.expected[layout][name])
                assert name == "labels" or files in known, f"{name} is torn"
        assert outputs(self.paths) == self.expected[layout]
        assert not leftovers(self.paths)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("sequence", [synthetic, real])
def test_lineages_do_not_depend_on_how_they_are_computed(
    sequence: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (ingest_stage, plan_stage):  # two levels, although the frames are small
        monkeypatch.setattr(module, "pyramid_factors", lambda info: ((1, 2, 2),))
    data = sequence(tmp_path / "data")
    data["track"] = {"window": 5, "overlap": 3}
    rng = random.Random(1)
    scene = Sequence(data, tmp_path / "notes", rng)
    for number in range(COMBINATIONS):
        several = {"cluster": "local", "workers": 2} if number % 50 == 49 else {}
        before = len(scene.deaths)
        try:
            scene.run(rng.randint(1, 3) if number % 3 == 0 else 0, **several)
        except AssertionError as error:
            died = scene.deaths[before:]
            raise AssertionError(f"combination {number}, which died at {died}: {error}") from error
    stages = Counter(death.stage for death in scene.deaths)
    print(len(scene.deaths), "deaths:", stages, Counter(death.place for death in scene.deaths))
    assert set(stages) == set(strikes.STAGES)
    assert min(stages[stage] for stage in TRACKING) >= 5
    assert {death.place for death in scene.deaths} >= PLACES
