import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from volsam.errors import VolsamError
from volsam.evaluate.suite import Pair
from volsam.models.card import describe
from volsam.models.model import load_model
from volsam.train import report
from volsam.train.figures import POINTS, busiest, compare, curves, ticks
from volsam.train.report import flatten, render, segment_image, write_report

HOSTILE = "<script>alert(1)</script>"
LOSSES = [[n, n * 1.5, 1e-4, 1 / n, 0.01, 0.8 - n / 100] for n in range(1, 30)]
METRICS = [[1, 10, 15, 0.6, 0.4, 0.6], [2, 20, 30, 0.41, 0.2, 0.63], [3, 29, 44, 0.5, 0.3, 0.6]]
PROGRESS = {
    "step": 29, "epoch": 3, "best": 0.41, "since": 1, "seconds": 75.0, "steps": 10,
    "ended": "no progress in 1 epochs", "losses": LOSSES, "metrics": METRICS,
}  # fmt: skip


def full_description(**more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "parent": "embedded",
        "parent_hash": "f00d",
        "ais": {"center_threshold": 0.45, "min_size": 30},
        "data": [{"name": "cells/*.tif", "licence": "CC0-1.0", "slices": 7}, "annotations"],
        "metrics": {
            "before": {"mSA": 0.4, "SA50": 0.7},
            "after": {"mSA": 0.512, "SA50": 0.65, "box": 0.81},
            "on": "12 held-out images",
        },
        "recipe": {"adapt": "lora", "schedule": {"epochs": 3}, "data": [{"image": "x"}]},
        "tuning": {"metric": "mSA", "images": 6, "table": [{"a": 1}, {"a": 2}]},
        "training": "abc123",
    }
    return describe("cells", **(given | more))


def scene(name: str = "one", side: int = 40) -> Pair:
    labels = np.zeros((side, side), np.int32)
    labels[4:14, 4:14], labels[20:34, 6:18], labels[22:30, 24:34] = 1, 2, 3
    image = np.where(labels > 0, 0.8, 0.1).astype(np.float32)
    return Pair(name, image, labels)


class Page(HTMLParser):
    """Tags, their balance, all addresses, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


@pytest.fixture
def segmented(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are functions from an image to labels."""
    monkeypatch.setattr(report, "segment_image", lambda model, image, scale: model.find(image))


def model(find: Any, **ais: float) -> Any:
    return SimpleNamespace(find=find, ais=ais, normalisation="percentile")


@pytest.mark.usefixtures("segmented")
def test_full_report(tmp_path: Path) -> None:
    (tmp_path / "progress.json").write_text(json.dumps(PROGRESS))
    truth = scene().labels
    before = model(lambda image: np.where(truth == 1, 1, 0), center_threshold=0.5, min_size=30)
    write_report(
        tmp_path,
        full_description(),
        before,
        model(lambda _: truth),
        [scene(str(n)) for n in "abcde"],
    )
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert page.tags.count("img") == 4 * 3
    assert page.tags.count("svg") == 5
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert "script" not in page.tags
    assert not re.search(r"https?://|@import|url\(", text)
    for expected in (
        "cells trained from embedded", "On 12 held-out images",
        "mSA, automatic 0.400 0.512 +0.112", "SA50, automatic 0.700 0.650 -0.050",
        "mean IoU from one box – 0.810 –", "1 min 15 s", "29 steps in 3 epochs",
        "1 found, 2 missed, 0 extra; SA50 0.33", "3 found, 0 missed, 0 extra; SA50 1.00",
        "best: 0.41 in epoch 2", "It ended: no progress in 1 epochs.", "f00d", "abc123",
        "cells/*.tif CC0-1.0 slices: 7", "annotations not stated", "adapt lora",
        "schedule.epochs 3", "center threshold 0.5 0.45", "table 2 entries", "processor",
    ):  # fmt: skip
        assert expected in page.text, expected
    assert list(tmp_path.glob(".*")) == []


def test_names_are_escaped() -> None:
    picture = compare(HOSTILE, scene().image, scene().labels, [(HOSTILE, scene().labels)])
    description = full_description(
        parent=HOSTILE,
        data=[{"name": HOSTILE, "licence": HOSTILE, HOSTILE: HOSTILE}],
        metrics={"before": {}, "after": {HOSTILE: 1.0}, "on": HOSTILE},
        recipe={HOSTILE: HOSTILE},
        tuning={HOSTILE: [HOSTILE]},
        ais={HOSTILE: HOSTILE},
    )
    text = render(description | {"name": HOSTILE}, {"ended": HOSTILE}, [picture], gap=HOSTILE)
    assert "<script" not in text
    assert Page(text).open == []
    assert Page(text).text.count(HOSTILE) > 12


@pytest.mark.parametrize(
    "log",
    [
        None,
        "{torn",
        "[]",
        '{"losses": [], "metrics": []}',
        '{"losses": [[1, 2]], "metrics": [["a", 1, 2, 3, 4, null]]}',
    ],
)
def test_without_a_log_there_are_no_curves(tmp_path: Path, log: str | None) -> None:
    if log is not None:
        (tmp_path / "progress.json").write_text(log)
    write_report(tmp_path, full_description(), None, model(None), [])
    page = Page((tmp_path / "report.html").read_text())
    assert page.open == []
    assert "svg" not in page.tags
    assert "There is no log of this training." in page.text
    assert "No image was set apart, so there are no pictures." in page.text


def test_renders_a_bare_description() -> None:
    page = Page(render({"name": "n"}, {}))
    assert page.open == []
    assert "nothing is known of whether this model is better" in page.text


