"""Automatic mask generation with a network whose masks are known, and beside segment_anything."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray
from scipy import ndimage as ndi
from torch import Tensor
from torch.nn import functional as F

from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.models import Model, load_model
from volsam.segment.amg import AmgParameters, predict_candidates, segment_amg, stability
from volsam.segment.masks import Candidates, Collector, pack, suppress, unpack
from volsam.segment.prompts import Prompts, decode, upscale

SIDE = 64
ALL = AmgParameters(-np.inf, 0)


class Seer:
    """Sees objects by their grey values; each point gives its object in three qualities.

    The first mask is sure and good, the second good but unstable, the third grown and bad.
    """

    name, image_size = "seer", SIDE
    quality = (0.97, 0.9, 0.65)

    def __init__(self) -> None:
        self.prompts: list[int] = []
        self.sam = SimpleNamespace(prompt_encoder=self, mask_decoder=self.masks)
        self.image_embedding_size = (SIDE, SIDE)

    def embed(self, images: Tensor) -> Tensor:
        pad = (0, SIDE - images.shape[-1], 0, SIDE - images.shape[-2])
        return F.pad(images[:, :1], pad)

    def __call__(self, points: tuple[Tensor, Tensor], **_: None) -> tuple[Tensor, None]:
        assert (points[1] == 1).all()
        return points[0][:, 0], None

    def get_dense_pe(self) -> None:
        return None

    def masks(
        self, image_embeddings: Tensor, sparse_prompt_embeddings: Tensor, **_: Any
    ) -> tuple[Tensor, Tensor]:
        image, points = image_embeddings[0, 0].round(), sparse_prompt_embeddings
        self.prompts.append(len(points))
        x, y = points.round().long().clamp(0, SIDE - 1).T
        inside = image == image[y, x][:, None, None]
        grown = F.max_pool2d(inside[:, None].float(), 3, 1, 1)[:, 0] > 0
        unsure = torch.where(torch.arange(SIDE) % 2 > 0, 0.5, 9.0) * inside - 9.0 * ~inside
        logits = torch.stack([18.0 * inside - 9, unsure, 18.0 * grown - 9], dim=1)
        return logits, torch.tensor(self.quality).expand(len(points), -1)


def scene(height: int, width: int, count: int, seed: int = 0) -> NDArray[np.int64]:
    """Discs apart from each other, numbered."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    labels = np.zeros((height, width), np.int64)
    for number in range(1, count + 1):
        a, b = rng.integers(0, [height, width])
        disc = (y - a) ** 2 + (x - b) ** 2 <= rng.integers(3, 7) ** 2
        if not labels[ndi.binary_dilation(disc, iterations=3)].any():
            labels[disc] = number
    return labels


def predict(model: Any, labels: NDArray[Any], **options: Any) -> Candidates:
    options = {"points_per_side": 16} | options
    return predict_candidates(cast(Model, model), labels / 255, **options)


def assert_same_objects(found: NDArray[Any], truth: NDArray[Any]) -> None:
    pairs = np.unique(np.stack([found.ravel(), truth.ravel()]), axis=1)
    assert pairs.shape[1] == np.unique(truth).size == np.unique(found).size
    assert (pairs[0] == 0).tolist() == (pairs[1] == 0).tolist()
    assert found.max() == np.unique(truth).size - 1  # without gaps


def test_known_masks_become_objects() -> None:
    model, truth = Seer(), scene(60, 50, 9)
    candidates = predict(model, truth, points_per_side=32)
    assert model.prompts == [64] * 16
    labels = segment_amg(candidates)
    assert labels.dtype == np.uint32
    assert_same_objects(labels, truth)
    assert (candidates.iou == np.float32(0.97)).all()  # the unstable and the bad are not kept
    for number in range(len(candidates)):
        (value,) = np.unique(truth[candidates.box(number).slices][candidates.mask(number)])
        assert candidates.area[number] == (truth == value).sum()


def test_filters() -> None:
    truth = scene(60, 50, 9)
    candidates = predict(Seer(), truth, loosest=AmgParameters(0.6, 0.3))
    strict = predict(Seer(), truth)
    assert len(candidates) > 2 * len(strict)

    def objects(**parameters: Any) -> int:
        return int(segment_amg(candidates, AmgParameters(**parameters)).max())

    count = np.unique(truth).size - 1
    np.testing.assert_array_equal(segment_amg(candidates), segment_amg(strict))
    assert objects(pred_iou_thresh=0.97) == 0  # above, not at
    assert objects(pred_iou_thresh=0.96, stability_score_thresh=1.0) == count  # at
    assert objects(min_size=1000) == 0
    sizes = np.sort(np.bincount(truth.ravel())[1:])
    sizes = sizes[sizes > 0]
    assert objects(min_size=int(sizes[0]) + 1) == (sizes > sizes[0]).sum()
    grown = segment_amg(candidates, AmgParameters(0.6, 0.3, box_nms_thresh=1.0))
    assert (grown > 0).sum() > (truth > 0).sum()  # without suppression the grown ones stay
    with pytest.raises(VolsamError, match=r"kept from a pred_iou_thresh of 0\.6 on, not from 0\.5"):
        objects(pred_iou_thresh=0.5)
    with pytest.raises(VolsamError, match=r"stability_score_thresh of 0\.3"):
        objects(stability_score_thresh=0.2)


