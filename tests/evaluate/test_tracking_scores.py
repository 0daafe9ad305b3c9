"""Scores of tracking: the official reference case, and errors whose price is known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from families import FRAMES, family, lineages, painted
from hypothesis import given, settings
from hypothesis import strategies as st

from volsam.errors import VolsamError
from volsam.evaluate.chota import chota
from volsam.evaluate.tracking import tracking_scores
from volsam.exchange.ctc import CtcSequence, write_ctc
from volsam.exchange.ctc_table import ctc_tracks
from volsam.track.lineage import Lineage

package = pytest.importorskip("ctc_metrics")


def sequence(lineage: Lineage, frames: int = 5) -> CtcSequence:
    return CtcSequence.of(lineage, painted(family()), frames)


def test_the_official_reference(shared_data: Path) -> None:
    folder = shared_data / "ctc_eval_reference"
    scores = tracking_scores(folder / "03_GT", folder / "03_RES")
    assert scores["TRA"] == pytest.approx(0.622980, abs=1e-6)  # the official program's TRA_log.txt
    counts = ("splits", "missed_objects", "false_objects", "false_edges", "missed_edges")
    assert [scores[name] for name in counts] == [5, 5, 3, 1, 16]
    assert scores["wrong_edges"] == 2
    assert scores["DET"] == pytest.approx(1 - (5 * 5 + 10 * 5 + 3) / 250)
    assert scores["SEG"] is None


def test_the_truth_is_perfect(tmp_path: Path) -> None:
    folder = tmp_path / "01_GT"
    write_ctc(folder / "TRA", family(), painted(family(), 2), 5, truth=True)
    (folder / "SEG").mkdir()
    labels = tifffile.imread(folder / "TRA" / "man_track002.tif")
    tifffile.imwrite(folder / "SEG" / "man_seg_002_001.tif", labels[1])
    tifffile.imwrite(folder / "SEG" / "man_seg002.tif", labels)
    write_ctc(tmp_path / "01_RES", family(), painted(family(), 2), 5)
    scores = tracking_scores(folder, tmp_path / "01_RES")
    names = ("TRA", "DET", "LNK", "SEG", "CHOTA", "division_f1", "division_recall")
    assert [scores[name] for name in names] == [1] * 7
    assert scores["true_divisions"] == scores["divisions"] == 1


def test_errors_have_their_price() -> None:
    objects = family().objects
    # Object 5 is missed, and so is the link that makes the division.
    result = Lineage.of(objects.take(objects.id != 5), [[1, 2], [2, 3], [4, 6]])
    scores = tracking_scores(sequence(family()), sequence(result))
    assert scores["DET"] == pytest.approx(1 - 10 / 60)
    # One link lacks, and one is no longer of mother and daughter.
    assert scores["LNK"] == pytest.approx(1 - (1.5 + 1) / (1.5 * 4))
    assert scores["TRA"] == pytest.approx(1 - (10 + 1.5 + 1) / (60 + 6))
    assert (scores["missed_objects"], scores["missed_edges"], scores["wrong_edges"]) == (1, 1, 1)
    assert scores["division_f1"] == 0


def test_a_late_division_counts_with_tolerance() -> None:
    frames = [0, 1, 2, 2, 3, 3]
    objects = family().objects
    objects = type(objects).sort(objects.id, frames, objects.position, objects.size)
    truth = Lineage.of(objects, [[1, 2], [2, 3], [2, 4], [3, 5], [4, 6]])
    late = Lineage.of(objects, [[1, 2], [2, 3], [3, 5], [3, 6]])
    pair = [CtcSequence.of(each, painted(truth), 4) for each in (truth, late)]
    assert tracking_scores(*pair)["division_f1"] == 0
    assert tracking_scores(*pair, tolerance=1)["division_f1"] == 1


def test_seg_is_the_mean_iou_of_objects_covered_by_more_than_half() -> None:
    result = sequence(family())
    truth = result.read(2).copy()
    truth[0:2, 3:6] = 3  # IoU 4/6
    truth[20, 20] = 9  # found by nothing
    scores = tracking_scores(sequence(family()), result, masks=[(2, None, truth)])
    assert scores["SEG"] == pytest.approx((1 + 4 / 6 + 1 + 0) / 4)


def test_nothing_found() -> None:
    none = Lineage.of(family().objects.take(np.zeros(6, bool)), [])
    scores = tracking_scores(sequence(family()), sequence(none))
    assert [scores[name] for name in ("TRA", "DET", "LNK", "CHOTA")] == [0, 0, 0, 0]
    assert (scores["missed_objects"], scores["missed_edges"]) == (6, 4)
    with pytest.raises(VolsamError, match="no objects"):
        tracking_scores(sequence(none), sequence(family()))


def test_lone_objects_have_no_links_to_score() -> None:
    lone = Lineage.of(family().objects, [])
    scores = tracking_scores(sequence(lone), sequence(family()))
    assert scores["LNK"] is None
    assert scores["TRA"] == pytest.approx(1 - 4 / 60)


def test_frames_and_shapes_must_be_those_of_the_truth() -> None:
    truth = sequence(family())
    with pytest.raises(VolsamError, match=r"frames 0 to 5, but .* 0 to 4"):
        tracking_scores(truth, sequence(family(), 6))
    other = CtcSequence.of(family(), painted(family(), 2), 5)
    with pytest.raises(VolsamError, match="has shape"):
        tracking_scores(truth, other)
    first = Lineage.of(family().objects.take(np.arange(6) < 1), [])
    with pytest.raises(VolsamError, match="one frame only"):
        tracking_scores(sequence(first, 1), sequence(first, 1))
    with pytest.raises(VolsamError, match="no frame 9"):
        tracking_scores(truth, truth, masks=[(9, None, np.zeros((40, 40), int))])


@settings(max_examples=30, deadline=None)
@given(lineages(), st.data())
def test_chota_is_that_of_the_package(truth: Lineage, data: st.DataObject) -> None:
    from ctc_metrics.metrics import chota as theirs
    from ctc_metrics.utils.representations import merge_tracks

    n, links = len(truth.objects), truth.links()
    if n < 2:
        return
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    kept[0] = True
    objects = truth.objects.take(kept)
    links = links[np.isin(links, objects.id).all(axis=1)]
    links = links[data.draw(st.integers(0, 3)) :]
    result = Lineage.of(objects, links)
    tables, labels = [], []
    for lineage in (truth, result):
        table, label = ctc_tracks(lineage)
        tables.append(table)
        labels.append([label[lineage.objects.frame == frame].tolist() for frame in range(FRAMES)])
    hidden = data.draw(st.integers(0, n))  # an object of both that does not match
    matched: tuple[list[list[int]], list[list[int]]] = ([], [])
    for frame in range(FRAMES):
        common = [
            i for i in objects.id[objects.frame == frame] if i != truth.objects.id[hidden % n]
        ]
        for side, lineage in enumerate((truth, result)):
            label = ctc_tracks(lineage)[1]
            matched[side].append(label[lineage.objects.rows(common)].tolist())
    (a, b, c), (d, e, f) = (
        merge_tracks(table, of_frames, hits)
        for table, of_frames, hits in zip(tables, labels, matched, strict=True)
    )
    b = [np.asarray(frame, np.int64) for frame in b]  # theirs fails on a frame without objects
    expected = theirs(a, d, b, e, c, f)["CHOTA"]
    assert chota(*tables, (labels[0], labels[1]), matched) == pytest.approx(expected, abs=1e-12)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctc_metrics.metrics", None)
    with pytest.raises(VolsamError, match=r"volsam\[track\]"):
        tracking_scores(sequence(family()), sequence(family()))
