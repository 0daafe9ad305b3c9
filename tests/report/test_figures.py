import io
from pathlib import Path

import numpy as np
from PIL import Image

from volsam.geometry import Box
from volsam.report.charts import equivalent_diameters, histogram, size_chart
from volsam.report.figures import colours, grey, outlines, overlay, png, preview_figure, resize
from volsam.report.pictures import WINDOW, pictures, round_length

LABELS = np.zeros((8, 10), np.uint64)
LABELS[1:6, 1:5] = 2**40
LABELS[1:6, 5:9] = 7


def test_outlines_lie_inside_objects() -> None:
    edge = outlines(LABELS)
    assert not edge[LABELS == 0].any()
    assert edge[1, 1:9].all()
    assert edge[3, [4, 5]].all()  # both sides of a contact
    assert not edge[3, [2, 3, 6, 7]].any()
    assert outlines(LABELS, 2)[2, 2]
    assert not outlines(np.zeros((3, 3), int)).any()


def test_colours_are_a_function_of_the_id() -> None:
    ids = np.arange(1, 200, dtype=np.uint64)
    assert np.array_equal(colours(ids), colours(ids[::-1])[::-1])
    assert len(np.unique(colours(ids[:40]), axis=0)) == 40
    assert colours(np.array([0])).max() == 0
    assert colours(ids).max(axis=1).min() > 150


def test_grey_survives_anything() -> None:
    assert grey(np.full((3, 3), 5)).max() == 0
    assert grey(np.array([[np.nan, np.inf], [-np.inf, 1.0]])).dtype == np.uint8
    assert grey(np.empty((0, 4))).shape == (0, 4)
    ramp = grey(np.arange(100).reshape(10, 10))
    assert (ramp[0, 0], ramp[-1, -1]) == (0, 255)


def test_overlay_and_preview(tmp_path: Path) -> None:
    image = np.arange(80).reshape(8, 10)
    assert np.array_equal(resize(image, (16, 20)), image.repeat(2, 0).repeat(2, 1))
    plain, outlined = overlay(image, LABELS, (16, 20))
    changed = (plain != outlined).any(-1)
    assert changed.any()
    assert not changed[resize(LABELS, (16, 20)) == 0].any()
    assert Image.open(io.BytesIO(png(plain))).mode == "L"
    preview_figure(image, LABELS, tmp_path / "new" / "preview.png")
    shown = Image.open(tmp_path / "new" / "preview.png")
    assert shown.size == (2 * 10 * 51 + 8, 8 * 51)
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_round_length() -> None:
    assert [round_length(x) for x in (0.3, 1, 4.9, 50, 99)] == [0.2, 1, 2, 50, 50]


class Volume:
    """Remembers how much of it is read."""

    def __init__(self) -> None:
        self.boxes: list[Box] = []

    def __call__(self, box: Box) -> np.ndarray:
        self.boxes.append(box)
        return np.ones(box.shape, np.uint16)


def test_pictures_read_a_bounded_window_where_the_objects_are() -> None:
    image, labels = Volume(), Volume()
    region = Box((10, 0, 500), (5010, 100_000, 90_500))
    centroids = np.array([[4000.0, 70_000.0, 9000.0]] * 5 + [[20.0, 5.0, 600.0]])
    found = pictures(image, labels, region, (4.0, 1.0, 1.0), "nm", centroids)
    assert [p.title.split()[0] for p in found] == ["Slice", "Slice", "Slice", "Vertical"]
    for box in image.boxes:
        assert max(box.shape[1:]) <= WINDOW
        assert box.size <= WINDOW**2
        assert box.intersect(region) == box
        assert box.start[2] <= 9000 < box.stop[2]
    assert image.boxes == labels.boxes
    section = found[-1]
    assert section.width == WINDOW
    assert section.height == image.boxes[-1].shape[0] * 4


def test_pictures_of_flat_thin_and_empty_regions() -> None:
    volume = Volume()
    for depth, expected in ((1, 1), (2, 3), (3, 4)):
        region = Box((0, 0, 0), (depth, 40, 30))
        assert len(pictures(volume, volume, region, (1.0, 0.5, 0.5), "µm")) == expected
    assert pictures(volume, volume, Box((0, 0, 0), (0, 9, 9)), (1, 1, 1), "µm") == []


def test_charts() -> None:
    chart = histogram([0, 2, 4, 1], 0, 1, "IoU")
    assert chart is not None
    assert chart.heights == [0, 0.5, 1, 0.25]
    assert chart.ticks[0] == (0.0, "0")
    assert chart.ticks[-1] == (1.0, "1")
    assert histogram([0, 0], 0, 1, "IoU") is None
    assert histogram([], 0, 1, "IoU") is None
    ball = equivalent_diameters(np.array([4 / 3 * np.pi * 5**3 / 2]), (2.0, 1.0, 1.0), flat=False)
    disc = equivalent_diameters(np.array([np.pi * 5**2 * 4]), (9.0, 0.5, 0.5), flat=True)
    assert np.allclose([ball[0], disc[0]], 10)
    sizes = size_chart(np.r_[np.full(999, 10.0), 1e6], "µm", flat=False)
    assert sizes is not None
    assert sum(sizes.counts) == 1000
    assert size_chart(np.empty(0), "µm", flat=True) is None
    single = size_chart(np.array([3.0]), "µm", flat=True)
    assert single is not None
    assert sum(single.counts) == 1