def test_background() -> None:
    y, x = np.mgrid[:40, :40]
    truth = ((y - 20) ** 2 + (x - 20) ** 2 <= 25).astype(int)
    candidates = predict(Seer(), truth)
    assert_same_objects(segment_amg(candidates), truth)
    both = segment_amg(candidates, AmgParameters(with_background=False))
    assert_same_objects(np.pad(both, 1), np.pad(truth + 1, 1))
    # Where nothing covers the background, no object is taken for it.
    collected = Collector((40, 40), 0.8, 0.9)
    collected.add(Box((0, 0), (10, 10)), np.ones((10, 10), bool), 0.9, 1.0)
    assert segment_amg(collected.candidates()).max() == 1


@pytest.mark.parametrize("shape", [(150, 140), (64, 200), (65, 64), (97, 130)])
def test_large_images(shape: tuple[int, int]) -> None:
    truth = scene(*shape, 60, seed=3)
    model = Seer()
    assert_same_objects(segment_amg(predict(model, truth)), truth)
    points = [int(np.ceil(16 * max(side, SIDE) / SIDE)) for side in shape]
    assert sum(model.prompts) == points[0] * points[1]  # none is prompted twice


def test_windows_see_what_one_window_does() -> None:
    large = np.zeros((128, 128), np.int64)
    part = np.s_[40:88, 40:88]
    large[part] = np.pad(scene(36, 36, 8, seed=5), 6)
    alone = segment_amg(predict(Seer(), large[part], points_per_side=32))
    assert_same_objects(segment_amg(predict(Seer(), large, points_per_side=32))[part], alone)


def test_masks_that_a_window_cuts_are_dropped() -> None:
    truth = np.zeros((20, 128), np.int64)
    truth[5:15, 20:110] = 1  # larger than any window
    assert len(predict(Seer(), truth)) == 0
    truth = truth[:, :64]
    assert segment_amg(predict(Seer(), truth), AmgParameters(with_background=False)).max() == 2


def test_scale() -> None:
    truth = np.zeros((120, 200), np.int64)
    y, x = np.mgrid[:120, :200]
    middles = [(30, 40), (85, 60), (60, 150)]
    for number, (a, b) in enumerate(middles, start=1):
        truth[(y - a) ** 2 + (x - b) ** 2 <= 20**2] = 80 * number
    labels = segment_amg(predict(Seer(), truth, scale=0.5), AmgParameters(min_size=300))
    assert labels.shape == truth.shape
    for a, b in middles:  # edges are blurred, places are not
        assert labels[a, b] > 0
        found = ndi.center_of_mass(labels == labels[a, b])
        np.testing.assert_allclose(found, (a, b), atol=0.6)


def test_the_batch_does_not_matter() -> None:
    truth = scene(60, 100, 15, seed=2)
    one, other = (predict(Seer(), truth, batch=batch) for batch in (64, 7))
    assert one.packed == other.packed
    np.testing.assert_array_equal(one.boxes, other.boxes)


def test_smaller_masks_are_in_front_and_pieces_are_objects() -> None:
    collected = Collector((20, 20), 0, 0)
    collected.add(Box((8, 0), (12, 20)), np.ones((4, 20), bool), 0.9, 1.0)
    collected.add(Box((5, 8), (15, 12)), np.ones((10, 4), bool), 0.95, 1.0)
    crossed = segment_amg(collected.candidates(), AmgParameters(0, 0))
    assert crossed.max() == 3  # the bar is cut in two
    assert (crossed[5:15, 8:12] == crossed[5, 8]).all()
    assert (crossed > 0).sum() == 4 * 20 + 10 * 4 - 4 * 4
    # Its halves are smaller than the least size, though the bar was not.
    assert segment_amg(collected.candidates(), AmgParameters(0, 0, min_size=40)).max() == 1
    corner = np.eye(2, dtype=bool)
    collected = Collector((20, 20), 0, 0)
    collected.add(Box((4, 4), (6, 6)), corner, 0.9, 1.0)
    assert segment_amg(collected.candidates(), AmgParameters(0, 0)).max() == 2


