"""From prompts of single cells to lineages, through all stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scenes
import tifffile
import tiny
import zarr
from dishes import FRAMES, SHAPE, cells, settings, write_sequence

from volsam.config import validate
from volsam.errors import VolsamError
from volsam.exchange.ctc import read_ctc
from volsam.paths import SamplePaths
from volsam.segment.masks import tight_box
from volsam.stages.propagate import Propagate, prompted_store
from volsam.track.propagate import Answer
from volsam.track.tables import read_lineage

STAGES = ("ingest", "plan", "propagate", "number", "label", "measure", "observe", "link")
ALL = (*STAGES, "tracks", "export")


def write_prompts(folder: Path) -> str:
    """A box of each cell in its first frame; the third divides."""
    lines = ["frame,track,kind,y0,x0,y1,x1,parent", "3,3,divide,,,,,"]
    for frame, numbers in ((0, (1, 2, 3)), (4, (4, 5))):
        for y, x, radius, number in cells(frame):
            if number in numbers:
                ends = [y - radius - 1, x - radius - 1, y + radius + 2, x + radius + 2]
                place = ",".join(str(max(0, round(v))) for v in ends)
                lines.append(f"{frame},{number},box,{place},{3 if frame else ''}")
    path = folder / "prompts.csv"
    path.write_text("\n".join(lines))
    return str(path)


def flood(image: np.ndarray, queries: Any) -> list[Answer]:
    """Bright pixels of a box, as a model that needs no training."""
    answers = []
    for query in queries:
        logits = np.full(image.shape, -1.0, np.float32)
        y0, x0, y1, x1 = (round(v) for v in query.box)
        logits[y0:y1, x0:x1] = image[y0:y1, x0:x1] - 0.5
        box = tight_box(logits > 0)
        answers.append(Answer(box, logits[box.slices], 0.9))
    return answers


def digests(paths: SamplePaths) -> dict[str, str]:
    """What each stage is a function of."""
    return {name: json.loads(paths.marker(name).read_text())["digest"] for name in STAGES}


def prepare(folder: Path, monkeypatch: pytest.MonkeyPatch, **sample: Any) -> dict[str, Any]:
    write_sequence(folder)
    monkeypatch.setattr(Propagate, "_predictor", lambda self, batch: flood)
    data = settings(folder, folder / "r", sample={"prompts": write_prompts(folder), **sample})
    return {**data, "model": tiny.write_model(folder / "model"), "tiles": {}}


def test_from_prompts_to_lineages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepare(tmp_path, monkeypatch)
    paths = scenes.run_pipeline(data, stages=ALL)
    lineage = read_lineage(paths.lineage)
    assert len(lineage) == 5
    ((mother, daughters),) = lineage.divisions().items()
    assert len(daughters) == 2
    assert lineage.frames()[1][mother - 1] == 3
    truth = tifffile.imread(tmp_path / "truth.tif")
    tracks = np.asarray(zarr.open_array(paths.store / "labels" / "tracks" / "0", mode="r"))
    assert tracks.shape == truth.shape == (FRAMES, *SHAPE)
    for number in range(1, 6):
        own = tracks[truth == number]
        values, counts = np.unique(own, return_counts=True)
        assert values[counts.argmax()] > 0
        assert counts.max() > 0.9 * len(own)
    assert len(read_ctc(paths.ctc)[0]) == 5
    marker = json.loads(paths.marker("propagate").read_text())
    assert marker["outputs"] == {"objects": len(lineage.objects), "lost": []}
    assert not list(paths.work.glob(".*.partial"))


def test_a_failure_leaves_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepare(tmp_path, monkeypatch)

    def breaks(image: np.ndarray, queries: Any) -> list[Answer]:
        raise VolsamError("It is over.")

    monkeypatch.setattr(Propagate, "_predictor", lambda self, batch: breaks)
    with pytest.raises(VolsamError, match="It is over"):
        scenes.run_pipeline(data, stages=STAGES[:3])
    paths = SamplePaths(data["results"], scenes.SAMPLE)
    assert not prompted_store(paths).exists()
    monkeypatch.setattr(Propagate, "_predictor", lambda self, batch: flood)
    scenes.run_pipeline(data, stages=STAGES[:3])
    assert prompted_store(paths).exists()
    assert not list(paths.work.glob(".*.partial"))


def test_a_changed_table_reruns_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepare(tmp_path, monkeypatch)
    paths = scenes.run_pipeline(data, stages=STAGES)
    before = digests(paths)
    table = tmp_path / "prompts.csv"
    table.write_text(table.read_text() + "\n5,1,end,,,,,")
    scenes.run_pipeline(data, stages=STAGES)
    changed = {name for name, digest in digests(paths).items() if digest != before[name]}
    assert changed == set(STAGES[2:])
    lineage = read_lineage(paths.lineage)
    assert sorted(lineage.frames()[1].tolist()) == [3, 5, 7, 7, 7]


def test_a_region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    region = {"t": [0, 6], "y": [0, 75], "x": [2, 90]}
    data = prepare(tmp_path, monkeypatch, region=region)
    paths = scenes.run_pipeline(data, stages=ALL)
    assert read_lineage(paths.lineage).frames()[1].max() == 5
    stored = np.asarray(zarr.open_array(prompted_store(paths), mode="r"))
    truth = tifffile.imread(tmp_path / "truth.tif")
    assert not stored[6:].any()
    both = (stored[:6] > 0) & (truth[:6] > 0)
    assert (
        stored[:6][both] == truth[:6][both]
    ).mean() > 0.95  # daughters share pixels of their boxes
    assert both.sum() > 0.9 * (truth[:6] > 0).sum()


@pytest.mark.parametrize(
    ("depth", "sections", "fault"),
    [
        (3, {}, "sequence of volumes"),
        (1, {"model": "predictions:{folder}/predictions.zarr"}, "predictions cannot answer"),
        (1, {"task": "segment"}, "no sequence that is tracked|several time points|timepoint"),
    ],
)
def test_what_cannot_be_followed(
    tmp_path: Path, depth: int, sections: dict[str, str], fault: str
) -> None:
    write_sequence(tmp_path, depth)
    sample = {"prompts": write_prompts(tmp_path)}
    data = settings(tmp_path, tmp_path / "r", depth, sample=sample)
    data |= {"model": tiny.write_model(tmp_path / "model"), "tiles": {}}
    data |= {key: text.format(folder=tmp_path) for key, text in sections.items()}
    with pytest.raises(VolsamError, match=fault) as error:
        scenes.run_pipeline(data, stages=STAGES[:2])
    assert "\n" not in str(error.value)


def test_prompts_stand_alone(tmp_path: Path) -> None:
    sample = {"prompts": "a.csv", "segmentation": "b.tif"}
    with pytest.raises(VolsamError, match="both prompts and segmentation"):
        validate(settings(tmp_path, tmp_path / "r", sample=sample))