@pytest.mark.usefixtures("segmented")
@pytest.mark.parametrize("error", [VolsamError("It is broken; mend it."), MemoryError()])
def test_pictures_that_fail_leave_a_sentence(tmp_path: Path, error: Exception) -> None:
    def find(image: Any) -> Any:
        raise error

    write_report(tmp_path, full_description(), None, model(find), [scene()])
    page = Page((tmp_path / "report.html").read_text())
    assert "Pictures of one could not be made:" in page.text
    assert "mSA, automatic" in page.text


@pytest.mark.usefixtures("segmented")
def test_names_that_are_no_text_and_unfinished_numbers(tmp_path: Path) -> None:
    rows = [[1, 1.0, 1e-4, float("nan"), 0.0, 0.0], [2, 1.0, 1e-4, 0.5, 0.0, 0.0]]
    infinite = [[1, 1, 1, float("inf"), 0.0, 0.0]]
    (tmp_path / "progress.json").write_text(json.dumps({"losses": rows, "metrics": infinite}))
    pair = scene("caf\udce9")
    write_report(tmp_path, full_description(), None, model(lambda _: pair.labels), [pair])
    page = Page((tmp_path / "report.html").read_text())
    assert "caf\\udce9" in page.text
    assert page.tags.count("svg") == 2  # prompts, and the learning rate


def test_says_what_the_metric_is() -> None:
    unvalidated = [[1, 10, 15, 0.6, 0.0, 0.0]]
    assert "Loss of the epoch (lower" in render({"name": "n"}, {"metrics": unvalidated})
    prompts_only = [[1, 10, 15, 0.6, 0.6, 0.0]]
    page = Page(render({"name": "n"}, {"metrics": prompts_only}))
    assert "Validation metric (lower" in page.text
    assert page.tags.count("polyline") == 1


@pytest.mark.usefixtures("segmented")
def test_large_images_are_shown_where_their_objects_are(tmp_path: Path) -> None:
    labels = np.zeros((900, 1300), np.int32)
    labels[700:720, 1000:1020] = 5
    seen: list[tuple[int, ...]] = []

    def find(image: np.ndarray) -> np.ndarray:
        seen.append(image.shape)
        return (image > 0.5).astype(np.uint32)

    pair = Pair("large", (labels > 0).astype(np.float32), labels)
    write_report(tmp_path, full_description(), None, model(find), [pair])
    assert "1 found, 0 missed, 0 extra" in (tmp_path / "report.html").read_text()
    assert max(seen[0]) <= 448 + 2 * 64


def test_ignored_pixels_are_not_counted() -> None:
    pair = scene()
    found = np.where(pair.labels == 3, 0, pair.labels)
    found[0:3, 25:35] = 9
    ignore = np.zeros(found.shape, np.bool_)
    ignore[:, 22:] = True
    panels = compare("x", pair.image, pair.labels, [("a", found)], ignore).panels
    assert panels[0].caption == "2 objects"
    assert panels[1].caption.startswith("2 found, 0 missed, 0 extra")


def test_a_picture_without_objects() -> None:
    none = np.zeros((9, 9), np.int32)
    panels = compare("x", none.astype(np.float32), none, [("a", none)]).panels
    assert panels[1].caption == "0 found, 0 missed, 0 extra; SA50 1.00"


def test_curves_lie_in_the_unit_square_and_are_thinned() -> None:
    n = 10 * POINTS + 3
    chart = curves("t", "step", range(n), {"a": np.sin(np.arange(n)), "zero": np.zeros(n)}, mark=4)
    assert chart is not None
    assert [line.name for line in chart.lines] == ["a"]
    points = np.array(chart.lines[0].points)
    assert points.shape == (POINTS, 2)
    assert points.min() >= 0
    assert points.max() <= 1
    assert chart.mark is not None


def test_one_point_and_no_point_make_no_trouble() -> None:
    chart = curves("t", "epoch", [1], {"a": [0.3]}, mark=0)
    assert chart is not None
    assert chart.lines[0].points == [pytest.approx((0.5, 0.5))]
    assert curves("t", "epoch", [], {"a": []}) is None
    assert curves("t", "epoch", [1], {"a": [float("nan")]}) is None


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 3e-4), (1, 4900), (-0.2, 7e8), (0.41, 0.42)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 8
    assert all(-1e-9 <= place <= 1 + 1e-9 for place, _ in found)
    assert len({text for _, text in found}) == len(found)


def test_ticks_of_epochs_are_whole() -> None:
    assert ticks(1, 3, whole=True) == [(0, "1"), (0.5, "2"), (1, "3")]


def test_busiest_window_holds_the_objects() -> None:
    labels = np.zeros((300, 200), np.int32)
    labels[250:290, 100:150] = 1
    box = busiest(labels, 96)
    assert box.shape == (96, 96)
    assert (labels[box.slices] > 0).sum() == 40 * 50
    assert busiest(labels, 4000).shape == labels.shape


def test_flatten_names_every_value() -> None:
    nested = {"a": {"b": 0.12345, "c": [1, 2]}, "d": None, "e": [{"f": 1}]}
    assert list(flatten(nested)) == [
        ("a.b", "0.1235"), ("a.c", "[1, 2]"), ("d", "–"), ("e", "1 entry"),
    ]  # fmt: skip


def test_segment_image_finds_bright_discs() -> None:
    rows, columns = np.mgrid[:96, :96]
    image = np.zeros((96, 96), np.float32)
    for y, x in ((30, 30), (60, 66)):
        image[(rows - y) ** 2 + (columns - x) ** 2 < 81] = 0.9
    labels = segment_image(load_model("embedded"), image, 1.0)
    assert labels.shape == image.shape
    assert len(np.unique(labels)) == 3
