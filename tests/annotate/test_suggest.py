"""Which crops are suggested: scores, choice and seams alone, then a whole small run and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scenes
import tifffile
import zarr
from numpy.typing import NDArray
from typer.testing import CliRunner

from volsam.annotate.candidates import Grid, describe, entropy
from volsam.annotate.crops import read_image, read_labels, read_provenance
from volsam.annotate.pictures import Settings
from volsam.annotate.seams import Seams, fragment_disagreement
from volsam.annotate.sources import read
from volsam.annotate.store import AnnotationStore
from volsam.annotate.suggest import Suggestion, _thin, choose, score_crops, suggest, to_one_scale
from volsam.blocks.stage import Job
from volsam.cli.annotate import app
from volsam.config import Region, validate
from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.stitch.costs import StitchParameters
from volsam.stitch.graph import Edges, Fragments
from volsam.stitch.overlaps import OVERLAP_DTYPE

SHAPE = (4, 96, 96)


def test_scores_are_means_of_both_measures() -> None:
    unsure, seams = np.array([0.1, 0.9, 0.5]), np.array([0.3, 0.2, 0.1])
    np.testing.assert_allclose(score_crops(unsure, seams), [5 / 9, 5 / 6, 4 / 9])
    np.testing.assert_allclose(score_crops(np.full(3, np.nan), seams), [1, 2 / 3, 1 / 3])
    np.testing.assert_allclose(score_crops(unsure[:1], seams[:1]), [1])
    np.testing.assert_allclose(score_crops(np.full(2, np.nan), np.full(2, np.nan)), [0, 0])
    assert score_crops(unsure[:0], seams[:0]).size == 0


def test_choice_weighs_score_against_difference() -> None:
    scores = np.array([1.0, 0.9, 0.8, 0.0])
    places = np.array([[0.0], [0.1], [0.2], [9.0]])
    assert choose(scores, places, 3, balance=0) == [0, 1, 2]
    assert choose(np.ones(4), places, 2, balance=1) == [1, 3]
    assert choose(scores, places, 1, balance=1) == [1], "it stands for its neighbours best"
    assert choose(scores, places, 9) == choose(scores, places, 4)
    assert sorted(choose(scores, places, 9)) == [0, 1, 2, 3]
    same = np.zeros((4, 2))
    assert choose(np.zeros(4), same, 2) == [0, 1]
    assert choose(np.zeros(0), np.zeros((0, 2)), 2) == []
    with pytest.raises(VolsamError, match="from 0 to 1"):
        choose(scores, places, 2, balance=2)


def test_an_outlier_stands_for_itself_alone() -> None:
    places = np.r_[np.linspace(0, 1, 9), 3.0][:, None]
    scores = np.r_[np.full(9, 0.8), 1.0]
    assert choose(scores, places, 1, balance=0) == [9]
    assert choose(scores, places, 1)[0] in (4, 5), "the middle one stands for nine"
    many = np.r_[np.ones(9), 30].astype(int)
    assert choose(scores, places, 1, alike=many) == [9]


def test_of_many_crops_the_best_are_looked_at() -> None:
    scores = np.random.default_rng(0).random(9000)
    kept = _thin(scores)
    assert len(kept) <= 2000
    assert np.isin(np.argsort(-scores)[:1000], kept).all()
    assert np.diff(kept).max() < 20


def test_groups_of_descriptors_weigh_the_same() -> None:
    rng = np.random.default_rng(0)
    points = to_one_scale(rng.normal(5, 100, (50, 6)), rng.normal(0, 0.01, (50, 3)))
    assert points.shape == (50, 9)
    np.testing.assert_allclose((points[:, :6] ** 2).mean(0).sum(), 1)
    np.testing.assert_allclose((points[:, 6:] ** 2).mean(0).sum(), 1)
    assert not to_one_scale(np.ones((3, 2))).any()


def test_entropy_in_bits() -> None:
    np.testing.assert_allclose(entropy(np.float32([0, 0.5, 1])), [0, 1, 0], atol=1e-4)


def test_edges_that_speak_against_the_partition() -> None:
    """Five fragments: a clear pair, a pair at the threshold, and one that was dropped."""
    rows = np.zeros(3, OVERLAP_DTYPE)
    rows["u"], rows["v"] = [0, 1, 2], [1, 2, 3]
    rows["size_u"] = rows["size_v"] = 100
    # Nearly the same; similarity 0.45, the threshold between slices; nearly nothing in common.
    rows["overlap"], rows["kind"] = [99, 53, 2], 1
    fragments = Fragments(
        np.array([[0, 1, 2, 3, 3], [0] * 5, [0] * 5], np.int32), np.full(5, 100, np.uint32), 4
    )
    edges = Edges.from_rows(rows, 5)
    found = fragment_disagreement(
        fragments, edges, np.array([1, 1, 2, 3, 0], np.uint64), StitchParameters()
    )
    assert found[0] < 0.05
    assert found[1] == found[2] == pytest.approx(0.5, abs=0.1)
    assert found[3] < 0.1
    assert found[4] == 1
    # The same edges, but the clear pair was separated.
    apart = fragment_disagreement(
        fragments, edges, np.array([1, 2, 2, 3, 4], np.uint64), StitchParameters()
    )
    assert apart[0] > 0.95


def test_a_grid_covers_its_region_and_shares_out_tiles() -> None:
    grid = Grid(Box((2, 0, 8), (4, 50, 88)), 32)
    assert grid.shape == (2, 2, 3)
    boxes = [grid.box(i) for i in range(12)]
    assert boxes[0] == Box((2, 0, 8), (3, 32, 40))
    assert boxes[-1] == Box((3, 18, 56), (4, 50, 88))
    covered = np.zeros((4, 50, 88), bool)
    for box in boxes:
        assert box.shape == (1, 32, 32)
        covered[box.slices] = True
    assert covered[2:, :, 8:].all()
    free = grid.free([Box((2, 0, 8), (3, 32, 40)), Box((0, 0, 0), (2, 50, 88))])
    assert not free[0]
    assert free[1:3].all()
    assert free[6:].all()
    small = Grid(Box((0, 0, 0), (1, 20, 24)), 256)
    assert small.shape == (1, 1, 1)
    assert small.box(0) == small.region


def test_a_description_tells_crops_apart() -> None:
    image = np.zeros((40, 40), np.float32)
    labels = np.zeros((40, 40), np.uint32)
    assert not any(describe(image, labels))
    labels[:10, :10], labels[20:, 20:] = 1, 7
    assert describe(image + 0.5, labels)[:4] == [0.5, 0, 0.5, 500 / 1600]
    assert describe(image, labels.clip(0, 1))[5] > describe(image, labels)[5] > 0


# --- a whole run ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A finished run whose predictions are sure on the left and unsure in the lower right corner."""
    folder = tmp_path_factory.mktemp("scene")
    truth = scenes.cells(SHAPE, 40, (6, 9), 3)
    scenes.write_scene(folder, truth, noise=0.01)
    stored = zarr.open_array(folder / "predictions.zarr", mode="r+")
    maps = np.array(stored)
    corner = (0, slice(None), slice(48, None), slice(48, None))
    maps[corner] = 0.5 + 0.4 * (maps[corner] - 0.5)
    stored[...] = maps
    data = scenes.settings(folder, folder / "results", tile=32, halo=8)
    scenes.run_pipeline(data)
    return {"data": data, "folder": folder, "truth": truth}


