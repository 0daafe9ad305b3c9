"""The network that a BioImage.IO package runs: from an image to the maps of AIS.

Shipped in every package (see `architecture`), so it uses torch, the encoder and the decoder only. Keys
of its state are ``image_encoder.*`` and ``decoder.*``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from volsam.models.tiny_vit import TinyViT
from volsam.models.unetr import UNETR


class AisNetwork(nn.Module):
    """Image encoder and decoder for automatic instance segmentation (AIS).

    Parameters
    ----------
    image_encoder : Module
        Takes images (n, 3, h, w) by SAM's mean and deviation.
    decoder : Module
        Takes the embeddings.
    tile_statistics : bool
        Batch norms of the decoder take the statistics of the one image, as micro-sam's do.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, image_encoder: nn.Module, decoder: nn.Module, tile_statistics: bool = False
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.decoder = decoder
        mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        if tile_statistics:
            for module in decoder.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.__class__ = TileNorm

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, 1 or 3, h, w) in 0..255 to maps (n, 3, h, w) in 0..1.

        Foreground, distance to the centre, distance to the boundary.
        """
        images = (images.expand(-1, 3, -1, -1) - self.mean) / self.std
        return self.decoder(self.image_encoder(images))


class TileNorm(nn.BatchNorm2d):
    """A batch norm that normalises each image by itself and ignores its running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


def tiny_vit_network(
    encoder: dict[str, Any], decoder: dict[str, Any], tile_statistics: bool = False
) -> AisNetwork:
    """Build the network with random weights from arguments of `TinyViT` and `UNETR`."""
    return AisNetwork(TinyViT(**encoder), UNETR(**decoder), tile_statistics)
