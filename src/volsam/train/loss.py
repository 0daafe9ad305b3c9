"""Losses: of masks from prompts, and of the maps of automatic segmentation."""

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


def mask_losses(logits: Tensor, truth: Tensor, iou: Tensor) -> tuple[Tensor, Tensor]:
    """Losses of masks predicted from prompts, per object.

    Of several masks of an object the best counts; the predicted IoU of every mask is compared with its
    true one (Archit et al. 2025).

    Parameters
    ----------
    logits : (n, k, h, w) float tensor
        k masks of each object.
    truth : (n, h, w) bool tensor
        The objects.
    iou : (n, k) float tensor
        Predicted intersection over union.

    Returns
    -------
    dice : (n,) tensor
        1 - soft Dice of the best mask.
    error : (n,) tensor
        Mean squared error of the predicted IoU.
    """
    probability = logits.sigmoid()
    target = truth[:, None].to(probability.dtype)
    overlap = (probability * target).sum((2, 3))
    total = probability.square().sum((2, 3)) + target.sum((2, 3))
    dice = (1 - 2 * overlap / total.clamp(min=1e-7)).amin(dim=1)
    with torch.no_grad():
        inside, area = logits > 0, truth.sum((1, 2))[:, None]
        common = (inside & truth[:, None]).sum((2, 3))
        union = inside.sum((2, 3)) + area - common
        true_iou = common / union.clamp(min=1)
    return dice, (iou - true_iou).square().mean(dim=1)


def ais_loss(
    logits: Tensor, targets: Tensor, known: Tensor | None = None, *, errors: bool = True
) -> Tensor:
    """Compare predicted and true foreground, centre and boundary distances.

    Dice of each channel, the distances inside of the true foreground only: µSAM's loss. With `errors`
    also the cross-entropy of the foreground and the absolute error of the distances. The latter counts
    in the background with a small weight: AIS smooths the distances, so what is predicted beside an
    object reaches into it.

    Parameters
    ----------
    logits : (n, 3, h, w) tensor
        Output of the decoder before the sigmoid.
    targets : (n, 3, h, w) tensor
        From `volsam.train.targets.distance_targets`.
    known : (n, 1, h, w) tensor, optional
        1 where the truth is known, 0 where it counts nothing.
    errors : bool
        Add the errors.
    """
    logits = logits.float()
    known = torch.ones_like(targets[:, :1]) if known is None else known
    prediction = logits.sigmoid()
    foreground = targets[:, :1] * known
    loss = soft_dice(prediction[:, :1] * known, foreground)
    distances = [(prediction[:, c : c + 1], targets[:, c : c + 1]) for c in (1, 2)]
    for distance, truth in distances:
        loss = loss + soft_dice(distance * foreground, truth * foreground)
    if errors:
        pixels = known.sum().clamp(min=1)
        entropy = F.binary_cross_entropy_with_logits(
            logits[:, :1], targets[:, :1], reduction="none"
        )
        loss = loss + (entropy * known).sum() / pixels
        weight = known * (foreground + BACKGROUND_WEIGHT * (1 - foreground))
        for distance, truth in distances:
            error = weight * (distance - truth).abs()
            loss = loss + 2 * error.sum() / weight.sum().clamp(min=1)
    return loss
