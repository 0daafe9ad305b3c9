"""Simulated sessions: the protocol with an oracle for a model, and a small SAM from end to end."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage as ndi
from torch import Tensor, nn
from torch.nn import functional as F

from volsam.errors import VolsamError
from volsam.evaluate.interactive import SETTINGS, Curve, Setting, interact
from volsam.evaluate.windows import windows
from volsam.models.sam import build_sam, normalise
from volsam.models.tiny_vit import TinyViT

SIDE = 64


def scene(
    height: int = 60, width: int = 64, seed: int = 0, n: int = 9, bar: int = 0
) -> NDArray[np.int32]:
    """Discs that do not touch, and above them a bar of a given length."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.int32)
    labels[20:40, 20 : 20 + bar] = 250
    y, x = np.mgrid[:height, :width]
    for number in range(1, n + 1):
        a, b, r = rng.integers([6, 6, 3], [height - 6, width - 6, 7])
        disc = (y - a) ** 2 + (x - b) ** 2 <= r * r
        if not labels[ndi.binary_dilation(disc, iterations=3)].any():
            labels[disc] = 10 * number
    return labels


class Oracle:
    """Knows the truth from the image, and errs by less the more points it is given.

    The image is bright in objects. The prediction is the object at the first prompt, moved by as
    many pixels as there are points lacking, and unmoved if a mask is given.
    """

    image_size = SIDE

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.sam: Any = SimpleNamespace(prompt_encoder=self._Encoder(), mask_decoder=self._decode)

    def embed(self, images: Tensor) -> Tensor:
        assert images.min() >= 0
        pad = (0, SIDE - images.shape[-1], 0, SIDE - images.shape[-2])
        return F.pad(images[:, :1], pad)

    class _Encoder:
        image_embedding_size = (SIDE, SIDE)

        def __call__(self, points: Any, boxes: Any, masks: Any) -> tuple[Any, Any]:
            return (points, boxes), masks

        def get_dense_pe(self) -> None:
            return None

    def _decode(
        self,
        image_embeddings: Tensor,
        sparse_prompt_embeddings: Any,
        dense_prompt_embeddings: Tensor | None,
        multimask_output: bool,
        **_: Any,
    ) -> tuple[Tensor, Tensor]:
        (points, boxes), masks = sparse_prompt_embeddings, dense_prompt_embeddings
        count = 0 if points is None else points[0].shape[1]
        self.calls.append(
            {
                "multimask": multimask_output,
                "points": count,
                "boxes": boxes is not None,
                "masks": masks is not None,
                "n": len(boxes if points is None else points[0]),
            }
        )
        place = (boxes[:, :2] + boxes[:, 2:]) / 2 if boxes is not None else points[0][:, 0]
        bright = image_embeddings[0, 0].numpy() > 127
        nearest = ndi.distance_transform_edt(~bright, return_distances=False, return_indices=True)
        objects = ndi.label(bright)[0][tuple(nearest)]
        x, y = place.long().T.numpy()
        truth = torch.from_numpy(bright & (objects == objects[y, x].reshape(-1, 1, 1)))
        shift = 0 if masks is not None else max(0, 4 - count // 4)
        logits = truth.roll(shift, dims=2)[:, None] * 2.0 - 1
        if not multimask_output:
            return logits, torch.full((len(logits), 1), 0.5)
        worse = torch.full_like(logits, -1)
        return torch.cat([worse, logits, worse], 1), torch.tensor([[0.1, 0.9, 0.2]]).repeat(
            len(logits), 1
        )


def run(labels: NDArray[np.int32], **options: Any) -> tuple[Oracle, dict[Setting, Curve]]:
    oracle = Oracle()
    curves = interact(oracle, (labels > 0).astype(np.float32), labels, **options)
    return oracle, {curve.setting: curve for curve in curves}


def test_curves_rise_to_the_truth() -> None:
    labels = scene()
    _, curves = run(labels, rounds=8)
    assert list(curves) == list(SETTINGS)
    for setting, curve in curves.items():
        assert curve.ids.tolist() == np.unique(labels)[1:].tolist()
        assert curve.iou.shape == (9, curve.ids.size)
        mean = curve.iou.mean(axis=1)
        assert (np.diff(mean) >= 0).all()
        assert mean[0] < 0.8
        assert mean[-1] == 1
        assert curve.scores[-1]["mSA"] == 1
        assert curve.scores[0]["mSA"] < 1
        assert (mean[1] == 1) == setting.with_mask


def test_protocol() -> None:
    labels = scene()
    n = np.unique(labels).size - 1
    for setting in SETTINGS:
        oracle, _ = run(labels, rounds=3, settings=[setting])
        point = setting.start == "point"
        assert oracle.calls == [
            {
                "multimask": point and done == 0,
                "points": 2 * done + point,
                "boxes": not point,
                "masks": setting.with_mask and done > 0,
                "n": n,
            }
            for done in range(4)
        ]


def test_batches_hold_all_objects() -> None:
    labels = scene()
    n = np.unique(labels).size - 1
    oracle, curves = run(labels, rounds=1, batch=2, settings=SETTINGS[:1])
    assert [call["n"] for call in oracle.calls[::2]] == [2] * (n // 2) + [1] * (n % 2)
    assert curves[SETTINGS[0]].iou.shape == (2, n)
    assert (curves[SETTINGS[0]].iou > 0).all()


def test_large_image_is_seen_in_windows() -> None:
    labels = scene(150, 210, n=25, bar=130)  # the bar is larger than the network's input
    _, curves = run(labels, rounds=8)
    for curve in curves.values():
        others = curve.ids != 250
        assert (curve.iou[-1][others] == 1).all()
        assert curve.iou[-1][~others] > 0.9  # seen at half the scale
        assert curve.scores[-1]["SA50"] == 1


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_other_scales(scale: float) -> None:
    labels = scene(100, 90, n=12)
    _, curves = run(labels, scale=scale, rounds=8)
    for curve in curves.values():
        assert curve.iou[-1].min() > 0.7  # small discs at half the resolution
        assert curve.iou[-1].mean() > curve.iou[0].mean()


def test_ignored_pixels_are_out_on_both_sides() -> None:
    labels = scene()
    ignore = np.zeros(labels.shape, bool)
    ignore[:, 30:] = True
    _, curves = run(labels, ignore=ignore, rounds=8)
    inside = np.unique(labels[:, :30])
    for curve in curves.values():
        assert curve.ids.tolist() == inside[inside != 0].tolist()
        assert (curve.iou[-1] == 1).all()
        assert curve.scores[-1]["mSA"] == 1


def test_no_object_and_all_object() -> None:
    _, curves = run(np.zeros((20, 20), np.int32), rounds=1)
    assert all(curve.iou.shape == (2, 0) for curve in curves.values())
    assert all(curve.scores[0]["mSA"] == 1 for curve in curves.values())
    _, curves = run(np.full((20, 20), 7, np.int32), rounds=2)
    assert all(curve.ids.tolist() == [7] for curve in curves.values())


def test_seed_decides() -> None:
    labels = scene()
    a, b = (run(labels, seed=3, rounds=2)[1] for _ in range(2))
    assert all(np.array_equal(a[s].iou, b[s].iou) for s in SETTINGS)


def test_refusals() -> None:
    oracle = Oracle()
    with pytest.raises(VolsamError, match="do not match"):
        interact(oracle, np.zeros((4, 4)), np.zeros((4, 5), int))
    oracle.sam = None
    with pytest.raises(VolsamError, match="no prompt encoder"):
        interact(oracle, np.zeros((4, 4)), np.zeros((4, 4), int))


def test_a_small_sam(seeded: Callable[[nn.Module], nn.Module]) -> None:
    encoder = seeded(
        TinyViT(
            image_size=32,
            embed_dims=(8, 16),
            depths=(1, 1),
            num_heads=(1, 2),
            window_sizes=(4, 4),
            stage_strides=(1,),
            neck_channels=16,
        )
    )
    side = encoder.embedding_shape[-1]  # type: ignore[index]
    sam = seeded(build_sam(encoder, 32, width=16, side=side, heads=2, mlp_width=32))
    model = SimpleNamespace(
        image_size=32,
        sam=sam,
        embed=lambda images: encoder(normalise(images, 32)),
    )
    labels = scene(40, 30, n=6)
    curves = interact(model, labels / np.float32(60), labels, rounds=2)
    assert [curve.iou.shape for curve in curves] == [(3, np.unique(labels).size - 1)] * 4
    # The first prediction knows of no mask; later ones differ by it.
    assert np.array_equal(curves[0].iou[0], curves[1].iou[0])
    assert not np.array_equal(curves[0].iou[1:], curves[1].iou[1:])


@pytest.mark.parametrize("shape", [(64, 64), (50, 300), (257, 190)])
def test_windows_contain_their_objects_once(shape: tuple[int, int]) -> None:
    labels = scene(*shape, n=40)
    numbers = np.unique(labels, return_inverse=True)[1].reshape(shape)
    parts = windows(numbers, SIDE)
    ids = np.concatenate([part.ids for part in parts])
    assert sorted(ids) == list(range(1, numbers.max() + 1))
    for part in parts:
        assert max(part.box.shape) <= SIDE
        assert part.scale == 1
        inside = numbers[part.box.slices]
        assert all((inside == k).sum() == (numbers == k).sum() for k in part.ids)
    if shape == (64, 64):
        assert len(parts) == 1
