"""The loss of the AIS decoder."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

BACKGROUND_WEIGHT = 0.2


def soft_dice(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute one minus the soft Dice coefficient over all pixels of a batch.

    The denominator is that of V-Net (squares), so the loss is 0 for equal soft maps.
    """
    overlap = (prediction * target).sum()
    return 1 - 2 * overlap / (prediction.square().sum() + target.square().sum()).clamp(min=1e-6)


def ais_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Compare predicted and true foreground, centre and boundary distances.

    Dice of each channel, the distances inside of the true foreground only (micro-sam's loss), plus
    cross-entropy of the foreground and the absolute error of the distances. The latter counts in
    the background with a small weight: AIS smooths the distances, so what is predicted beside an
    object reaches into it.

    Parameters
    ----------
    logits : (n, 3, h, w) tensor
        Output of the decoder before the sigmoid.
    targets : (n, 3, h, w) tensor
        From `volsam.train.targets.distance_targets`.
    """
    logits = logits.float()
    prediction = logits.sigmoid()
    foreground = targets[:, :1]
    loss = soft_dice(prediction[:, :1], foreground)
    loss = loss + F.binary_cross_entropy_with_logits(logits[:, :1], foreground)
    weight = foreground + BACKGROUND_WEIGHT * (1 - foreground)
    for channel in (slice(1, 2), slice(2, 3)):
        distance, truth = prediction[:, channel], targets[:, channel]
        loss = loss + soft_dice(distance * foreground, truth * foreground)
        error = (weight * (distance - truth).abs()).sum() / weight.sum()
        loss = loss + 2 * error
    return torch.nan_to_num(loss)
