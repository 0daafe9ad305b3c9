"""Objects that a user merged and split, through all stages and whenever they are found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dishes
import numpy as np
import pytest
import scenes
import tifffile
from scipy import ndimage

from volsam.blocks.stage import Job
from volsam.config import validate
from volsam.dependence import stage_config
from volsam.errors import VolsamError
from volsam.inputs import fingerprints
from volsam.stages.edits import edited_objects
from volsam.track.correction_table import Place, Row, read_rows, write_rows
from volsam.track.tables import read_lineage

FOUND = ("ingest", "plan", "segment", "overlap", "partition", "regroup", "label", "measure")
STAGES = (*FOUND, *dishes.LINKING)
GIVEN = ("ingest", "plan", "number", "regroup", "label", "measure", *dishes.LINKING)
FRAME = 2
SPLIT = ((38, 62), (42, 62))  # the cell that divides later, in frame 2, into upper and lower half
MERGED = ((19, 17), (58, 20))  # the two others of frame 2


def rows(depth: int = 1, frame: int = FRAME) -> list[Row]:
    """A split and a merge of a frame of the dish."""
    spacing = (2.0, 0.5, 0.5)
    ends = [
        [Place.of(frame, (depth // 2, *point), spacing) for point in pair]
        for pair in (SPLIT, MERGED)
    ]
    return [Row("split", *ends[0]), Row("merge", *ends[1])]


def run(
    folder: Path,
    results: Path,
    table: Path | None,
    depth: int = 1,
    given: bool = False,
    last: str = "measure",
    **sections: Any,
) -> scenes.SamplePaths:
    sample: dict[str, Any] = {"segmentation": str(folder / "labels.tif")} if given else {}
    stages = GIVEN if given else STAGES
    stages = stages[: stages.index(last) + 1]
    if table is None:
        stages = tuple(stage for stage in stages if stage != "regroup")
    else:
        sample["corrections"] = str(table)
    data = dishes.settings(folder, results, depth, sample=sample, **sections)
    return scenes.run_pipeline(data, stages=stages, order=lambda blocks: blocks[::-1])


def check(labels: np.ndarray, plain: np.ndarray, depth: int = 1) -> None:
    """Frame 2 is corrected, the others are as they were; numbers have no holes."""
    labels, plain = (a.reshape(dishes.FRAMES, depth, *dishes.SHAPE) for a in (labels, plain))
    assert np.array_equal(labels > 0, plain > 0)
    ids = np.unique(labels)[1:]
    assert ids.tolist() == list(range(1, len(ids) + 1))
    assert len(ids) == len(np.unique(plain)) - 1
    for frame in range(dishes.FRAMES):
        if frame != FRAME:
            pairs = np.unique(np.stack([labels[frame].ravel(), plain[frame].ravel()]), axis=1)
            assert pairs.shape[1] == len(np.unique(plain[frame]))
    frame = labels[FRAME]
    (a, b), (c, d) = ([frame[depth // 2, y, x] for y, x in pair] for pair in (SPLIT, MERGED))
    assert a != b
    assert c == d
    assert len(np.unique(frame)) == 4
    # The border lies half-way between the points of the split.
    cell = plain[FRAME] == plain[FRAME][depth // 2, 38, 62]
    rows_ = np.nonzero(cell)[1]
    assert np.array_equal(frame[cell], np.where(rows_ <= 40, a, b))


@pytest.mark.parametrize(("depth", "given"), [(1, False), (3, True)])
def test_blocks_are_no_part_of_the_result(tmp_path: Path, depth: int, given: bool) -> None:
    """The cell that is split lies across borders of blocks; of its output too."""
    dishes.write_sequence(tmp_path, depth)
    table = tmp_path / "t.csv"
    write_rows(table, rows(depth))
    plain = scenes.read_labels(run(tmp_path, tmp_path / "plain", None, depth, given))
    digests = []
    for slices, tiles in ((8, 9), (3, 1)):
        compute = {"block_slices": slices, "block_tiles": tiles}
        output = {"chunk": [3, 24, 24], "shard": [3, 48, 48]}
        paths = run(
            tmp_path, tmp_path / str(slices), table, depth, given, compute=compute, output=output
        )
        digests.append(scenes.result_digest(paths))
    assert digests[0] == digests[1]
    check(scenes.read_labels(paths), plain, depth)
    whole = run(tmp_path, tmp_path / "whole", table, depth, given, "link")
    assert np.array_equal(scenes.read_labels(whole), scenes.read_labels(paths))
    frame = read_lineage(whole.lineage).objects.frame
    assert np.bincount(frame).tolist() == [3, 3, 3, 3, 4, 4, 4, 4]


def test_they_hold_when_it_is_segmented_again(tmp_path: Path) -> None:
    dishes.write_sequence(tmp_path)
    table = tmp_path / "t.csv"
    write_rows(table, rows())
    before = scenes.read_labels(run(tmp_path, tmp_path / "r", table))
    other = {"foreground_threshold": 0.3, "distance_smoothing": 0.5}
    plain = scenes.read_labels(run(tmp_path, tmp_path / "plain", None, ais=other))
    again = scenes.read_labels(run(tmp_path, tmp_path / "r", table, ais=other))
    check(again, plain)
    assert not np.array_equal(again > 0, before > 0)


def test_links_of_corrected_objects(tmp_path: Path) -> None:
    """Rows of the same table that link what was split: both halves come from nowhere."""
    dishes.write_sequence(tmp_path)
    table = tmp_path / "t.csv"
    write_rows(table, rows())
    lineage = read_lineage(run(tmp_path, tmp_path / "r", table, given=True, last="link").lineage)
    objects = lineage.objects
    of_frame = {frame: objects.position[objects.frame == frame] for frame in (1, 2)}
    halves = of_frame[2][np.argsort(np.abs(of_frame[2] - [0, 20, 31]).sum(axis=1))][:2]
    whole = of_frame[1][np.argmin(np.abs(of_frame[1] - [0, 20, 30.5]).sum(axis=1))]
    links = [Row("link", Place(1, *whole), Place(2, *half)) for half in halves]
    write_rows(table, [*rows(), *links])
    again = read_lineage(run(tmp_path, tmp_path / "r", table, given=True, last="link").lineage)
    assert 2 in {int(frame) for frame in again.frames()[0]}
    mother = again.track[np.flatnonzero((objects.position == whole).all(axis=1))[0]]
    assert len(again.divisions()[int(mother)]) == 2


def digests(paths: scenes.SamplePaths) -> dict[str, str]:
    stages = GIVEN[: GIVEN.index("link") + 1]
    return {s: json.loads(paths.marker(s).read_text())["digest"] for s in stages}


def test_only_what_depends_on_a_row_runs_again(tmp_path: Path) -> None:
    dishes.write_sequence(tmp_path)
    table = tmp_path / "t.csv"
    write_rows(table, rows())
    before = digests(run(tmp_path, tmp_path / "r", table, given=True, last="link"))
    links = [Row("cut", Place(0, 0, 0, 0), Place(1, 0, 0, 0))]
    write_rows(table, [*links, *rows()])
    data = dishes.settings(tmp_path, tmp_path / "r", sample={"corrections": str(table)})
    config = validate(data)
    paths = run(tmp_path, tmp_path / "r", table, given=True, last="observe")
    assert digests(paths) == before
    assert json.loads(paths.marker("label").read_text())["resumed_blocks"] > 0
    with pytest.raises(VolsamError, match=r"Line 2 .* names an object in frame 0"):
        run(tmp_path, tmp_path / "r", table, given=True, last="link")
    known = fingerprints(config, "a", "regroup")
    write_rows(table, rows(frame=3))
    assert fingerprints(config, "a", "regroup") != known
    after = digests(run(tmp_path, tmp_path / "r", table, given=True, last="link"))
    changed = [stage for stage in after if after[stage] != before[stage]]
    assert changed == ["regroup", "label", "measure", "observe", "link"]
    # A table of links only is no matter of these stages.
    write_rows(table, links)
    plain = validate(dishes.settings(tmp_path, tmp_path / "r"))
    for stage in ("regroup", "label"):
        assert stage_config(config, "a", stage) == stage_config(plain, "a", stage)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Row("merge", Place(2, 0, 0, 0), Place(2, 0, 9.5, 8.5)), "Line 2 .* no object"),
        (Row("merge", Place(2, 0, 9.5, 8.5), Place(2, 4, 9.5, 8.5)), "Line 2 .* no object"),
        (Row("split", Place(9, 0, 9.5, 8.5), Place(9, 0, 9.5, 8.5)), "Line 2 .* no object"),
    ],
)
def test_points_outside_of_objects_are_refused(tmp_path: Path, row: Row, message: str) -> None:
    dishes.write_sequence(tmp_path)
    table = tmp_path / "t.csv"
    write_rows(table, [row])
    with pytest.raises(VolsamError, match=message):
        run(tmp_path, tmp_path / "r", table, given=True)
    paths = scenes.SamplePaths(str(tmp_path / "r"), "a")
    assert not paths.regrouped.exists()
    assert not paths.marker("regroup").exists()


def test_objects_of_a_volume(tmp_path: Path) -> None:
    """Without a time axis, all is in frame 0; points may lie in slices that were filled."""
    shape = (6, 40, 44)
    labels = np.zeros(shape, np.uint16)
    labels[:, 4:16, 4:36] = 1
    labels[:, 24:36, 4:36] = 2
    labels[3] = 0
    scenes.write_scene(tmp_path, labels, noise=0.0)
    sections: dict[str, Any] = {"stitch": {"max_gap": 1}}
    data = scenes.settings(tmp_path, tmp_path / "r", tile=16, halo=6, **sections)
    plain = scenes.read_labels(scenes.run_pipeline(data))
    assert len(np.unique(plain)) == 3
    assert plain[3].any()
    table = tmp_path / "t.csv"
    one, other = (Place.of(0, (3, 10, x), (3, 1, 1)) for x in (8, 32))
    write_rows(table, [Row("split", one, other)])
    data["samples"]["a"]["corrections"] = str(table)
    found = scenes.read_labels(scenes.run_pipeline(data, stages=FOUND))
    assert len(np.unique(found)) == 4
    assert np.array_equal(found > 0, plain > 0)


@pytest.mark.parametrize("given", [False, True])
def test_edits_of_corrected_labels(tmp_path: Path, given: bool) -> None:
    """Edit, run, edit the result, run: what the user drew is there in the end."""
    dishes.write_sequence(tmp_path)
    table = tmp_path / "t.csv"
    write_rows(table, rows())
    paths = run(tmp_path, tmp_path / "r", table, given=given)
    labels = scenes.read_labels(paths).astype(np.uint16)
    # One half is halved again, and the merge is undone, in one frame; another merge in another frame.
    half = (labels[2] == labels[2, 38, 62]) & (np.indices(dishes.SHAPE)[1] > 62)
    labels[2][half] = 1000
    labels[2][(labels[2] == labels[2, 58, 20]) & (np.indices(dishes.SHAPE)[0] > 40)] = 1001
    labels[5][np.isin(labels[5], np.unique(labels[5])[1:3])] = 1002
    tifffile.imwrite(tmp_path / "edited.tif", labels, photometric="minisblack")
    data = dishes.settings(tmp_path, tmp_path / "r", sample={"corrections": str(table)})
    if given:
        data["samples"]["a"]["segmentation"] = str(tmp_path / "labels.tif")
    job = Job(validate(data), "a")
    new, *rest = edited_objects(job, tmp_path / "edited.tif", read_rows(table))
    assert rest == [0, 1, None]
    write_rows(table, new)
    again = scenes.read_labels(run(tmp_path, tmp_path / "r", table, given=given))
    for frame in range(dishes.FRAMES):
        pairs, count = np.unique(
            np.stack([again[frame].ravel(), labels[frame].ravel()]), axis=1, return_counts=True
        )
        pairs = pairs[:, count > 12]
        assert pairs.shape[1] == len(np.unique(labels[frame])) == len(np.unique(again[frame])), (
            frame
        )


def test_an_edit_of_an_earlier_result_is_refused(tmp_path: Path) -> None:
    """A copy of before the corrections, and one of another segmentation."""
    dishes.write_sequence(tmp_path)
    table, edited = tmp_path / "t.csv", tmp_path / "edited.tif"
    write_rows(table, rows())
    plain = scenes.read_labels(run(tmp_path, tmp_path / "r", None)).astype(np.uint16)
    run(tmp_path, tmp_path / "r", table)
    job = Job(
        validate(dishes.settings(tmp_path, tmp_path / "r", sample={"corrections": str(table)})), "a"
    )
    plain[5][plain[5] == plain[5].max()] = 1000
    eroded = np.where(ndimage.minimum_filter(plain, (1, 3, 3)) == plain, plain, 0)
    for labels, message in ((plain, "numbers of before"), (eroded, "another outline")):
        tifffile.imwrite(edited, labels, photometric="minisblack")
        with pytest.raises(VolsamError, match=f"no edit of the present result .* {message}"):
            edited_objects(job, edited, read_rows(table))
