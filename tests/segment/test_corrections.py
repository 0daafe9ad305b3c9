"""Simulated prompts: where they lie, that they are uniform, and what happens without an error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from volsam.errors import VolsamError
from volsam.segment.corrections import (
    NEAR,
    NO_POINT,
    bounding_boxes,
    correction_points,
    start_prompts,
)
from volsam.segment.prompts import NEGATIVE, POSITIVE


def blobs(n: int = 7, side: int = 48, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, : side + 5]
    discs = rng.integers([8, 8, 2], [side - 8, side - 8, 8], (n, 3))
    return torch.from_numpy(np.stack([(y - a) ** 2 + (x - b) ** 2 <= r * r for a, b, r in discs]))


def at(masks: Tensor, points: Tensor) -> Tensor:
    x, y = points.long().T
    return masks[torch.arange(len(masks)), y, x]


@pytest.mark.parametrize("seed", range(5))
def test_points_lie_in_the_errors(seed: int) -> None:
    truth = blobs(seed=seed)
    prediction = truth.roll((2, 1), dims=(1, 2))
    points, labels = correction_points(truth, prediction, np.random.default_rng(seed))
    assert points.shape == (7, 2, 2)
    assert points.dtype == torch.float32
    assert labels.tolist() == [[POSITIVE, NEGATIVE]] * 7
    assert at(truth & ~prediction, points[:, 0]).all()
    assert at(prediction & ~truth, points[:, 1]).all()


def test_every_pixel_of_the_error_is_as_likely() -> None:
    truth = torch.zeros(4000, 6, 5, dtype=torch.bool)
    truth[:, [0, 2, 2, 5], [4, 0, 3, 1]] = True
    points, _ = correction_points(truth, torch.zeros_like(truth), np.random.default_rng(0))
    places, counts = points[:, 0].unique(dim=0, return_counts=True)
    assert places.tolist() == [[0, 2], [1, 5], [3, 2], [4, 0]]
    assert counts.min() > 900  # 1000 expected, standard deviation 27


def test_without_an_error_the_points_are_inside_and_near() -> None:
    truth = blobs()
    points, labels = correction_points(truth, truth, np.random.default_rng(1))
    assert at(truth, points[:, 0]).all()
    assert not at(truth, points[:, 1]).any()
    boxes = torch.from_numpy(bounding_boxes(truth))
    assert (points[:, 1] >= boxes[:, :2] - NEAR).all()
    assert (points[:, 1] < boxes[:, 2:] + NEAR).all()
    assert labels.tolist() == [[POSITIVE, NEGATIVE]] * 7


def test_fall_backs_are_chosen_per_object() -> None:
    truth = blobs()
    prediction = truth.clone()
    prediction[2] = False  # nothing too much, all missed
    prediction[4] = True  # nothing missed, all else too much
    points, _ = correction_points(truth, prediction, np.random.default_rng(2))
    assert at(truth, points[:, 0]).all()
    assert not at(truth, points[:, 1]).any()
    alone, _ = correction_points(truth[:1], prediction[:1], np.random.default_rng(2))
    assert alone.shape == (1, 2, 2)


def test_an_object_that_fills_its_box_or_the_image() -> None:
    truth = torch.ones(2, 9, 9, dtype=torch.bool)
    truth[0, 0] = False
    points, labels = correction_points(truth, truth, np.random.default_rng(3))
    assert labels.tolist() == [[POSITIVE, NEGATIVE], [POSITIVE, NO_POINT]]
    assert points[0, 1, 1] == 0


def test_no_point_on_ignored_pixels() -> None:
    truth = blobs()
    ignore = torch.zeros(truth.shape[1:], dtype=torch.bool)
    ignore[:, ::2] = True
    for prediction in (truth, truth.roll(3, dims=2), torch.zeros_like(truth)):
        points, _ = correction_points(truth, prediction, np.random.default_rng(4), ignore)
        assert (points[..., 0] % 2 == 1).all()


def test_same_seed_same_points() -> None:
    truth = blobs()
    a, b = (correction_points(truth, ~truth, np.random.default_rng(5))[0] for _ in range(2))
    assert torch.equal(a, b)


def test_start_points_and_boxes() -> None:
    truth = blobs()
    prompts = start_prompts(truth, "point", np.random.default_rng(0))
    assert prompts.boxes is None
    assert prompts.points is not None
    assert prompts.labels is not None
    assert prompts.labels.tolist() == [[POSITIVE]] * 7
    assert at(truth, prompts.points[:, 0]).all()

    exact = start_prompts(truth, "box", np.random.default_rng(0), distortion=0).boxes
    assert exact is not None
    for (x0, y0, x1, y1), mask in zip(exact.int().tolist(), truth, strict=True):
        assert mask[y0:y1, x0:x1].sum() == mask.sum()
        assert all(side.any() for side in (mask[y0], mask[y1 - 1], mask[:, x0], mask[:, x1 - 1]))
    extent = (exact[:, 2:] - exact[:, :2]).tile(2)
    moves = []
    for seed in range(200):
        boxes = start_prompts(truth, "box", np.random.default_rng(seed), distortion=0.1).boxes
        assert boxes is not None
        moves.append((boxes - exact) / extent * torch.tensor([-1, -1, 1, 1]))
    share = torch.stack(moves)
    assert share.min() > -1e-5
    assert 0.09 < share.max() < 0.1 + 1e-5
    assert share.mean() == pytest.approx(0.05, abs=0.005)


def test_boxes_end_at_the_image() -> None:
    truth = torch.ones(1, 10, 20, dtype=torch.bool)
    boxes = start_prompts(truth, "box", np.random.default_rng(0), distortion=0.5).boxes
    assert boxes is not None
    assert boxes.tolist() == [[0, 0, 20, 10]]


def test_an_empty_object_is_refused() -> None:
    truth = blobs(3)
    truth[1] = False
    rng = np.random.default_rng(0)
    for kind in ("point", "box"):
        with pytest.raises(VolsamError, match="Object 1 of the batch has no pixel"):
            start_prompts(truth, kind, rng)  # type: ignore[arg-type]
    with pytest.raises(VolsamError, match="Object 1"):
        correction_points(truth, truth, rng)
    with pytest.raises(VolsamError, match="bring the masks"):
        correction_points(truth, truth[:2], rng)
