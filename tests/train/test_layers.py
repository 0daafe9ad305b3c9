"""Layers for training: results and gradients of the stock ones."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from volsam.models.sam import VitArchitecture
from volsam.models.unetr import UNETR
from volsam.train import layers
from volsam.train.adapt import LowRank, adapt
from volsam.train.layers import prepare_decoder, prepare_encoder


@pytest.fixture
def pair() -> tuple[torch.nn.Module, torch.nn.Module]:
    """A stock encoder of 16 x 16 tokens, and the same prepared."""
    torch.manual_seed(0)
    stock = VitArchitecture("small", 32, 2, 2, (1,), image_size=256).encoder()
    with torch.no_grad():
        for name, parameter in stock.named_parameters():
            if "pos" in name:
                parameter.normal_(0, 0.5)
    fast = copy.deepcopy(stock)
    prepare_encoder(fast)
    return stock, fast


def gradients(encoder: torch.nn.Module, images: Tensor, weights: Tensor) -> dict[str, Tensor]:
    images = images.clone().requires_grad_()
    (encoder(images) * weights).sum().backward()
    found = {k: p.grad for k, p in encoder.named_parameters() if p.grad is not None}
    return found | {"images": images.grad}  # type: ignore[dict-item]


def test_embedding_and_gradients_are_those_of_the_stock_encoder(
    pair: tuple[torch.nn.Module, torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "_QUERIES", 96)  # a last chunk that is not whole
    stock, fast = pair
    images, weights = torch.randn(2, 3, 256, 256), torch.randn(2, 256, 16, 16)
    assert fast.state_dict().keys() == stock.state_dict().keys()
    with torch.no_grad():
        torch.testing.assert_close(fast(images), stock(images), rtol=1e-4, atol=1e-4)
    expected, found = (gradients(encoder, images, weights) for encoder in (stock, fast))
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4 * scale)


def test_frozen_layers_get_no_gradient(pair: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    _, fast = pair
    fast.requires_grad_(False)
    fast.blocks[1].requires_grad_(True)  # type: ignore[index, union-attr]
    fast(torch.randn(1, 3, 256, 256)).sum().backward()
    with_gradient = {name for name, p in fast.named_parameters() if p.grad is not None}
    assert with_gradient == {n for n, _ in fast.named_parameters() if n.startswith("blocks.1.")}


def test_trains_under_autocast(pair: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    stock, fast = pair
    images = torch.randn(1, 3, 256, 256)
    with torch.autocast("cpu", torch.bfloat16):
        expected, embedding = stock(images), fast(images)
        embedding.float().square().sum().backward()
    torch.testing.assert_close(embedding.float(), expected.float(), rtol=0.1, atol=0.2)


@pytest.mark.parametrize("count", [1, 2])
def test_gradients_of_the_decoder_do_not_depend_on_the_memory_format(count: int) -> None:
    torch.manual_seed(0)
    stock = UNETR(16, (16, 8, 4, 2))
    fast = copy.deepcopy(stock)
    prepare_decoder(fast)
    fast = fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    embedding = torch.randn(count, 16, 6, 6)
    weights = torch.randn(count, 3, 96, 96)
    found = []
    for decoder, x in ((stock, embedding), (fast, embedding.to(memory_format=torch.channels_last))):
        (decoder.logits(x) * weights).sum().backward()
        found.append({name: p.grad for name, p in decoder.named_parameters()})
    scale = max(float(gradient.abs().max()) for gradient in found[0].values())
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-3, atol=1e-5 * scale)


def test_low_rank_additions_to_windowed_attention(
    pair: tuple[torch.nn.Module, torch.nn.Module],
) -> None:
    """Windows that do not divide the tokens are padded with the bias of a layer that was wrapped."""
    stock, fast = pair
    images = torch.randn(1, 3, 256, 256)
    network = SimpleNamespace(image_encoder=fast)
    adapt(network, "lora", rank=2)  # type: ignore[arg-type]
    wrapped = {n.rsplit(".", 1)[-1] for n, m in fast.named_modules() if isinstance(m, LowRank)}
    assert {"qkv", "proj", "lin1", "lin2"} <= wrapped
    torch.testing.assert_close(fast(images), stock(images), rtol=1e-4, atol=1e-4)
    fast(images).sum().backward()
    trained = {n for n, p in fast.named_parameters() if p.grad is not None}
    assert trained
    assert all(name.endswith((".down", ".up")) for name in trained)
