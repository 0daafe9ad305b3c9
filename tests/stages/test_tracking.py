"""From a sequence to lineages, through all stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dishes
import numpy as np
import pytest
import scenes
import tifffile
import zarr
from ome_zarr_models import open_ome_zarr

from volsam.blocks.stage import Job
from volsam.cli.view import layers
from volsam.config import load, validate
from volsam.dependence import stage_config
from volsam.errors import VolsamError
from volsam.exchange.ctc import read_ctc
from volsam.exchange.geff import read_geff
from volsam.exchange.trackmate import read_trackmate
from volsam.exchange.tracks_table import read_tracks_csv
from volsam.stages import link as link_stage
from volsam.stages import observe as observe_stage
from volsam.track.corrected_links import corrections_between, read_corrections, write_corrections
from volsam.track.lineage import Lineage
from volsam.track.tables import read_lineage
from volsam.volume.info import TimeAxis
from volsam.volume.labels import label_path
from volsam.volume.source import ALL, open_volume


def check_tracks(labels: np.ndarray, folder: Path) -> None:
    """Every true track is one track of the result, and the other way round."""
    truth = tifffile.imread(folder / "truth.tif")
    both = (labels > 0) & (truth > 0)
    pairs, counts = np.unique(np.stack([truth[both], labels[both]]), axis=1, return_counts=True)
    pairs = pairs[:, counts > 10]  # where daughters touch, a voxel may fall to the other
    assert pairs.shape[1] == len(set(pairs[0])) == len(set(pairs[1])) == 5, (pairs, counts)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("given", [False, True])
def test_from_a_sequence_to_lineages(tmp_path: Path, depth: int, given: bool) -> None:
    dishes.write_sequence(tmp_path, depth)
    sample = {"segmentation": str(tmp_path / "labels.tif")} if given else {}
    data = dishes.settings(tmp_path, tmp_path / "r", depth, sample=sample)
    paths = scenes.run_pipeline(data, stages=dishes.GIVEN if given else dishes.STAGES)
    lineage = read_lineage(paths.lineage)
    assert len(lineage) == 5
    ((mother, daughters),) = lineage.divisions().items()
    assert len(daughters) == 2
    assert lineage.frames()[1][mother - 1] == 3
    tracks = zarr.open_array(paths.store / "labels" / "tracks" / "0", mode="r")
    assert tracks.shape == zarr.open_array(paths.store / "labels" / "objects" / "0").shape
    check_tracks(np.asarray(tracks), tmp_path)
    listed = json.loads((paths.store / "labels" / "zarr.json").read_text())["attributes"]["ome"]
    assert listed["labels"] == ["objects", "tracks"]

    def family(found: Lineage) -> list[Any]:
        first, last = found.frames()
        return sorted(zip(first, last, found.parent > 0, strict=True))

    for other in (
        read_geff(paths.geff),
        read_trackmate(paths.trackmate),
        read_ctc(paths.ctc)[0],
    ):
        assert family(other) == family(lineage)
        assert len(other.links()) == len(lineage.links())
    shown = layers(paths.folder)
    assert [kind for *_, kind in shown][-2:] == ["labels", "tracks"]
    assert len(shown[-1][0]) == len(lineage.objects)
    data_, graph = read_tracks_csv(paths.tracks_csv)
    assert len(data_) == len(lineage.objects)
    assert graph == {int(daughter): [mother] for daughter in daughters}


def test_runs_windows_and_blocks_are_no_part_of_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dishes.write_sequence(tmp_path)
    digests = []
    for run, slices, tiles in ((8, 4, 9), (1, 1, 1), (3, 5, 2)):
        monkeypatch.setattr(observe_stage, "RUN", run)
        monkeypatch.setattr(link_stage, "RUN", 5 * run)
        monkeypatch.setattr(link_stage, "SHARE", 2 * run)
        compute = {"block_slices": slices, "block_tiles": tiles}
        paths = scenes.run_pipeline(
            dishes.settings(tmp_path, tmp_path / str(run), compute=compute),
            stages=dishes.STAGES,
            order=lambda blocks: blocks[::-1],
        )
        files = {
            path.name: path.read_bytes()
            for path in (paths.lineage, paths.tracks_csv, *sorted(paths.ctc.iterdir()))
        }
        digests.append((scenes.result_digest(paths), files))
    assert digests[0] == digests[1] == digests[2]


def test_corrections_hold_when_it_is_linked_again(tmp_path: Path) -> None:
    dishes.write_sequence(tmp_path)
    data = dishes.settings(tmp_path, tmp_path / "r")
    paths = scenes.run_pipeline(data, stages=dishes.STAGES)
    lineage = read_lineage(paths.lineage)
    (daughters,) = lineage.divisions().values()
    cut = np.array(
        [
            link
            for link in lineage.links()
            if lineage.track[lineage.objects.rows(link)[1]] == daughters[1]
        ][:1]
    )
    kept = [link.tolist() for link in lineage.links() if link.tolist() != cut[0].tolist()]
    edited = Lineage.of(lineage.objects, kept)
    added, removed = corrections_between(lineage, edited)
    assert not len(added)
    assert removed.tolist() == cut.tolist()
    table = tmp_path / "corrections.csv"
    write_corrections(table, lineage.objects, added, removed)
    must, never = read_corrections(table, lineage.objects, 1.0)
    assert not len(must)
    assert never.tolist() == cut.tolist()
    data["samples"]["a"]["corrections"] = str(table)
    again = read_lineage(scenes.run_pipeline(data, stages=dishes.STAGES).lineage)
    assert not again.divisions()
    assert cut.tolist()[0] not in again.links().tolist()
    table.write_text(table.read_text().replace("cut,3", "cut,7"))
    with pytest.raises(VolsamError, match="names an object in frame 7"):
        scenes.run_pipeline(data, stages=dishes.STAGES)


def test_a_sequence_without_objects(tmp_path: Path) -> None:
    dishes.write_sequence(tmp_path)
    labels = np.zeros((dishes.FRAMES, *dishes.SHAPE), np.uint16)
    tifffile.imwrite(tmp_path / "labels.tif", labels, photometric="minisblack")
    sample = {"segmentation": str(tmp_path / "labels.tif")}
    paths = scenes.run_pipeline(
        dishes.settings(tmp_path, tmp_path / "r", sample=sample), stages=dishes.GIVEN
    )
    assert len(read_lineage(paths.lineage)) == 0


def test_scores_against_a_tracked_truth(tmp_path: Path) -> None:
    pytest.importorskip("ctc_metrics")
    dishes.write_sequence(tmp_path)
    sample = {"truth_tracks": str(dishes.write_truth(tmp_path))}
    data = dishes.settings(tmp_path, tmp_path / "r", sample=sample)
    paths = scenes.run_pipeline(data, stages=(*dishes.STAGES, "compare", "report"))
    scores = json.loads(paths.tracking.read_text())
    assert scores["TRA"] == scores["LNK"] == scores["division_f1"] == 1.0
    page = paths.report.read_text()
    assert "Lineages" in page
    assert "Family trees" in page


def test_formats_that_are_not_asked_for_do_not_stay(tmp_path: Path) -> None:
    dishes.write_sequence(tmp_path)
    sample = {"segmentation": str(tmp_path / "labels.tif")}
    data = dishes.settings(tmp_path, tmp_path / "r", sample=sample)
    paths = scenes.run_pipeline(data, stages=dishes.GIVEN)
    assert paths.trackmate.is_file()
    data["export"] = {"formats": ["csv"]}
    scenes.run_pipeline(data, stages=dishes.GIVEN)
    assert paths.tracks_csv.is_file()
    assert not any(path.exists() for path in (paths.trackmate, paths.ctc, paths.geff))


@pytest.mark.parametrize("stage", dishes.GIVEN)
def test_every_stage_takes_the_settings_it_is_handed(tmp_path: Path, stage: str) -> None:
    """Limits that hold between keys must hold in the part that a stage sees."""
    data = dishes.settings(tmp_path, tmp_path / "r")
    config = validate({**data, "track": {"max_gap": 6, "overlap": 8, "window": 9}})
    assert load(stage_config(config, "a", stage)).track.max_gap in (2, 6)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_another_interval_of_frames_reruns_the_export_alone(tmp_path: Path, version: str) -> None:
    dishes.write_sequence(tmp_path)
    sample = {"segmentation": str(tmp_path / "labels.tif")}
    data = dishes.settings(tmp_path, tmp_path / "r", sample=sample, output={"ome_zarr": version})

    def run(interval: float | None) -> tuple[dict[str, str], list[TimeAxis], float | None]:
        """What each stage depends on, the time axes of image and labels, and that of the export."""
        data["samples"]["a"]["frame_interval"] = interval
        paths = scenes.run_pipeline(data, stages=dishes.GIVEN)
        config = validate(data)
        text = {name: stage_config(config, "a", name) for name in (*dishes.GIVEN, "report")}
        digests = {name: Job(config, "a").marker(name)["digest"] for name in dishes.GIVEN}
        stores = [paths.store, *(label_path(paths.store, n) for n in ("objects", "tracks"))]
        axes = [open_volume(store, timepoint=ALL).info.time for store in stores]
        assert all(open_ome_zarr(store, version=version) for store in stores)
        geff: Any = zarr.open_group(paths.geff, mode="r").attrs["geff"]
        return {k: text[k] + digests.get(k, "") for k in text}, axes, geff["axes"][0].get("scale")

    before, axes, scale = run(60.0)
    assert (axes, scale) == ([TimeAxis(60.0, "second")] * 3, 60.0)
    after, axes, scale = run(90.0)
    assert (axes, scale) == ([TimeAxis(90.0, "second")] * 3, 90.0)
    assert [name for name in before if before[name] != after[name]] == ["export"]
    assert run(None)[1:] == ([TimeAxis()] * 3, None)
