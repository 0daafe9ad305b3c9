"""The fused encoder against segment_anything's own modules."""

from __future__ import annotations

import pytest
import torch
from seeded import seeded_state
from torch import nn

from volsam.models.attention import FusedEncoder, attend
from volsam.models.linear import FastLinear, replace_linears, sharing
from volsam.models.sam import modeling


def stock_encoder(size: int = 384, **settings: object) -> nn.Module:
    """An encoder with padded windows and with more tokens than are attended at a time."""
    given = {
        "img_size": size,
        "embed_dim": 32,
        "depth": 3,
        "num_heads": 2,
        "out_chans": 16,
        "use_rel_pos": True,
        "window_size": 7,
        "global_attn_indexes": (1,),
    }
    stock = modeling().ImageEncoderViT(**(given | settings)).eval()
    stock.load_state_dict(seeded_state(stock))
    return stock.requires_grad_(False)


def fused(stock: nn.Module, dtype: torch.dtype = torch.float32) -> FusedEncoder:
    encoder = FusedEncoder(stock)
    replace_linears(encoder)
    encoder.reduce_precision(dtype)
    return encoder


@pytest.mark.parametrize("settings", [{}, {"use_rel_pos": False}, {"qkv_bias": False}])
def test_same_embedding(settings: dict[str, bool]) -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 384, 384)
    stock = stock_encoder(**settings)
    expected = stock(images)
    difference = (fused(stock)(images) - expected).abs().max()
    assert difference < 2e-5 * max(1, expected.abs().max())


def test_public_operators_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randn(1, 3, 384, 384)
    encoder = fused(stock_encoder())
    ours = encoder(images)
    monkeypatch.setattr("volsam.models.linear._ONEDNN", False)
    assert torch.allclose(encoder(images), ours, atol=1e-5)


def test_bf16_is_close() -> None:
    torch.manual_seed(0)
    images = torch.randn(1, 3, 384, 384)
    stock = stock_encoder()
    expected = stock(images)
    difference = (fused(stock, torch.bfloat16)(images) - expected).abs()
    assert difference.mean() < 0.02 * expected.std()


def test_chunks_agree_with_the_kernel_that_a_gpu_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 12, 10, 8)
    rows, columns = torch.randn(2, 3, 12, 10, 12), torch.randn(2, 3, 12, 10, 10)
    whole = attend(q, k, v, 0.3, rows, columns)
    monkeypatch.setattr("volsam.models.attention._QUERIES", 50)
    assert torch.allclose(attend(q, k, v, 0.3, rows, columns), whole, atol=1e-6)


def test_other_resolution_interpolates_the_table() -> None:
    torch.manual_seed(0)
    stock = stock_encoder(size=128, window_size=0)
    stock.pos_embed = None
    images = torch.randn(1, 3, 96, 96)
    expected = stock(images)
    assert torch.allclose(fused(stock)(images), expected, atol=1e-5)


def test_keys_are_unchanged() -> None:
    stock = stock_encoder()
    keys = set(stock.state_dict())
    assert set(FusedEncoder(stock).state_dict()) == keys


def test_embedding_shape() -> None:
    assert FusedEncoder(stock_encoder()).embedding_shape == (16, 24, 24)


def test_linear_shares_its_parameters() -> None:
    layer = nn.Linear(3, 5)
    fast = sharing(FastLinear, layer)
    assert fast.weight is layer.weight
    x = torch.randn(2, 4, 3)
    with torch.no_grad():
        assert torch.allclose(fast(x), layer(x), atol=1e-6)