def run_suggest(scene: dict[str, Any], tmp_path: Path, **options: Any) -> list[Suggestion]:
    job = Job(validate(scene["data"]), scenes.SAMPLE)
    places = (tmp_path / "to-correct", tmp_path / "annotations")
    return suggest(job, *places, **{"size": 48, **options})


def image_of(scene: dict[str, Any]) -> NDArray[Any]:
    image: NDArray[Any] = tifffile.imread(scene["folder"] / "image.tif")
    return image


def test_the_unsure_corner_comes_first(scene: dict[str, Any], tmp_path: Path) -> None:
    found = run_suggest(scene, tmp_path, count=3, balance=0.0)
    assert len({one.box for one in found}) == 3
    assert all(one.box.start[1:] == (48, 48) for one in found)
    assert found[0].uncertainty > 0.5
    assert {p.name for p in (tmp_path / "to-correct").iterdir()} == {
        f"a-{n}.ome.zarr" for n in (1, 2, 3)
    }
    again = run_suggest(scene, tmp_path / "again", count=3, balance=0.0)
    assert [one.box for one in again] == [one.box for one in found]
    diverse = run_suggest(scene, tmp_path / "diverse", count=3, balance=0.9)
    assert len({one.box.start[1:] for one in diverse}) > 1


def test_a_suggestion_is_the_run_at_its_place(scene: dict[str, Any], tmp_path: Path) -> None:
    job = Job(validate(scene["data"]), scenes.SAMPLE)
    (one,) = run_suggest(scene, tmp_path, count=1)
    np.testing.assert_array_equal(read_image(one.path), image_of(scene)[one.box.slices])
    np.testing.assert_array_equal(
        read_labels(one.path, "objects"), scenes.read_labels(job.paths)[one.box.slices]
    )
    p = read_provenance(one.path)
    assert p.source == str(scene["folder"] / "image.tif")
    assert p.region == one.box
    # Stored predictions need no intensities; a model that is trained on the crop will.
    assert p.limits == tuple(np.percentile(image_of(scene), (1, 99.8)))
    assert p.voxel_size == (3, 1, 1)
    from napari_ome_zarr import napari_get_reader

    kinds = [layer[2] for layer in napari_get_reader(str(one.path))(str(one.path))]
    assert sorted(kinds) == ["image", "labels"]


