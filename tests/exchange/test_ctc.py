"""Cell Tracking Challenge folders: written, checked by others, read back."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tifffile
from families import FRAMES, family, lineages, painted
from hypothesis import given, settings
from hypothesis import strategies as st

from volsam.errors import VolsamError
from volsam.exchange import ctc
from volsam.exchange.ctc import open_ctc, read_ctc, seg_masks, write_ctc
from volsam.exchange.ctc_table import ctc_tracks
from volsam.track.lineage import Lineage, Objects


def test_names_of_masks(tmp_path: Path) -> None:
    (tmp_path / "SEG").mkdir()
    for name in (
        "man_seg007.tif",
        "man_seg_0012_003.tif",
        "MAN_SEG_008.tif",
        "man_seg1.tif",
        "t007.tif",
    ):
        (tmp_path / "SEG" / name).touch()
    found = [(mask.path.name, mask.frame, mask.slice) for mask in seg_masks(tmp_path)]
    assert found == [
        ("MAN_SEG_008.tif", "008", None),
        ("man_seg007.tif", "007", None),
        ("man_seg_0012_003.tif", "0012", 3),
    ]
    assert list(seg_masks(tmp_path / "SEG")) == []


def test_a_gap_splits_a_track() -> None:
    table, labels = ctc_tracks(family())
    assert table.tolist() == [
        [1, 0, 1, 0],
        [2, 2, 2, 1],
        [3, 2, 2, 1],
        [4, 2, 2, 0],
        [5, 4, 4, 3],
    ]
    assert labels.tolist() == [1, 1, 2, 3, 4, 5]


@settings(max_examples=12, deadline=None)
@given(lineages(), st.sampled_from([None, 2]), st.booleans())
def test_a_folder_reads_back_to_the_same_graph(
    lineage: Lineage, depth: int | None, truth: bool
) -> None:
    images = painted(lineage, depth)
    with TemporaryDirectory() as folder:
        place = Path(folder) / "ctc"
        write_ctc(place, lineage, images, FRAMES, truth=truth)
        assert sorted(Path(folder).iterdir()) == [place]
        found, labels = read_ctc(place)
        ids = {}
        for frame in range(FRAMES):
            was, now = images(frame), labels(frame)
            here = (was > 0) & (was < 2**50)
            assert np.array_equal(here, now > 0)
            ids |= dict(zip(was[here].tolist(), now[here].tolist(), strict=True))
    assert len(ids) == len(found.objects) == len(lineage.objects)
    expected = {(ids[a], ids[b]) for a, b in lineage.links().tolist()}
    assert {(a, b) for a, b in found.links().tolist()} == expected
    assert np.array_equal(ctc_tracks(found)[0][:, :3], ctc_tracks(lineage)[0][:, :3])


def test_positions_and_sizes_come_from_the_images(tmp_path: Path) -> None:
    write_ctc(tmp_path / "a", family(), painted(family(), 2), 5)
    objects = read_ctc(tmp_path / "a", (2.0, 0.5, 0.5))[0].objects
    assert objects.position[:4].tolist() == [
        [0, 0.25, 0.25],
        [0, 0.25, 0.25],
        [0, 0.25, 0.25],
        [2, 0.25, 1.75],
    ]
    assert objects.size.tolist() == [2.0] * 6


def test_the_official_checks_pass(tmp_path: Path) -> None:
    traccuracy = pytest.importorskip("traccuracy.loaders")
    validate = pytest.importorskip("ctc_metrics.scripts.validate")
    write_ctc(tmp_path / "01_RES", family(), painted(family()), 5)
    assert validate.validate_sequence(str(tmp_path / "01_RES"))["Valid"] == 1
    graph = traccuracy.load_ctc_data(str(tmp_path / "01_RES"), run_checks=True).graph
    assert (graph.number_of_nodes(), graph.number_of_edges()) == (6, 4)


def test_names_and_images_of_a_long_sequence(tmp_path: Path) -> None:
    empty = Lineage.of(family().objects.take(np.zeros(6, bool)), [])
    write_ctc(tmp_path / "a", empty, lambda frame: np.zeros((2, 2), np.uint64), 1001)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert (len(names), names[0], names[-1]) == (1002, "mask0000.tif", "res_track.txt")
    assert open_ctc(tmp_path / "a").frames == range(1001)


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> Lineage:
    monkeypatch.setattr(ctc, "LIMIT", 3)
    return family()


def test_too_many_tracks_are_refused_or_written_wide(tmp_path: Path, many: Lineage) -> None:
    with pytest.raises(VolsamError, match="cannot hold 5 tracks, for its 16-bit images number 3"):
        write_ctc(tmp_path / "a", many, painted(many), 5)
    assert not (tmp_path / "a").exists()
    write_ctc(tmp_path / "a", many, painted(many), 5, wide=True)
    assert tifffile.imread(tmp_path / "a" / "mask000.tif").dtype == np.uint32
    assert len(read_ctc(tmp_path / "a")[0].objects) == 6


def test_silver_masks_may_miss_objects(tmp_path: Path) -> None:
    write_ctc(tmp_path / "01_GT" / "TRA", family(), painted(family()), 5, truth=True)
    silver = tmp_path / "01_ST" / "SEG"
    silver.mkdir(parents=True)
    for frame, path in enumerate(sorted((tmp_path / "01_GT" / "TRA").glob("*.tif"))):
        labels = tifffile.imread(path)
        labels[labels == 1] *= frame != 1  # track 1 is not seen in frame 1
        tifffile.imwrite(silver / f"man_seg{frame:03}.tif", labels)
    for folder in (silver, tmp_path / "01_ST"):
        lineage, _ = read_ctc(folder)
        assert lineage.links().tolist() == [[1, 2], [1, 3], [3, 5]]
    assert len(read_ctc(tmp_path / "01_GT")[0].objects) == 6


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("1 0 1\n", "Line 1 .* not four whole numbers"),
        ("1 0 1.5 0\n", "Line 1 .* not four whole numbers"),
        ("1 0 -1 0\n", "Line 1 .* not four whole numbers"),
        ("0 0 1 0\n", "Track 0 .* background"),
        ("1 0 1 0\n1 2 3 0\n", "Track 1 .* twice"),
        ("1 1 0 0\n", "Track 1 .* ends before"),
        ("1 0 1 7\n", "Track 1 .* a parent that is not there"),
        ("1 0 1 2\n2 2 3 1\n", "Track 1 .* begins before its parent 2"),
        ("1 0 1 1\n", "Track 1 .* begins before its parent 1"),
        ("1 0 1 0\n2 0 0 0\n", "track 2 in the table, but no such label in the image of frame 0"),
        ("1 0 0 0\n", "label 1 in the image of frame 1, but no such track"),
    ],
)
def test_faulty_tables_are_named(tmp_path: Path, table: str, said: str) -> None:
    for frame in range(2):
        tifffile.imwrite(tmp_path / f"mask{frame:03}.tif", np.ones((3, 3), np.uint16))
    (tmp_path / "res_track.txt").write_text(table)
    with pytest.raises(VolsamError, match=said):
        read_ctc(tmp_path)


def test_missing_or_strange_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(VolsamError, match="has no images"):
        open_ctc(tmp_path)
    for frame in (0, 2):
        tifffile.imwrite(tmp_path / f"mask{frame:03}.tif", np.full((3, 3), 1.5, np.float32))
    with pytest.raises(VolsamError, match="no image of frame 1"):
        open_ctc(tmp_path)
    (tmp_path / "mask000.tif").rename(tmp_path / "mask001.tif")
    with pytest.raises(VolsamError, match=r"res_track.txt cannot be read"):
        open_ctc(tmp_path)
    (tmp_path / "res_track.txt").write_text("1\t1\t2\t0\n")
    with pytest.raises(VolsamError, match=r"mask001.tif holds no labels but float32"):
        read_ctc(tmp_path)


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    lineage, images = family(), painted(family())
    with pytest.raises(VolsamError, match="has objects in frame 4 of 4"):
        write_ctc(tmp_path / "a", lineage, images, 4)
    with pytest.raises(VolsamError, match=r"track 2 .* frame 2"):
        write_ctc(tmp_path / "a", lineage, lambda frame: images(min(frame, 1)), 5)
    assert not list(tmp_path.iterdir())
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text("")
    with pytest.raises(VolsamError, match="holds other things"):
        write_ctc(tmp_path / "a", lineage, images, 5)
    (tmp_path / "a" / "mine.txt").unlink()
    for _ in range(2):
        write_ctc(tmp_path / "a", lineage, images, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_ids_are_rows_and_bytes_a_function_of_the_input(tmp_path: Path) -> None:
    write_ctc(tmp_path / "a", family(), painted(family()), 5)
    write_ctc(tmp_path / "b", family(), painted(family()), 5)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert isinstance(read_ctc(tmp_path / "a")[0].objects, Objects)


@pytest.mark.parametrize(
    ("folder", "objects", "divisions"),
    [("ctc_fluo_hela/01_GT", 2989, 52), ("ctc_dic_hela/01_ST", 1054, 8)],
)
def test_real_truth_reads(shared_data: Path, folder: str, objects: int, divisions: int) -> None:
    lineage, _ = read_ctc(shared_data / folder)
    assert (len(lineage.objects), len(lineage.divisions())) == (objects, divisions)
