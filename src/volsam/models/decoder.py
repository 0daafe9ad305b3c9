"""The UNETR decoder for inference on a CPU: same maps up to rounding, less time and memory.

What is done differently from `unetr.UNETR`, all of it algebra that leaves the function unchanged:

- Maps are channels-last, where bilinear interpolation is several times faster.
- A 1x1 convolution commutes with bilinear interpolation and runs before it, on a quarter of the
  pixels.
- Batch norms with fixed statistics are folded into the convolution before them.
- A convolution of concatenated maps is the sum of convolutions of the maps, which are never
  concatenated; each is centred in place, and the scale of the instance norm goes into the weights
  of the convolution (zero padding is the mean of a centred map, so borders agree as well).
- A skip is computed when it is used, so that two maps of full resolution are alive at a time and
  not five.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from volsam.models.unetr import UNETR, BilinearUpsampler

_CHUNK = 2**20  # values that are reduced at a time: 4 MiB, which a cache holds


class FusedDecoder(nn.Module):
    """Inference with a `UNETR`, which gives its parameters away."""

    def __init__(self, unetr: UNETR) -> None:
        super().__init__()
        self.unetr = unetr.eval()
        for layers in _deconvolutions(unetr):
            if isinstance(layers[2], nn.BatchNorm2d):
                layers[1] = fuse_conv_bn_eval(layers[1].block, layers[2])
                layers[2] = nn.Identity()

    def reduce_precision(self, dtype: torch.dtype) -> None:
        """Hold the weights of convolutions in `dtype`."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                module.to(dtype)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Decode embeddings as `UNETR.forward`, one after the other."""
        return torch.cat([self._decode(embedding[None]) for embedding in embeddings])

    def _decode(self, embedding: Tensor) -> Tensor:
        unetr = self.unetr
        dtype = unetr.out_conv.weight.dtype
        skip = embedding.to(dtype, memory_format=torch.channels_last)
        x = _level([skip.clone()], unetr.base)
        for level in range(1, unetr.levels):
            skip = _deconvolve(skip, unetr.get_submodule(f"deconv{level}"))
            x = _upsample(x, unetr.decoder.samplers[level - 1])
            start = (skip.shape[1] - x.shape[1]) // 2
            used = skip[:, start : start + x.shape[1]].clone(memory_format=torch.channels_last)
            parts = [x, used]
            del x, used
            x = _level(parts, unetr.decoder.blocks[level - 1])
        skip = _deconvolve(skip, unetr.get_submodule(f"deconv{unetr.levels}"))
        x = _upsample(x, unetr.deconv_out)
        parts = [x, skip]
        del x, skip
        x = _level(parts, unetr.decoder_head)
        return torch.sigmoid(unetr.out_conv(x).float()).contiguous()


def use_tile_statistics(unetr: UNETR) -> None:
    """Normalise by the mean and variance of the tile, not by those of the training.

    micro-sam never switches its decoder to evaluation, so that its batch norms take the statistics
    of what they are given, one tile; its published figures and thresholds come from that. The
    convolution under a norm may then keep its bias, which the norm takes away again.
    """
    for layers in _deconvolutions(unetr):
        batch = layers[2]
        layers[2] = nn.InstanceNorm2d(batch.num_features, batch.eps, affine=True)
        layers[2].load_state_dict({"weight": batch.weight, "bias": batch.bias})


def _deconvolutions(unetr: UNETR) -> list[Any]:
    levels: list[Any] = [
        unetr.get_submodule(f"deconv{level}") for level in range(1, unetr.levels + 1)
    ]
    return [level.block for level in levels]


def _upsample(x: Tensor, sampler: Any) -> Tensor:
    if isinstance(sampler, BilinearUpsampler):
        x = F.interpolate(sampler.conv(x), scale_factor=2, mode="bilinear")
    else:
        x = sampler(x)
    return x


def _deconvolve(x: Tensor, block: Any) -> Tensor:
    sampler, convolution, norm, _ = block.block
    x = convolution(_upsample(x, sampler))
    if isinstance(norm, nn.InstanceNorm2d):
        scale = _centre(x, norm, slice(None)) * norm.weight[:, None, None].to(x.dtype)
        x.mul_(scale).add_(norm.bias[:, None, None].to(x.dtype))
    return x.relu_()


def _level(parts: list[Tensor], block: Any) -> Tensor:
    """Two rounds of norm, convolution and ReLU on maps that count as one; empties `parts`."""
    norm1, conv1, _, norm2, conv2, _ = block.block
    out: Tensor | None = None
    start = 0
    while parts:
        part = parts.pop(0)
        channels = slice(start, start + part.shape[1])
        start = channels.stop
        scale = _centre(part, norm1, channels)
        bias = conv1.bias if out is None else None
        term = F.conv2d(part, conv1.weight[:, channels] * scale, bias, padding=1)
        del part
        out = term if out is None else out.add_(term)
        del term
    assert out is not None
    x = out.relu_()
    del out
    scale = _centre(x, norm2, slice(None))
    return F.conv2d(x, conv2.weight * scale, conv2.bias, padding=1).relu_()


def _centre(x: Tensor, norm: Any, channels: slice) -> Tensor:
    """Normalise (1, c, h, w) in place, up to a factor per channel that is returned: (c, 1, 1)."""
    if norm.track_running_stats:  # batch norm
        scale = norm.weight[channels] * (norm.running_var[channels] + norm.eps).rsqrt()
        shift = norm.bias[channels] - norm.running_mean[channels] * scale
        x.mul_(scale[:, None, None].to(x.dtype)).add_(shift[:, None, None].to(x.dtype))
        return torch.ones_like(scale[:, None, None], dtype=x.dtype)
    count = x.shape[2] * x.shape[3]
    rows = x.split(max(1, _CHUNK // (x.shape[1] * x.shape[3])), dim=2)
    mean = torch.stack([_total(part) for part in rows]).sum(0) / count
    square = torch.zeros_like(mean)
    for part in rows:
        part.sub_(mean[:, None, None].to(x.dtype))
        square += _total(part.float().square())
    return (square / count + norm.eps).rsqrt()[:, None, None].to(x.dtype)


def _total(x: Tensor) -> Tensor:
    """Sum (1, c, h, w) over pixels; chunks are added up in double precision."""
    return x.sum((0, 2, 3), dtype=torch.float32).double()
