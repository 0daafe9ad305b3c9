"""The joint method: prompts, rounds and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from volsam.models.model import load_model
from volsam.segment.prompts import Prompts
from volsam.train.joint import JointNetwork, Prompting, automatic_step, build, prompt_step
from volsam.train.loss import ais_loss, mask_losses
from volsam.train.targets import distance_targets


@pytest.fixture
def network(parent: str) -> JointNetwork:
    return build(parent).eval()


def batch() -> tuple[Tensor, list[Tensor]]:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    truth = torch.zeros(3, 64, 64, dtype=torch.bool)
    truth[0, 5:20, 5:20] = truth[1, 30:50, 10:30] = truth[2, 40:60, 40:60] = True
    return images, [truth, truth[:1]]


class Recorded(Prompting):
    """Remembers what was asked."""

    def __init__(self, *arguments: float) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.seen: list[Prompts] = []

    def start(self, truth: Tensor, box: bool, rng: np.random.Generator) -> Prompts:
        self.seen.append(super().start(truth, box, rng))
        return self.seen[-1]

    def correct(self, *arguments: object) -> Prompts:
        self.seen.append(super().correct(*arguments))  # type: ignore[arg-type]
        return self.seen[-1]


def gradients(network: JointNetwork) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}


def test_gradient_is_that_of_the_mean_loss(network: JointNetwork) -> None:
    """Round by round and in chunks of objects: the gradient of one graph over everything."""
    images, truths = batch()
    prompting = Recorded(3, 0.5, 0.0)
    prompting.chunk = 2
    found = prompt_step(
        network, images, truths, False, prompting, np.random.default_rng(0), lambda x: x.backward()
    )
    ours = gradients(network)
    network.zero_grad()
    embeddings = network.embed(images)
    seen = iter(prompting.seen)
    total = torch.zeros(())
    for embedding, truth in zip(embeddings.split(1), truths, strict=True):
        for turn in range(3):
            logits, _, iou = network.masks(embedding, next(seen), turn == 0, (64, 64))
            dice, error = mask_losses(logits, truth, iou)
            total = total + (dice.mean() + error.mean()) / 6
    total.backward()
    assert found["dice"] + found["iou"] == pytest.approx(float(total.detach()), abs=1e-5)
    theirs = gradients(network)
    assert ours.keys() == theirs.keys()
    assert any(name.startswith("image_encoder") for name in ours)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], atol=2e-5, rtol=1e-3)


def test_rounds_add_points_and_sometimes_masks(network: JointNetwork) -> None:
    images, truths = batch()
    always, never = Recorded(4, 1.0, 0.0), Recorded(4, 0.0, 0.0)
    for prompting in (always, never):
        prompt_step(network, images[:1], truths[:1], True, prompting, np.random.default_rng(0))
    points = [0 if p.points is None else p.points.shape[1] for p in always.seen]
    assert points == [0, 2, 4, 6]
    assert all(p.boxes is not None for p in always.seen)
    assert [p.masks is not None for p in always.seen] == [False, True, True, True]
    assert all(p.masks is None for p in never.seen)


def test_an_image_without_objects_counts_nothing(network: JointNetwork) -> None:
    images, truths = batch()
    none = truths[0][:0]
    rng = np.random.default_rng
    both = prompt_step(network, images, [truths[0], none], False, Prompting(2), rng(0))
    alone = prompt_step(network, images[:1], truths[:1], False, Prompting(2), rng(0))
    assert both == pytest.approx(alone, abs=1e-5)
    assert prompt_step(network, images[:1], [none], False, Prompting(2), rng(0))["dice"] == 0


def test_mask_losses_take_the_best_of_several() -> None:
    truth = torch.zeros(1, 8, 8, dtype=torch.bool)
    truth[0, :4] = True
    right = torch.where(truth, 20.0, -20.0)[:, None]
    dice, error = mask_losses(torch.cat([-right, right], 1), truth, torch.tensor([[0.0, 1.0]]))
    assert dice.item() == pytest.approx(0, abs=1e-4)
    assert error.item() == pytest.approx(0, abs=1e-6)


def test_what_is_not_known_has_no_gradient() -> None:
    labels = np.zeros((32, 32), np.int32)
    labels[4:12, 4:12] = 1
    targets = torch.from_numpy(distance_targets(labels))[None]
    known = torch.ones(1, 1, 32, 32)
    known[..., 16:] = 0
    logits = torch.randn(1, 3, 32, 32, requires_grad=True)
    ais_loss(logits, targets, known).backward()
    assert logits.grad is not None
    assert not logits.grad[..., 16:].any()
    assert logits.grad[..., :16].any()


def test_automatic_step_reaches_encoder_and_decoder(network: JointNetwork) -> None:
    images, _ = batch()
    targets = torch.from_numpy(distance_targets(np.eye(64, dtype=np.int32)))[None].repeat(
        2, 1, 1, 1
    )
    known = torch.ones(2, 1, 64, 64)
    automatic_step(network, images, targets, known, False, lambda x: x.backward())
    parts = {name.split(".")[0] for name in gradients(network)}
    assert parts == {"image_encoder", "decoder"}


def test_same_maps_as_in_inference(network: JointNetwork, parent: str) -> None:
    images, _ = batch()
    model = load_model(parent)
    with torch.no_grad():
        ours = network.maps(images).sigmoid()
    torch.testing.assert_close(ours, model.decode(model.embed(images)), atol=1e-4, rtol=1e-3)


def test_scale_resizes_images_and_prompts(parent: str) -> None:
    """Images of half the size at scale 2 give maps and masks of their own pixels."""
    network = build(parent, scale=2.0).eval()
    images, _ = batch()
    small, truth = images[..., :32, :32], torch.zeros(1, 32, 32, dtype=torch.bool)
    truth[0, 5:20, 5:20] = True
    with torch.no_grad():
        assert network.maps(small).shape == (2, 3, 32, 32)
    found = prompt_step(network, small[:1], [truth], False, Prompting(2), np.random.default_rng(0))
    assert 0 < found["dice"] <= 1


def test_prompts_are_scaled_as_in_evaluation(
    network: JointNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Centres of pixels go to centres, borders to borders."""
    seen: list[Prompts] = []
    masks = JointNetwork.masks

    def spy(self: JointNetwork, embedding: Tensor, prompts: Prompts, *rest: Any) -> Any:
        seen.append(prompts)
        return masks(self, embedding, prompts, *rest)

    monkeypatch.setattr(JointNetwork, "masks", spy)
    network.scale = 2.0
    truth = torch.zeros(1, 32, 32, dtype=torch.bool)
    truth[0, 5, 9] = True
    for box in (False, True):
        prompting = Prompting(1, box_distortion=0.0)
        rng = np.random.default_rng(0)
        prompt_step(network, torch.zeros(1, 3, 32, 32), [truth], box, prompting, rng)
    point, box_ = seen[0].points, seen[1].boxes
    assert point is not None
    assert box_ is not None
    assert point.tolist() == [[[18.5, 10.5]]]
    assert box_.tolist() == [[18, 10, 20, 12]]
