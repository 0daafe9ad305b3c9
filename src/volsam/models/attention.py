"""SAM's ViT encoder for inference: same parameters and keys, less time and memory.

Differences to segment_anything's modules, none of which changes a result beyond rounding:

- The attention matrix with its decomposed relative-position bias is never whole in memory on a
  CPU; on a GPU the fused kernel of torch takes the bias as its mask.
- Windows are cut after the projection to queries, keys and values: padding is not projected.
- Only matrix products and convolutions run in reduced precision: the residual stream, norms and
  the softmax on a CPU stay float32.
- Images are independent of each other; on a CPU the caller passes one at a time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from volsam.models.linear import product

_QUERIES = 256  # rows of the attention matrix at a time: with 4096 keys 4 MiB, which caches hold


class FusedAttention(nn.Module):
    """Multi-head attention with decomposed relative positions, from a stock ``Attention``.

    Parameters
    ----------
    stock : segment_anything.modeling.image_encoder.Attention
        Gives its parameters away.
    window : int
        Side of the attention windows in tokens; 0 attends to all tokens.
    """

    def __init__(self, stock: Any, window: int) -> None:
        super().__init__()
        self.num_heads: int = stock.num_heads
        self.scale: float = stock.scale
        self.window = window
        self.qkv, self.proj = stock.qkv, stock.proj
        self.use_rel_pos: bool = stock.use_rel_pos
        if self.use_rel_pos:
            self.rel_pos_h, self.rel_pos_w = stock.rel_pos_h, stock.rel_pos_w

    def forward(self, x: Tensor) -> Tensor:
        """Attend, (n, h, w, c) to the same, in the type of the weights."""
        n, height, width, _ = x.shape
        qkv = self.qkv(x)
        if self.window:
            qkv = self._cut(qkv)
        batch, h, w, _ = qkv.shape
        # (3, batch, heads, h, w, channels of a head)
        qkv = qkv.view(batch, h, w, 3, self.num_heads, -1).permute(3, 0, 4, 1, 2, 5)
        query, key, value = qkv.contiguous().unbind(0)
        out = attend(query, key, value, self.scale, *self._bias(query))
        out = out.view(batch, self.num_heads, h, w, -1).permute(0, 2, 3, 1, 4)
        out = out.reshape(batch, h, w, -1)
        if self.window:
            out = self._join(out, n, height, width)
        projected: Tensor = self.proj(out)
        return projected

    def _bias(self, query: Tensor) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Bias for the row and for the column of a key; shapes as in `attend`."""
        if not self.use_rel_pos:
            return None, None
        height, width = query.shape[2:4]
        if query.device.type == "cpu":
            query = query.float()
        rows = _relative(self.rel_pos_h, height).to(query.dtype)
        columns = _relative(self.rel_pos_w, width).to(query.dtype)
        return (
            torch.einsum("bnhwc,hkc->bnhwk", query, rows),
            torch.einsum("bnhwc,wkc->bnhwk", query, columns),
        )

    def _cut(self, qkv: Tensor) -> Tensor:
        """Cut (n, h, w, c) into (windows, side, side, c); a padding token is a projected zero."""
        n, height, width, channels = qkv.shape
        side = self.window
        rows, columns = -(-height // side), -(-width // side)
        if (rows * side, columns * side) != (height, width):
            bias = self.qkv.bias if self.qkv.bias is not None else qkv.new_zeros(channels)
            padded = qkv.new_empty(n, rows * side, columns * side, channels)
            padded[:, height:] = bias
            padded[:, :height, width:] = bias
            padded[:, :height, :width] = qkv
            qkv = padded
        qkv = qkv.view(n, rows, side, columns, side, channels).transpose(2, 3)
        return qkv.reshape(-1, side, side, channels)

    def _join(self, x: Tensor, n: int, height: int, width: int) -> Tensor:
        """Inverse of `_cut`, without the padding."""
        side = self.window
        rows, columns = -(-height // side), -(-width // side)
        x = x.view(n, rows, columns, side, side, -1).transpose(2, 3)
        return x.reshape(n, rows * side, columns * side, -1)[:, :height, :width]


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    bias_h: Tensor | None,
    bias_w: Tensor | None,
) -> Tensor:
    """Attention on a grid of tokens.

    Parameters
    ----------
    query, key, value : (batch, heads, h, w, c) tensors
        Contiguous.
    scale : float
        Factor of the products of queries and keys.
    bias_h, bias_w : (batch, heads, h, w, h) and (batch, heads, h, w, w) tensors or None
        What is added for a key's row and for its column; on a CPU float32 with any type of queries.

    Returns
    -------
    (batch, heads, h * w, c) tensor
    """
    *outer, h, w, channels = query.shape
    tokens = h * w
    q, k, v = (part.view(*outer, tokens, channels) for part in (query, key, value))
    if q.device.type != "cpu" or tokens <= _QUERIES:
        mask = None
        if bias_h is not None and bias_w is not None:
            mask = (bias_h[..., :, None] + bias_w[..., None, :]).reshape(*outer, tokens, tokens)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    reduced = q.dtype != torch.float32
    out = torch.empty_like(q)
    for image, head in torch.cartesian_prod(*(torch.arange(n) for n in outer)).tolist():
        part = image, head
        values = v[part] if reduced else v[part].t().contiguous()
        for start in range(0, tokens, _QUERIES):
            rows = slice(start, start + _QUERIES)
            bias = []
            if bias_h is not None and bias_w is not None:
                bias += [bias_h[part].reshape(tokens, h, 1)[rows]]
                bias += [bias_w[part].reshape(tokens, 1, w)[rows]]
            if reduced:  # torch takes it to the matrix units of a CPU, but float32 to MKL
                mask = (bias[0] + bias[1]).flatten(1) if bias else None
                some, all_k, all_v = (t[None, None] for t in (q[part][rows], k[part], values))
                out[part][rows] = F.scaled_dot_product_attention(
                    some, all_k, all_v, attn_mask=mask, scale=scale
                )
            else:
                out[part][rows] = _attend_rows(q[part][rows] * scale, k[part], values, bias)
    return out


def _attend_rows(query: Tensor, key: Tensor, value: Tensor, bias: list[Tensor]) -> Tensor:
    """Attention of (rows, c) queries of a head to all keys, (tokens, c); values are (c, tokens)."""
    scores = product(query, key)
    if bias:
        grid = scores.view(-1, bias[0].shape[1], bias[1].shape[2])
        for term in bias:
            grid += term
    torch.softmax(scores, -1, out=scores)
    return product(scores, value)


def _relative(table: Tensor, size: int) -> Tensor:
    """Rows of a table of relative positions for every pair of positions, (size, size, c)."""
    if table.shape[0] != 2 * size - 1:  # another resolution than that of the training
        table = F.interpolate(table.t()[None], 2 * size - 1, mode="linear")[0].t()
    position = torch.arange(size, device=table.device)
    return table[position[:, None] - position + size - 1]


class FusedBlock(nn.Module):
    """A transformer block around `FusedAttention`, from a stock ``Block``."""

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.norm1, self.norm2, self.mlp = stock.norm1, stock.norm2, stock.mlp
        self.attn = FusedAttention(stock.attn, stock.window_size)

    def forward(self, x: Tensor) -> Tensor:
        """Transform float32 (n, h, w, c), which is overwritten."""
        x += self.attn(self.norm1(x))
        x += self.mlp(self.norm2(x))
        return x


class FusedEncoder(nn.Module):
    """SAM's image encoder, from a stock ``ImageEncoderViT``, which gives its parameters away."""

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.img_size: int = stock.img_size
        self.patch_embed, self.pos_embed, self.neck = stock.patch_embed, stock.pos_embed, stock.neck
        self.blocks = nn.ModuleList(FusedBlock(block) for block in stock.blocks)

    @property
    def embedding_shape(self) -> tuple[int, int, int]:
        """Shape (channels, height, width) of one embedding."""
        side = self.img_size // self.patch_embed.proj.stride[0]
        return self.neck[2].out_channels, side, side

    def reduce_precision(self, dtype: torch.dtype) -> None:
        """Hold the weights of matrix products and convolutions in `dtype`."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                module.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Embed normalised images, (n, 3, size, size) to float32 (n, c, size / 16, size / 16)."""
        dtype = self.patch_embed.proj.weight.dtype
        x = self.patch_embed(x.to(dtype)).float()
        if self.pos_embed is not None:
            x = x + self.pos_embed
        for block in self.blocks:
            x = block(x)
        x = self.neck[0](x.permute(0, 3, 1, 2).to(dtype))
        x = self.neck[2](self.neck[1](x.float()).to(dtype))
        embedding: Tensor = self.neck[3](x.float())
        return embedding
