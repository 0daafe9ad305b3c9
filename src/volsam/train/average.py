"""Moving averages of weights, and the shape of a learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def calibrate(
    network: nn.Module, batches: Iterable[Tensor], forward: Callable[[Tensor], Any] | None = None
) -> None:
    """Set the statistics of all trained batch norms to those of `batches`, and evaluation mode.

    Averaged weights need statistics of their own: an average of the statistics met in training
    belongs to none of the networks (Izmailov et al., UAI 2018).

    Parameters
    ----------
    network : Module
        Changed in place.
    batches : iterable of tensor
        Inputs.
    forward : callable
        What to call with them; the network itself by default.
    """
    norms = [
        module
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d) and module.weight.requires_grad
    ]
    batches = list(batches)
    if not norms or not batches:
        network.eval()
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    device = next(network.parameters()).device
    network.eval()  # norms that are not trained keep their statistics
    for norm in norms:
        norm.train()
    for images in batches:
        (forward or network)(images.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def one_cycle(progress: float, warmup: float) -> float:
    """Give the learning rate, relative to its maximum: linear rise, then half a cosine to zero."""
    if progress < warmup:
        return 0.02 + 0.98 * progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
