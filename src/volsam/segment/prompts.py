"""Prompts to masks: SAM's prompt encoder and mask decoder on the embedding of one image.

Coordinates are (x, y) in pixels of the network's input. All functions are differentiable and run where
their tensors lie, so training, interactive use and evaluation share them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

POSITIVE, NEGATIVE = 1, 0


@dataclass(frozen=True)
class Prompts:
    """Prompts of n objects of one image; each kind is there for all of them or for none.

    Attributes
    ----------
    points : (n, k, 2) float tensor or None
        Coordinates (x, y).
    labels : (n, k) integer tensor or None
        `POSITIVE` or `NEGATIVE`, one per point.
    boxes : (n, 4) float tensor or None
        Corners (x0, y0, x1, y1).
    masks : (n, 1, m, m) float tensor or None
        Logits of an earlier prediction, in the resolution of `decode`.
    """

    points: Tensor | None = None
    labels: Tensor | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None

    def with_points(self, points: Tensor, labels: Tensor) -> Prompts:
        """The same with further points: (n, j, 2) coordinates, (n, j) labels."""
        if self.points is not None and self.labels is not None:
            points = torch.cat([self.points, points], dim=1)
            labels = torch.cat([self.labels, labels], dim=1)
        return replace(self, points=points, labels=labels)

    def scaled(self, scale: float) -> Prompts:
        """The same in an input of `scale` times as many pixels.

        Points name pixels, whose centres go to centres; boxes are borders of pixels.
        """
        return replace(
            self,
            points=None if self.points is None else (self.points + 0.5) * scale - 0.5,
            boxes=None if self.boxes is None else self.boxes * scale,
        )

    def with_masks(self, masks: Tensor | None) -> Prompts:
        """The same with other mask prompts, or none."""
        return replace(self, masks=masks)


def decode(sam: Any, embedding: Tensor, prompts: Prompts, multimask: bool) -> tuple[Tensor, Tensor]:
    """Predict a mask, or three, for each object.

    Parameters
    ----------
    sam : Module
        With ``prompt_encoder`` and ``mask_decoder`` as segment_anything builds them.
    embedding : (1, c, h, w) tensor
        Of the image; averaged down if the prompt encoder is made for a smaller one.
    prompts : Prompts
        Of n objects.
    multimask : bool
        Predict three masks of different extent, as for one point, which is ambiguous.

    Returns
    -------
    logits : (n, 1 or 3, m, m) tensor
        Above 0 inside, on the whole square input; m is four times the side that the prompt encoder is
        made for.
    iou : (n, 1 or 3) tensor
        Predicted intersection over union with the object.
    """
    side = sam.prompt_encoder.image_embedding_size
    if embedding.shape[-2:] != tuple(side):  # encoders of ours with a small stride
        embedding = F.adaptive_avg_pool2d(embedding, side)
    points = None
    if prompts.points is not None:
        points = (prompts.points.to(embedding.device), _on(prompts.labels, embedding))
    sparse, dense = sam.prompt_encoder(
        points=points, boxes=_on(prompts.boxes, embedding), masks=_on(prompts.masks, embedding)
    )
    logits, iou = sam.mask_decoder(
        image_embeddings=embedding,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=multimask,
    )
    return logits, iou


def upscale(logits: Tensor, image_size: int, shape: tuple[int, int], scale: float = 1.0) -> Tensor:
    """Bring logits to the pixels of the image: (n, k, m, m) to (n, k, height, width).

    Parameters
    ----------
    logits : (n, k, m, m) tensor
        From `decode`.
    image_size : int
        Side of the network's square input.
    shape : (int, int)
        Height and width of the image.
    scale : float
        Pixels of the network's input per pixel of the image.
    """
    logits = F.interpolate(logits, (image_size, image_size), mode="bilinear", align_corners=False)
    height, width = (min(image_size, round(extent * scale)) for extent in shape)
    logits = logits[..., :height, :width]
    if (height, width) == tuple(shape):
        return logits
    return F.interpolate(logits, shape, mode="bilinear", align_corners=False)


def best(logits: Tensor, iou: Tensor) -> Tensor:
    """The mask of highest predicted quality of each object: (n, 1, m, m)."""
    chosen = iou.argmax(dim=1)
    return logits[torch.arange(len(logits), device=logits.device), chosen][:, None]


def _on(tensor: Tensor | None, like: Tensor) -> Tensor | None:
    return None if tensor is None else tensor.to(like.device)
