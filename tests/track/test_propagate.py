"""Prompted objects through a sequence: with a model that floods bright pixels, and with a small SAM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny
from scipy import ndimage as ndi

from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.models import load_model
from volsam.segment.masks import tight_box
from volsam.track.promptable import SamPredictor
from volsam.track.prompted import Prompt, PromptTable, Propagation
from volsam.track.propagate import Answer, Image, Query, Step, propagate

SHAPE = (60, 80)
Disc = tuple[float, float, float]


def picture(*discs: Disc) -> Image:
    """Bright discs (y, x, radius) that fall off towards their borders."""
    rows, columns = np.indices(SHAPE)
    image = np.zeros(SHAPE, np.float32)
    for y, x, radius in discs:
        image = np.maximum(image, 1 - np.hypot(rows - y, columns - x) / (2 * radius))
    return image.astype(np.float32)


class Flood:
    """Pixels above one half that are connected to the first positive point, or to most of the box."""

    def __init__(self, iou: float = 0.9) -> None:
        self.asked: list[list[Query]] = []
        self.iou = iou

    def __call__(self, image: Image, queries: Sequence[Query]) -> list[Answer]:
        self.asked.append(list(queries))
        return [self._answer(image, query) for query in queries]

    def _answer(self, image: Image, query: Query) -> Answer:
        bright = image > 0.5
        if query.box is not None:
            y0, x0, y1, x1 = (round(v) for v in query.box)
            inside = np.zeros(SHAPE, bool)
            inside[y0:y1, x0:x1] = True
            bright &= inside
        for (_, x), there in query.points:
            if not there:
                bright[:, round(x) :] = False  # all that lies to the right of it
        pieces, count = ndi.label(bright)
        seeds = [pieces[round(y), round(x)] for (y, x), there in query.points if there]
        piece = (
            seeds[0]
            if seeds and seeds[0]
            else np.bincount(pieces.ravel())[1:].argmax() + 1
            if count
            else -1
        )
        mask = pieces == piece
        box = tight_box(mask)
        return Answer(box, np.where(mask, image - 0.5, -1)[box.slices], self.iou)


def run(
    images: Sequence[Image], table: PromptTable, predict: Flood | None = None, **settings: object
) -> list[Step]:
    return list(
        propagate(
            predict or Flood(),
            lambda frame: images[frame],
            table,
            range(len(images)),
            SHAPE,
            Propagation(**settings),  # type: ignore[arg-type]
        )
    )


def point(y: float, x: float, positive: bool = True) -> Prompt:
    return Prompt((y, x), positive)


def box(y: float, x: float, radius: float) -> Prompt:
    return Prompt((y - radius, x - radius, y + radius + 1, x + radius + 1))


def frames_with(steps: Sequence[Step], track: int) -> list[int]:
    return [step.frame for step in steps if (step.labels == track).any()]


MOVING = [picture((20, 15 + 2 * t, 7), (45, 60 - 2 * t, 6)) for t in range(10)]


def test_objects_are_followed() -> None:
    table = PromptTable({0: {5: (point(20, 15),)}, 2: {9: (box(45, 56, 6),)}})
    steps = run(MOVING, table)
    assert [step.frame for step in steps] == list(range(10))
    assert all(step.labels.dtype == np.uint32 and not step.lost for step in steps)
    assert frames_with(steps, 5) == list(range(10))
    assert frames_with(steps, 9) == list(range(2, 10))
    for step in steps:
        pieces, _ = ndi.label(MOVING[step.frame] > 0.5)
        assert np.array_equal(step.labels == 5, pieces == pieces[20, 15 + 2 * step.frame])


def test_what_is_asked_of_the_model() -> None:
    flood = Flood()
    table = PromptTable({0: {1: (box(20, 15, 7), point(20, 16))}, 1: {1: (point(20, 40, False),)}})
    run(MOVING[:3], table, flood, margin=0.1, mask=True)
    (first,), (second,), (third,) = flood.asked
    assert first.points == (((20.0, 16.0), True),)
    assert first.box == (13.0, 8.0, 28.0, 23.0)
    assert first.mask is None
    assert second.points[-1] == ((20.0, 40.0), False)
    assert len(second.points) == 2
    assert len(third.points) == 1
    assert second.box is not None
    assert second.box[0] < 14
    assert second.box[2] > 26
    assert second.mask is not None
    assert second.mask[0].shape == second.mask[1].shape == (13, 13)


def test_boxes_move_as_the_image_does() -> None:
    texture = ndi.gaussian_filter(np.random.default_rng(0).normal(size=SHAPE), 3) * 2
    still = (picture((30, 30, 8)) + texture).astype(np.float32)
    moved = np.roll(still, (6, 9), (0, 1))
    flood = Flood()
    run([still, moved], PromptTable({0: {1: (box(30, 30, 8),)}}), flood, max_change=100)
    y0, x0, y1, x1 = flood.asked[1][0].box or (0, 0, 0, 0)
    assert abs((y0 + y1) / 2 - 36.5) < 3
    assert abs((x0 + x1) / 2 - 39.5) < 3


def test_the_user_overrides_and_ends() -> None:
    images = [picture((20, 20, 7), (45, 60, 7))] * 8
    table = PromptTable({0: {1: (point(20, 20),)}, 3: {1: (point(45, 60),)}}, {1: 5})
    steps = run(images, table)
    assert frames_with(steps, 1) == list(range(6))
    assert steps[2].labels[20, 20] == 1
    assert steps[3].labels[45, 60] == steps[5].labels[45, 60] == 1
    assert not any(step.lost for step in steps)


def test_negative_points_correct_what_is_followed() -> None:
    images = [picture((30, 40, 9))] * 3
    steps = run(images, PromptTable({0: {1: (point(30, 40),)}, 1: {1: (point(30, 44, False),)}}))
    areas = [np.count_nonzero(step.labels) for step in steps]
    assert areas[1] < areas[0]
    assert not steps[1].labels[:, 44:].any()


def test_a_division() -> None:
    images = [picture((30, 40, 8))] * 3
    images += [picture((30, 32 - t, 6), (30, 48 + t, 6)) for t in range(4)]
    prompts = {0: {1: (point(30, 40),)}, 4: {2: (point(30, 31),), 3: (point(30, 49),)}}
    table = PromptTable(prompts, {1: 2}, {2: 1, 3: 1})
    steps = run(images, table, backward=True)
    assert frames_with(steps, 1) == [0, 1, 2]
    assert frames_with(steps, 2) == frames_with(steps, 3) == [3, 4, 5, 6]
    assert frames_with(run(images, table), 2) == [4, 5, 6]


def test_backward_ends_where_forward_began() -> None:
    table = PromptTable({6: {1: (point(20, 27),)}, 4: {2: (point(45, 52),)}})
    steps = run(MOVING, table, backward=True)
    assert frames_with(steps, 1) == frames_with(steps, 2) == list(range(10))
    assert not any(step.lost for step in steps)
    there = run(MOVING, PromptTable({0: {1: (point(20, 15),), 2: (point(45, 60),)}}))
    assert all(np.array_equal(a.labels, b.labels) for a, b in zip(steps, there, strict=True))


@pytest.mark.parametrize(
    ("later", "settings", "reason"),
    [
        (picture(), {}, "finds nothing"),
        (picture((20, 20, 12)), {"margin": 1.0}, "area changes by the factor"),
        (picture((20, 20, 4)), {}, "area changes by the factor"),
        (picture((20, 20, 7)), {"min_iou": 0.95}, "the predicted IoU is 0.90, below 0.95"),
    ],
)
def test_objects_are_lost(later: Image, settings: dict[str, float], reason: str) -> None:
    images = [picture((20, 20, 7)), later, picture((20, 20, 7))]
    steps = run(images, PromptTable({0: {1: (point(20, 20),)}}), **settings)
    assert frames_with(steps, 1) == [0]
    assert [list(step.lost) for step in steps] == [[], [1], []]
    assert reason in steps[1].lost[1]


def test_a_lost_track_goes_on_from_its_next_prompt() -> None:
    images = [picture((20, 20, 7)), picture(), picture((20, 20, 7)), picture((20, 20, 7))]
    steps = run(images, PromptTable({0: {1: (point(20, 20),)}, 2: {1: (point(20, 20),)}}))
    assert frames_with(steps, 1) == [0, 2, 3]
    nothing = run(images, PromptTable({1: {1: (point(20, 20),)}}))
    assert "finds nothing" in nothing[1].lost[1]


def test_objects_that_leave_the_image() -> None:
    images = [picture((30, 70 + 3 * t, 6)) for t in range(8)]
    steps = run(images, PromptTable({0: {1: (point(30, 70),)}}))
    found = frames_with(steps, 1)
    assert found == list(range(len(found)))
    assert 2 <= len(found) < 8
    assert steps[len(found)].lost.keys() == {1}


def test_no_pixel_has_two_tracks() -> None:
    image = picture((30, 35, 9), (30, 45, 9))  # connected: the flood gives both for each of them
    table = PromptTable({0: {1: (box(30, 33, 7),), 2: (box(30, 46, 7),)}})

    class Halves(Flood):
        def _answer(self, image: Image, query: Query) -> Answer:
            answer = super()._answer(image, query)
            assert query.box is not None
            middle = (query.box[1] + query.box[3]) / 2
            columns = np.arange(answer.box.start[1], answer.box.stop[1])
            nearness = 1 - np.abs(columns - middle) / 100
            return answer._replace(logits=np.where(answer.mask, nearness, -1))

    steps = run([image] * 4, table, Halves())
    for step in steps:
        assert set(np.unique(step.labels)) == {0, 1, 2}
        ones, twos = (np.nonzero(step.labels == track)[1] for track in (1, 2))
        assert ones.max() < twos.min() + 2
    same = run([image] * 2, PromptTable({0: {t: (box(30, 35, 6),) for t in (4, 7)}}))
    assert set(np.unique(same[0].labels)) == {0, 4}
    assert same[0].lost == {7: "other tracks take most of it"}


def test_an_object_is_one_piece() -> None:
    def speckled(image: Image, queries: Sequence[Query]) -> list[Answer]:
        return [Answer(Box.of(SHAPE), image - 0.5, 0.9) for _ in queries]

    image = picture((20, 20, 8), (45, 60, 4))
    (step,) = propagate(
        speckled, lambda _: image, PromptTable({0: {1: (point(20, 20),)}}), range(1), SHAPE
    )
    assert ndi.label(step.labels)[1] == 1
    assert step.labels[20, 20] == 1


def test_regions_of_the_image() -> None:
    """Prompts are in pixels of the whole image, frames begin where the region does."""
    whole = run(MOVING, PromptTable({2: {1: (point(20, 19),)}}))
    part = propagate(
        Flood(),
        lambda frame: MOVING[frame],
        PromptTable({2: {1: (point(120, 219),)}}),
        range(2, 10),
        SHAPE,
        corner=(100, 200),
    )
    for a, b in zip(whole[2:], part, strict=True):
        assert a.frame == b.frame
        assert np.array_equal(a.labels, b.labels)


def test_images_are_read_once_and_only_where_something_is() -> None:
    read: list[int] = []

    def reader(frame: int) -> Image:
        read.append(frame)
        return MOVING[frame]

    table = PromptTable({3: {1: (point(20, 21),)}}, {1: 6})
    list(propagate(Flood(), reader, table, range(10), SHAPE))
    assert read == [3, 4, 5, 6]
    with pytest.raises(VolsamError, match="in frame 3, and the frames are 0 to 2"):
        list(propagate(Flood(), reader, table, range(3), SHAPE))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> object:
    return load_model(tiny.write_model(tmp_path_factory.mktemp("m") / "tiny"))


def queries(count: int, seed: int = 0) -> list[Query]:
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        y, x = rng.uniform(10, 90, 2).tolist()
        mask = Box((int(y) - 5, int(x) - 5), (int(y) + 5, int(x) + 5)), np.ones((10, 10), bool)
        points = (((y, x), True),) if number % 3 != 1 else ()
        around = (y - 8, x - 8, y + 8, x + 8) if number % 3 else None
        found.append(Query(points, around, mask if number % 2 else None))
    return found


def test_sam_answers_in_the_pixels_of_the_image(model: object) -> None:
    image = np.random.default_rng(0).random((120, 100), np.float32)
    asked = queries(12)
    answers = SamPredictor(model, 1.0, batch=2)(image, asked)  # type: ignore[arg-type]
    assert len(answers) == len(asked)
    for answer in answers:
        assert answer.box.intersect(Box.of(image.shape)) == answer.box
        assert answer.logits.shape == answer.box.shape
        if answer.box.size:
            assert answer.mask.any(axis=0)[[0, -1]].all()
    batched = SamPredictor(model, 1.0, batch=16)(image, asked)  # type: ignore[arg-type]
    alone = [SamPredictor(model, 1.0)(image, [query])[0] for query in asked]  # type: ignore[arg-type]
    for one, other in ((answers, batched), (answers, alone)):
        for a, b in zip(one, other, strict=True):
            assert a.iou == pytest.approx(b.iou, abs=1e-4)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_windows_hold_what_they_are_asked_for(model: object, scale: float) -> None:
    sam = SamPredictor(model, scale)  # type: ignore[arg-type]
    shape = (300, 170)
    rng = np.random.default_rng(0)
    for _ in range(300):
        y0, y1 = np.sort(rng.uniform(0, shape[0], 2))
        x0, x1 = np.sort(rng.uniform(0, shape[1], 2))
        window = sam._window(Query((), (y0, x0, y1 + 1e-3, x1 + 1e-3)), shape)
        assert window.intersect(Box.of(shape)) == window
        for axis, (low, high) in enumerate(((y0, y1), (x0, x1))):
            assert window.start[axis] <= low + 1
            assert window.stop[axis] >= high - 1
            if high - low <= 32 / scale and shape[axis] > 64 / scale:
                assert window.shape[axis] >= int(64 / scale)


def test_a_mask_is_where_the_network_looks_for_it(model: object) -> None:
    sam = SamPredictor(model, 0.5)  # type: ignore[arg-type]
    window = Box((20, 40), (120, 140))
    query = Query(mask=(Box((60, 60), (100, 80)), np.ones((40, 20), bool)))
    (found,) = sam._mask(query, window, 0.5)
    share = found.shape[-1] / 64 * 0.5  # its pixels per pixel of the image
    rows, columns = np.nonzero(found[0].numpy() > 0)
    np.testing.assert_allclose(
        [rows.min(), rows.max() + 1, columns.min(), columns.max() + 1],
        np.array([40, 80, 20, 40]) * share,
        atol=1,
    )


def test_a_model_without_prompts_is_refused(tmp_path: Path) -> None:
    bare = load_model(tiny.write_model(tmp_path / "bare", prompts=False))
    with pytest.raises(VolsamError, match="cannot follow prompts"):
        SamPredictor(bare)


def test_the_embedded_model_follows_a_nucleus() -> None:
    rng = np.random.default_rng(0)
    images = [
        (0.8 * (picture((25, 25 + 2 * t, 8), (40, 60, 8)) > 0.5) + 0.1 * rng.random(SHAPE)).astype(
            np.float32
        )
        for t in range(4)
    ]
    images = [ndi.gaussian_filter(image, 1) for image in images]
    sam = SamPredictor(load_model("embedded", need_decoder=False))
    table = PromptTable({0: {1: (box(25, 25, 8),)}})
    steps = list(propagate(sam, lambda frame: images[frame], table, range(4), SHAPE))
    for step in steps:
        truth = picture((25, 25 + 2 * step.frame, 8)) > 0.5
        found = step.labels == 1
        assert (found & truth).sum() / (found | truth).sum() > 0.7
