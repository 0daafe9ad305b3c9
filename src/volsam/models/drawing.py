"""Boxes and points drawn as a mask prompt, for small models of our own.

SAM learns what a box or a point means through attention alone, which takes millions of images. In a model
described by ``prompts: {drawn: true}`` they are drawn as well, as was usual in interactive segmentation
before SAM (disks: Sofiiuk, Petrov & Konushin 2021, https://arxiv.org/abs/2102.06583): alone where no mask
prompt is given, and points over the mask where there is one, so that a correction stands out of what it
corrects.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

LEVEL = 4.0  # logit inside of a box, of opposite sign outside; twice as much at a point
RADIUS = 1.5  # standard deviation of a point, pixels of the drawing


def draw(
    points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, side: int, scale: float
) -> Tensor:
    """Draw the prompts of n objects.

    Parameters
    ----------
    points : ((n, k, 2) tensor, (n, k) tensor) or None
        Coordinates (x, y) in pixels of the network's input, (0, 0) the centre of the first; labels 1
        for inside, 0 for outside, -1 for none.
    boxes : (n, 4) tensor or None
        Corners (x0, y0, x1, y1), borders of pixels; at least one of both is there.
    side : int
        Side of the drawing.
    scale : float
        Its pixels per pixel of the network's input.

    Returns
    -------
    (n, 1, side, side) float32 tensor
        0 where nothing is said.
    """
    given = boxes if boxes is not None else points[0] if points is not None else None
    assert given is not None
    centres = torch.arange(side, device=given.device) + 0.5
    drawing = torch.zeros(len(given), side, side, device=given.device)
    if boxes is not None:
        x0, y0, x1, y1 = (boxes.float() * scale)[:, :, None].unbind(1)
        # The share of each pixel that a box covers along an axis.
        across = torch.minimum(centres - x0, x1 - centres).clamp(-0.5, 0.5) + 0.5
        down = torch.minimum(centres - y0, y1 - centres).clamp(-0.5, 0.5) + 0.5
        drawing += LEVEL * (2 * down[:, :, None] * across[:, None, :] - 1)
    if points is not None:
        places, labels = (points[0].float() + 0.5) * scale, points[1]
        x, y = (
            torch.exp(-((centres - places[..., i, None]) ** 2) / (2 * RADIUS**2)) for i in (0, 1)
        )
        sign = (labels == 1).float() - (labels == 0).float()
        drawing += 2 * LEVEL * torch.einsum("nky,nkx,nk->nyx", y, x, sign)
    return drawing[:, None]


@cache
def drawing_encoder(parts: ModuleType) -> type[Any]:
    """SAM's prompt encoder which also draws; `parts` is ``segment_anything.modeling``."""

    class DrawingPromptEncoder(parts.PromptEncoder):  # type: ignore[name-defined]
        def forward(
            self,
            points: tuple[Tensor, Tensor] | None,
            boxes: Tensor | None,
            masks: Tensor | None,
        ) -> tuple[Tensor, Tensor]:
            side = self.mask_input_size[0]
            scale = side / self.input_image_size[0]
            if masks is None and (points is not None or boxes is not None):
                masks = draw(points, boxes, side, scale)
            elif masks is not None and points is not None:
                # As strong as a drawn box at most, so that a point turns it over.
                masks = masks.clamp(-LEVEL, LEVEL) + draw(points, None, side, scale)
            sparse, dense = super().forward(points, boxes, masks)
            return sparse, dense

    return DrawingPromptEncoder
