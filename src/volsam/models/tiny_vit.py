"""TinyViT as an image encoder for SAM, at MobileSAM's size (``vit_t``) and below.

TinyViT (Wu et al., ECCV 2022) is a pyramid: a convolutional stem, one stage of inverted
bottlenecks, then stages of windowed attention with a learned bias per relative offset. MobileSAM
(Zhang et al., 2023) drops the last downsampling and adds SAM's neck; the state dict of ``vit_t()``
here has exactly the keys of its ``image_encoder``. There is no absolute position embedding, so a
model runs on any image size that is a multiple of its stride.

Feature maps stay (n, c, h, w) between blocks, in channels-last memory inside them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvNorm(nn.Sequential):
    """A convolution without bias followed by batch norm, under the names ``c`` and ``bn``."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.add_module(
            "c", nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        )
        self.add_module("bn", nn.BatchNorm2d(outputs))


class PatchEmbed(nn.Module):
    """Two 3x3 convolutions from the image to the first stage."""

    def __init__(self, channels: int, dim: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            ConvNorm(channels, dim // 2, 3, strides[0]),
            nn.GELU(),
            ConvNorm(dim // 2, dim, 3, strides[1]),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.seq(x)


class Bottleneck(nn.Module):
    """Inverted bottleneck: widen, 3x3 depthwise, narrow, add."""

    def __init__(self, dim: int, expand_ratio: float) -> None:
        super().__init__()
        hidden = int(dim * expand_ratio)
        self.conv1 = ConvNorm(dim, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, dim)
        nn.init.zeros_(self.conv3.get_parameter("bn.weight"))  # starts as the identity

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class PatchMerging(nn.Module):
    """Change of width, and of resolution where ``stride`` is 2, between two stages."""

    def __init__(self, dim: int, out_dim: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, out_dim)
        self.conv2 = ConvNorm(out_dim, out_dim, 3, stride, groups=out_dim)
        self.conv3 = ConvNorm(out_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class Attention(nn.Module):
    """Multi-head attention inside one window, with one bias per head and absolute offset."""

    attention_bias_idxs: Tensor

    def __init__(self, dim: int, num_heads: int, window: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window * window))
        y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        y, x = y.flatten(), x.flatten()
        # Offsets are numbered as the first point of a window meets them: row-major in (dy, dx).
        index = (y[:, None] - y).abs() * window + (x[:, None] - x).abs()
        self.register_buffer("attention_bias_idxs", index, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within windows, (windows, tokens, dim) to the same."""
        count, tokens, dim = x.shape
        # Each head owns a contiguous [q, k, v] slice of the projection.
        qkv = self.qkv(self.norm(x)).view(count, tokens, self.num_heads, -1).transpose(1, 2)
        query, key, value = qkv.chunk(3, dim=-1)
        bias = self.attention_biases[:, self.attention_bias_idxs].to(query.dtype)
        x = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(x.transpose(1, 2).reshape(count, tokens, dim))


class Mlp(nn.Module):
    """Normalise, widen, GELU, narrow."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class TinyViTBlock(nn.Module):
    """Windowed attention, a 3x3 depthwise convolution that crosses the windows, and an MLP."""

    def __init__(self, dim: int, num_heads: int, window: int, mlp_ratio: float) -> None:
        super().__init__()
        self.window = window
        self.attn = Attention(dim, num_heads, window)
        self.local_conv = ConvNorm(dim, dim, 3, groups=dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = x + self._attend(x)
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + self.mlp(x)
        return x.permute(0, 3, 1, 2)

    def _attend(self, x: Tensor) -> Tensor:
        """Cut (n, h, w, c) into windows, padded with zeros below and right, and attend in each."""
        n, height, width, dim = x.shape
        side = self.window
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        x = x.view(n, rows, side, columns, side, dim).transpose(2, 3)
        x = self.attn(x.reshape(-1, side * side, dim))
        x = x.view(n, rows, columns, side, side, dim).transpose(2, 3)
        return x.reshape(n, rows * side, columns * side, dim)[:, :height, :width]


class Stage(nn.Module):
    """Blocks at one resolution, then the step to the next."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of (n, c, h, w), as in SAM's neck."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class TinyViT(nn.Module):
    """TinyViT image encoder with SAM's neck; the defaults are MobileSAM's ``vit_t``.

    Parameters
    ----------
    image_size : int
        Side of the square network input in pixels.
    in_channels : int
        Channels of the image.
    embed_dims, depths, num_heads, window_sizes : sequence of int
        Width, number of blocks, attention heads and window side (in tokens) of each stage. Heads
        and window of the first, convolutional stage are ignored.
    patch_strides : (int, int)
        Strides of the two convolutions of the stem.
    stage_strides : sequence of int
        Stride of the step after each stage but the last.
    mlp_ratio, expand_ratio : float
        Widening inside attention blocks and inside the bottlenecks of the first stage.
    neck_channels : int
        Width of the embedding.
    num_classes : int
        Size of the classification head, which the forward pass does not use; MobileSAM's
        checkpoints carry one of 1000. With 0 neither it nor its norm exists.
    """

    def __init__(
        self,
        image_size: int = 1024,
        in_channels: int = 3,
        embed_dims: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (2, 4, 5, 10),
        window_sizes: Sequence[int] = (7, 7, 14, 7),
        patch_strides: Sequence[int] = (2, 2),
        stage_strides: Sequence[int] = (2, 2, 1),
        mlp_ratio: float = 4.0,
        expand_ratio: float = 4.0,
        neck_channels: int = 256,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        stages = len(embed_dims)
        lengths = (len(depths), len(num_heads), len(window_sizes), len(stage_strides) + 1)
        if any(length != stages for length in lengths):
            raise ValueError(f"TinyViT with {stages} widths needs as many settings, got {lengths}")
        self.img_size = image_size  # the name segment_anything's Sam reads
        self.stride = math.prod((*patch_strides, *stage_strides))
        self.out_channels = neck_channels
        self.patch_embed = PatchEmbed(in_channels, embed_dims[0], patch_strides)
        self.layers = nn.ModuleList()
        for index, (dim, depth) in enumerate(zip(embed_dims, depths, strict=True)):
            heads, window = num_heads[index], window_sizes[index]
            blocks = [
                TinyViTBlock(dim, heads, window, mlp_ratio)
                if index
                else Bottleneck(dim, expand_ratio)
                for _ in range(depth)
            ]
            last = index == stages - 1
            step = None if last else PatchMerging(dim, embed_dims[index + 1], stage_strides[index])
            self.layers.append(Stage(blocks, step))
        if num_classes:
            self.norm_head = nn.LayerNorm(embed_dims[-1])
            self.head = nn.Linear(embed_dims[-1], num_classes)
        self.neck = nn.Sequential(
            nn.Conv2d(embed_dims[-1], neck_channels, 1, bias=False),
            LayerNorm2d(neck_channels),
            nn.Conv2d(neck_channels, neck_channels, 3, padding=1, bias=False),
            LayerNorm2d(neck_channels),
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    @property
    def embedding_shape(self) -> tuple[int, int, int]:
        """Shape (channels, height, width) of the embedding of one input of ``img_size``."""
        side = self.img_size // self.stride
        return self.out_channels, side, side

    def forward(self, x: Tensor) -> Tensor:
        """Embed normalised images, (n, in_channels, h, w) to (n, c, h / stride, w / stride)."""
        x = self.patch_embed(x)
        for stage in self.layers:
            x = stage(x)
        return self.neck(x)


def vit_t(**overrides: Any) -> TinyViT:
    """Build MobileSAM's image encoder, with its unused classification head."""
    return TinyViT(**({"num_classes": 1000} | overrides))
