"""Layers for training: parameters, keys and gradients of the stock ones, less time and memory on a CPU.

Invariants
----------
- The attention matrix of a layer that sees all tokens is never whole in memory: some rows at a time, and
  again in the backward pass (as FlashAttention, Dao et al. 2022).
- Elsewhere than on a CPU layers compute as torch's; under autocast linear layers and windows do, and
  attention to all tokens in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from volsam.models.attention import FusedAttention, attend
from volsam.models.linear import product, sharing

_QUERIES = 256  # rows of the attention matrix at a time: with 4096 keys 4 MiB, which a cache holds


def prepare_encoder(encoder: Any) -> None:
    """Give a stock ``ImageEncoderViT`` faster layers, in place; parameters keep their names."""
    for block in encoder.blocks:
        block.attn = TrainedAttention(block.attn, block.window_size)
        block.window_size = 0  # the attention cuts its windows itself
        for parent, name in (
            (block.attn, "qkv"),
            (block.attn, "proj"),
            (block.mlp, "lin1"),
            (block.mlp, "lin2"),
        ):
            setattr(parent, name, sharing(TrainedLinear, getattr(parent, name)))


def prepare_decoder(decoder: nn.Module) -> None:
    """Give a decoder instance norms whose gradient is right in every memory format, in place."""
    for parent in list(decoder.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.InstanceNorm2d:
                setattr(parent, name, sharing(TrainedInstanceNorm, child))


class TrainedInstanceNorm(nn.InstanceNorm2d):
    """An instance norm that may stand before a channels-last convolution.

    torch 2.13 on a CPU returns a wrong gradient for a single image where the gradient that arrives is
    channels-last. (A batch norm of the one image is right, but sums up a million pixels less exactly.)
    """

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if y.requires_grad:
            y.register_hook(torch.Tensor.contiguous)
        return y


class TrainedLinear(nn.Linear):
    """A linear layer whose products, also those of its gradient, are oneDNN's on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return F.linear(x, self.weight, self.bias)
        result: Tensor = _Linear.apply(x, self.weight, self.bias)
        return result


class TrainedAttention(FusedAttention):
    """Attention with relative positions of which gradients are taken."""

    def forward(self, x: Tensor) -> Tensor:
        """Attend, (n, h, w, c) to the same."""
        if self.window or x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        n, h, w, _ = x.shape
        qkv = self.qkv(x).float().view(n, h, w, 3, self.num_heads, -1).permute(3, 0, 4, 1, 2, 5)
        query, key, value = qkv.contiguous().unbind(0)
        high, wide = self._bias(query)
        out: Tensor = _Attend.apply(query, key, value, self.scale, high, wide)
        out = out.view(n, self.num_heads, h, w, -1).permute(0, 2, 3, 1, 4).reshape(n, h, w, -1)
        projected: Tensor = self.proj(out)
        return projected


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        to_x = product(gradient, weight.t().contiguous()) if need_x else None
        to_weight = None
        if need_weight:
            to_weight = product(rows.t().contiguous(), x.flatten(0, -2).t().contiguous())
        return to_x, to_weight, rows.sum(0) if need_bias else None


class _Attend(torch.autograd.Function):
    """`volsam.models.attention.attend` with its gradient."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        high: Tensor,
        wide: Tensor,
    ) -> Tensor:
        out = attend(query, key, value, scale, high, wide)
        ctx.save_for_backward(query, key, value, high, wide, out)
        ctx.scale = scale
        return out

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved = (*ctx.saved_tensors, gradient)
        query, high, wide = saved[0], saved[3], saved[4]
        found = [torch.empty_like(t) for t in (query, query, query, high, wide)]
        for image in range(query.shape[0]):
            for head in range(query.shape[1]):
                parts = _head_gradients(ctx.scale, *(t[image, head] for t in saved))
                for whole, part in zip(found, parts, strict=True):
                    whole[image, head] = part.reshape(whole.shape[2:])
        return found[0], found[1], found[2], None, found[3], found[4]


def _head_gradients(
    scale: float,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    high: Tensor,
    wide: Tensor,
    out: Tensor,
    gradient: Tensor,
) -> tuple[Tensor, ...]:
    """Gradients of query, key, value and both biases of one head from that of what it put out.

    All are (tokens, channels), in the shapes of `attend` but for the grid.
    """
    h, w, channels = query.shape
    tokens = h * w
    q, k, v = (t.reshape(tokens, channels) for t in (query * scale, key, value))
    high, wide = high.reshape(tokens, h, 1), wide.reshape(tokens, 1, w)
    across = k.t().contiguous()
    to_q, to_high, to_wide = torch.empty_like(q), q.new_empty(tokens, h), q.new_empty(tokens, w)
    to_k, to_v = torch.zeros_like(across), torch.zeros_like(across)
    shift = (gradient * out).sum(1, keepdim=True)
    for start in range(0, tokens, _QUERIES):
        rows = slice(start, start + _QUERIES)
        weights = product(q[rows], k)
        grid = weights.view(-1, h, w)
        grid += high[rows]
        grid += wide[rows]
        torch.softmax(weights, -1, out=weights)
        to_v += product(gradient[rows].t().contiguous(), weights.t())
        slope = product(gradient[rows], v)
        slope -= shift[rows]
        slope *= weights
        grid = slope.view(-1, h, w)
        to_high[rows], to_wide[rows] = grid.sum(2), grid.sum(1)
        to_q[rows] = product(slope, across)
        to_k += product(q[rows].t().contiguous(), slope.t())
    return to_q * scale, to_k.t(), to_v.t(), to_high, to_wide
