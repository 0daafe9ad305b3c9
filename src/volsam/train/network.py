"""The network that is trained: image encoder and AIS decoder, with the weights' names in files."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from volsam.models.tiny_vit import TinyViT
from volsam.models.unetr import UNETR
from volsam.train.plain_unet import PlainUNet
from volsam.train.recipe import TrainRecipe

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


class AisNetwork(nn.Module):
    """Encoder and decoder in one; the keys start with ``image_encoder.`` and ``decoder.``.

    Parameters
    ----------
    encoder, decoder : dict
        Arguments of `TinyViT` and of `UNETR`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: dict[str, Any], decoder: dict[str, Any]) -> None:
        super().__init__()
        self.image_encoder = TinyViT(**encoder)
        self.decoder = UNETR(**decoder)
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, 3, h, w) in 0..255 to logits of the AIS maps, (n, 3, h, w)."""
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return self.decoder.logits(self.image_encoder(images))


def build_network(recipe: TrainRecipe) -> nn.Module:
    """Build the network a recipe asks for, with random weights."""
    if recipe.plain_unet:
        return PlainUNet(recipe.plain_unet)
    return AisNetwork(recipe.encoder, recipe.decoder)