def test_without_the_network_only_seams_count(
    scene: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run_suggest(scene, tmp_path, count=2, network=False)
    assert all(np.isnan(one.uncertainty) for one in found)
    stored = scene["folder"] / "predictions.zarr"
    away = stored.with_name("away.zarr")
    stored.rename(away)
    try:
        fallen = run_suggest(scene, tmp_path / "b", count=2)
    finally:
        away.rename(stored)
    assert "by their seams alone" in capsys.readouterr().err
    assert [one.box for one in fallen] == [one.box for one in found]


def test_what_is_done_is_not_suggested_again(scene: dict[str, Any], tmp_path: Path) -> None:
    """All crops of a slice-by-slice grid (4 x 2 x 2), some annotated, some waiting."""
    store = AnnotationStore(tmp_path / "annotations")
    first = run_suggest(scene, tmp_path, count=3)
    for one in first:
        array = zarr.open_array(one.path / "labels" / "objects" / "0", mode="r+")
        array[...] = scene["truth"][one.box.slices]
        (crop,) = read(one.path, Settings())
        store.add(crop.image, crop.labels, crop.ignore, crop.provenance)
        one.path.rename(one.path.with_suffix(".done"))
    second = run_suggest(scene, tmp_path, count=30)
    assert len(second) == 13
    assert not {one.box for one in first} & {one.box for one in second}
    with pytest.raises(VolsamError, match=r"All of .* is annotated or suggested"):
        run_suggest(scene, tmp_path)


def test_results_corrected_in_place(scene: dict[str, Any], tmp_path: Path) -> None:
    job = Job(validate(scene["data"]), scenes.SAMPLE)
    region = Region(z=[1, 2], y=[0, 40], x=[8, 48])
    for path in (job.paths.folder, job.paths.store):
        (crop,) = read(path, Settings(region=region))
        np.testing.assert_array_equal(crop.labels, scenes.read_labels(job.paths)[1:2, :40, 8:48])
        np.testing.assert_array_equal(crop.image, image_of(scene)[1:2, :40, 8:48])
        assert crop.provenance.source == str(scene["folder"] / "image.tif")
        assert crop.provenance.limits is not None
        with pytest.raises(VolsamError, match=r"are a prediction; say which part .* --region\."):
            list(read(path, Settings()))
    # A layer of the whole volume, saved elsewhere.
    np.save(tmp_path / "layer.npy", scene["truth"])
    (crop,) = read(tmp_path / "layer.npy", Settings(image=job.paths.folder, region=region))
    np.testing.assert_array_equal(crop.labels, scene["truth"][1:2, :40, 8:48])


def test_seams_by_table_and_by_voxel_agree(scene: dict[str, Any]) -> None:
    seams = Seams.of(Job(validate(scene["data"]), scenes.SAMPLE))
    wrong, painted, count = seams.by_tile()
    assert painted.sum() == seams.fragments.size.sum()
    assert count.sum() == np.count_nonzero(seams.fragments.size)
    tile = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    z, y, x = (int(n) * size for n, size in zip(tile, (1, 32, 32), strict=True))
    box = Box((z, y, x), (z + 1, y + 32, x + 32))
    assert seams.at(box) == pytest.approx(wrong[tile] / box.size, rel=1e-4)


def test_unfinished_runs_and_foolish_numbers_are_refused(
    scene: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(VolsamError, match="at least 16"):
        run_suggest(scene, tmp_path, size=4)
    data = {**scene["data"], "results": str(tmp_path / "none")}
    with pytest.raises(VolsamError, match="no finished labels"):
        run_suggest({**scene, "data": data}, tmp_path)
    assert not (tmp_path / "to-correct").exists()


def test_the_command_says_how_to_go_on(scene: dict[str, Any], tmp_path: Path) -> None:
    out, store = tmp_path / "to-correct", tmp_path / "annotations"
    options = ["--sample", scenes.SAMPLE, "--size", "48", "--out", str(out), "--store", str(store)]
    config = ["--config", json.dumps(scene["data"])]
    result = CliRunner().invoke(app, ["suggest", *config, *options, "--count", "2"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == [
        str(out / f"a-{n}.ome.zarr") for n in (1, 2)
    ]
    (add,) = (line for line in lines if line.startswith("Add:"))
    tifffile.imwrite(
        tmp_path / "corrected.tif", read_labels(out / "a-1.ome.zarr", "objects").astype(np.uint32)
    )
    command = add.split("annotate ")[1].replace("corrected.tif", str(tmp_path / "corrected.tif"))
    result = CliRunner().invoke(app, [*command.split(), "--store", str(store)])
    assert result.exit_code == 0, result.output
    (added,) = AnnotationStore(store)
    assert added.provenance.region == read_provenance(out / "a-1.ome.zarr").region
    assert added.provenance.complete


def test_chosen_crops_share_no_voxel() -> None:
    clash = np.eye(4, dtype=bool)
    clash[0, 1] = clash[1, 0] = True
    scores = np.array([1.0, 0.9, 0.2, 0.1])
    assert choose(scores, np.zeros((4, 1)), 4, 0.0, clash) == [0, 2, 3]
