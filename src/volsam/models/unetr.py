"""The convolutional decoder of a UNETR: from an image embedding to maps at full resolution.

State dict and arithmetic are those of torch_em's ``UNETR`` without skip connections to the encoder
(Archit et al., Nature Methods 2025), so decoders trained with micro-sam load and give the same maps.
Two paths climb from the embedding in steps of two: a chain of ``deconv`` blocks, whose levels serve
as skips, and the U-Net decoder that uses them.

Invariant: from each skip only the *middle* channels are used, as many as the upsampled map has;
trained weights rely on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["instance", "batch"]


class BilinearUpsampler(nn.Module):
    """Twice as large by bilinear interpolation, and a 1x1 convolution.

    torch_em convolves after the interpolation. Both are linear and the weights of the interpolation
    sum to one, so the order does not matter, and before it there are four times fewer pixels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.conv(x), scale_factor=2, mode="bilinear", align_corners=False)


class TransposedUpsampler(nn.Module):
    """Twice as large by a transposed 2x2 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.block = nn.ConvTranspose2d(inputs, outputs, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class Convolution(nn.Module):
    """A 3x3 convolution under the name ``block``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.block = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class DeconvBlock(nn.Module):
    """Upsample, convolve, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, upsampler: type[nn.Module]) -> None:
        super().__init__()
        self.block = nn.Sequential(
            upsampler(inputs, outputs),
            Convolution(outputs, outputs),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class ConvBlock(nn.Module):
    """Twice: norm, 3x3 convolution, ReLU."""

    def __init__(self, inputs: int, outputs: int, norm: Norm) -> None:
        super().__init__()
        normalise = nn.BatchNorm2d if norm == "batch" else nn.InstanceNorm2d
        self.block = nn.Sequential(
            normalise(inputs),
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.ReLU(inplace=True),
            normalise(outputs),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class Decoder(nn.Module):
    """The levels of the U-Net between the coarsest map and the finest skip."""

    def __init__(self, features: Sequence[int], upsampler: type[nn.Module], norm: Norm) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ConvBlock(a, b, norm) for a, b in pairwise(features))
        self.samplers = nn.ModuleList(upsampler(a, b) for a, b in pairwise(features))

    def forward(self, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
        for block, sampler, skip in zip(self.blocks, self.samplers, skips, strict=True):
            x = sampler(x)
            start = (skip.shape[1] - x.shape[1]) // 2
            x = block(torch.cat([x, skip[:, start : start + x.shape[1]]], dim=1))
        return x


class UNETR(nn.Module):
    """Decoder from an embedding to foreground, centre distance and boundary distance.

    Parameters
    ----------
    embed_dim : int
        Channels of the embedding.
    features : sequence of int
        Channels per level, coarse to fine, each half of the one before. Their number is log2 of
        the stride of the encoder.
    out_channels : int
        Number of maps.
    norm : {"instance", "batch"}
        Normalisation in the U-Net levels. "instance" is torch_em's; it makes a prediction depend
        on all that is in the tile. "batch" does not.
    transposed : bool
        Upsample by transposed convolutions instead of bilinear interpolation.
    """

    def __init__(
        self,
        embed_dim: int = 256,
        features: Sequence[int] = (512, 256, 128, 64),
        out_channels: int = 3,
        norm: Norm = "instance",
        transposed: bool = False,
    ) -> None:
        super().__init__()
        if any(a != 2 * b for a, b in pairwise(features)):
            raise ValueError(f"features must halve from level to level, got {tuple(features)}")
        upsampler = TransposedUpsampler if transposed else BilinearUpsampler
        self.levels = len(features)
        for level, (a, b) in enumerate(pairwise((embed_dim, *features)), start=1):
            self.add_module(f"deconv{level}", DeconvBlock(a, b, upsampler))
        self.base = ConvBlock(embed_dim, features[0], norm)
        self.decoder = Decoder(features, upsampler, norm)
        self.deconv_out = upsampler(features[-1], features[-1])
        self.decoder_head = ConvBlock(2 * features[-1], features[-1], norm)
        self.out_conv = nn.Conv2d(features[-1], out_channels, 1)

    def forward(self, embedding: Tensor) -> Tensor:
        """Decode embeddings, (n, embed_dim, h, w) to (n, out_channels, h * stride, w * stride).

        The maps are sigmoids in 0..1.
        """
        return torch.sigmoid(self.logits(embedding))

    def logits(self, embedding: Tensor) -> Tensor:
        """Decode embeddings as `forward` does, without the sigmoid."""
        skips = []
        skip = embedding
        for level in range(1, self.levels + 1):
            skip = self.get_submodule(f"deconv{level}")(skip)
            skips.append(skip)
        x = self.decoder(self.base(embedding), skips[:-1])
        x = torch.cat([self.deconv_out(x), skips[-1]], dim=1)
        return self.out_conv(self.decoder_head(x))


def is_transposed(state: Mapping[str, Tensor]) -> bool:
    """Tell from the keys of a decoder whether it upsamples by transposed convolutions."""
    return any(key.startswith("decoder.samplers") and ".block." in key for key in state)
