"""Parameter-efficient modes."""

from __future__ import annotations

import pytest
import torch

from volsam.errors import VolsamError
from volsam.train.adapt import LowRank, adapt, additions, merge, restrict
from volsam.train.joint import build, trainable


def parts(network: torch.nn.Module) -> set[str]:
    return {n.split(".")[0] for n, p in network.named_parameters() if p.requires_grad}


def test_lora_starts_at_the_parent_and_merges_without_a_change(parent: str) -> None:
    network = build(parent).eval()
    images = torch.rand(1, 3, 64, 64) * 255
    before = network.embed(images)
    keys = set(network.state_dict())
    adapt(network, "lora", rank=2)
    torch.testing.assert_close(network.embed(images), before)
    for module in network.modules():
        if isinstance(module, LowRank):
            torch.nn.init.normal_(module.up, std=0.1)
    trained = network.embed(images)
    assert not torch.allclose(trained, before)
    assert additions(network)
    merge(network)
    assert set(network.state_dict()) == keys
    torch.testing.assert_close(network.embed(images), trained, atol=1e-4, rtol=1e-4)


def test_lora_trains_a_small_part_of_attention_and_mlp(parent: str) -> None:
    network = build(parent)
    adapt(network, "lora", rank=1)
    names = [n for n in trainable(network) if n.startswith("image_encoder")]
    assert names
    assert all(n.endswith((".down", ".up")) for n in names)
    assert {n.split(".")[-2] for n in names} == {"qkv", "proj", "fc1", "fc2"}


@pytest.mark.parametrize(
    ("mode", "encoder"), [("full", True), ("decoder", False), ("last-blocks", True)]
)
def test_modes(parent: str, mode: str, encoder: bool) -> None:
    network = build(parent)
    adapt(network, mode)
    assert ("image_encoder" in parts(network)) is encoder
    assert {"prompt_encoder", "mask_decoder", "decoder"} <= parts(network)


def test_last_blocks_leave_the_first(parent: str) -> None:
    network = build(parent)
    adapt(network, "last-blocks", blocks=1)
    trained = [n for n in trainable(network) if n.startswith("image_encoder.layers")]
    assert trained
    assert all(n.startswith("image_encoder.layers.1.blocks.0") for n in trained)


@pytest.mark.parametrize(("what", "gone"), [("prompts", "decoder"), ("automatic", "mask_decoder")])
def test_restrict(parent: str, what: str, gone: str) -> None:
    network = build(parent)
    restrict(network, what)
    assert gone not in parts(network)


def test_faults_are_one_sentence(parent: str) -> None:
    network = build(parent)
    with pytest.raises(VolsamError, match="use full, lora, decoder, last-blocks"):
        adapt(network, "qlora")
    with pytest.raises(VolsamError, match=r"has 2 blocks and train\.blocks is 9"):
        adapt(network, "last-blocks", blocks=9)
