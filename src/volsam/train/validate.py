"""The metric that stops a training and chooses its best weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from volsam.train.crops import Crop
from volsam.train.joint import JointNetwork, Prompting, automatic_step, prompt_step
from volsam.train.settings import Train


@torch.no_grad()
def validate(
    network: JointNetwork, crops: Sequence[Crop], settings: Train, prompting: Prompting
) -> tuple[float, float]:
    """Mean prompt loss (1 - Dice) and mean AIS loss over crops; starts alternate point and box."""
    device = next(network.parameters()).device
    network.eval()
    single = Prompting(1, 0.0, prompting.box_distortion, prompting.chunk)
    dice, automatic = [], []
    for number, crop in enumerate(crops):
        rng = np.random.default_rng((settings.seed, number))
        image = crop.image[None].to(device)
        truth = crop.objects(25, rng)
        if settings.parts != "automatic" and len(truth):
            found = prompt_step(network, image, [truth], number % 2 == 1, single, rng)
            dice.append(found["dice"])
        if settings.parts != "prompts":
            automatic.append(
                automatic_step(network, image, crop.targets[None], crop.known[None], False)
            )
    return float(np.mean(dice or 0.0)), float(np.mean(automatic or 0.0))


def learn(network: JointNetwork) -> None:
    """Training mode, but for norms that are not trained: these keep their statistics."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()


def finite(network: nn.Module) -> bool:
    """Whether all weights are numbers."""
    return all(bool(torch.isfinite(value).all()) for value in network.state_dict().values())