def test_suppression_is_that_of_its_definition() -> None:
    rng = np.random.default_rng(0)
    low = rng.integers(0, 40, (300, 2))
    boxes = np.concatenate([low, low + rng.integers(1, 30, (300, 2))], axis=1)
    scores = rng.integers(0, 50, 300) / 50
    for threshold in (0.0, 0.3, 0.7, 1.0):
        left: list[int] = []
        for number in sorted(range(300), key=lambda n: (-scores[n], n)):
            if all(_iou(boxes[number], boxes[other]) <= threshold for other in left):
                left.append(number)
        assert suppress(boxes, scores, threshold).tolist() == left
    assert suppress(boxes[:0], scores[:0], 0.7).size == 0


def _iou(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Of boxes from first pixel to last."""
    height = min(a[2], b[2]) - 1 - max(a[0], b[0])
    width = min(a[3], b[3]) - 1 - max(a[1], b[1])
    common = max(0, height) * max(0, width)
    areas = [(box[2] - 1 - box[0]) * (box[3] - 1 - box[1]) for box in (a, b)]
    return common / (sum(areas) - common) if sum(areas) > common else 0.0


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (8, 8), (13, 5), (0, 0)])
def test_packing(shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(shape) < 0.5
    np.testing.assert_array_equal(unpack(pack(mask), shape), mask)


def test_masks_take_little_memory() -> None:
    y, x = np.mgrid[:1000, :1000]
    disc = (y - 500) ** 2 + (x - 500) ** 2 <= 400**2
    assert len(pack(disc)) < 10_000


def test_refusals() -> None:
    truth = scene(30, 30, 2)
    mute = SimpleNamespace(name="mute", sam=None)
    with pytest.raises(VolsamError, match="mute has no prompt encoder"):
        predict(mute, truth)
    broken = Seer()
    broken.quality = (np.nan, 0.9, 0.9)
    with pytest.raises(VolsamError, match="NaN"):
        predict(broken, truth)


def test_an_image_of_nothing() -> None:
    nothing = Seer()
    nothing.quality = (0.1, 0.1, 0.1)
    candidates = predict(nothing, np.zeros((30, 20)))
    assert len(candidates) == 0
    assert segment_amg(candidates).shape == (30, 20)
    assert not segment_amg(candidates).any()


@pytest.fixture(scope="module")
def meta() -> Any:
    """``segment_anything.utils.amg``; its package may not be importable, as it needs torchvision."""
    spec = importlib.util.find_spec("segment_anything")
    assert spec is not None
    assert spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "utils" / "amg.py"
    found = importlib.util.spec_from_file_location("segment_anything_amg", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_stability(meta: Any) -> None:
    logits = torch.randn(6, 20, 30, generator=torch.Generator().manual_seed(0)) * 2
    found = stability(logits, 0.7)
    inner, outer = logits > 0.7, logits > -0.7
    expected = (inner & outer).sum((1, 2)) / (inner | outer).sum((1, 2))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found, meta.calculate_stability_score(logits, 0.0, 0.7))
    assert stability(torch.full((1, 4, 4), -3.0)).isnan().all()


@pytest.mark.parametrize("shape", [(64, 64), (40, 60)])
def test_candidates_are_those_of_segment_anything(
    tmp_path: Path, meta: Any, shape: tuple[int, int]
) -> None:
    model = load_model(tiny.write_model(tmp_path / "tiny"))
    image = np.random.default_rng(0).random(shape, np.float32)
    candidates = predict_candidates(model, image, loosest=ALL, points_per_side=8)
    points = torch.as_tensor(meta.build_point_grid(8) * np.array(shape)[::-1]).float()
    with torch.inference_mode():
        embedding = model.embed(torch.from_numpy(image)[None, None].expand(1, 3, -1, -1) * 255)
        prompts = Prompts(points=points[:, None], labels=torch.ones(64, 1, dtype=torch.long))
        logits, iou = decode(model.sam, embedding, prompts, multimask=True)
        whole = upscale(logits, model.image_size, shape).flatten(0, 1)
    masks = whole > 0
    filled = masks.any(dim=(1, 2))
    assert len(candidates) == filled.sum() > 20
    boxes = meta.batched_mask_to_box(masks)[filled].numpy()
    np.testing.assert_array_equal(candidates.boxes[:, [1, 0]], boxes[:, :2])
    np.testing.assert_array_equal(candidates.boxes[:, [3, 2]] - 1, boxes[:, 2:])
    steady = meta.calculate_stability_score(whole, 0.0, 1.0)[filled].numpy()
    np.testing.assert_allclose(candidates.stability, steady, atol=0.01)
    np.testing.assert_allclose(candidates.iou, iou.flatten()[filled].numpy(), rtol=1e-4)
    kept = masks[filled].numpy()
    for number in range(len(candidates)):
        found = np.zeros(shape, bool)
        found[candidates.box(number).slices] = candidates.mask(number)
        assert (found != kept[number]).mean() < 0.01
        assert candidates.area[number] == found.sum()
