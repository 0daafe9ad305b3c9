"""The start of prompt parts: nothing else changes, and they learn from it."""

import pytest
import torch

from tests.tiny import write_model
from volsam.train.joint import build
from volsam.train.start import prepare_prompts


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return list(255 * torch.rand(4, 3, 64, 64, generator=generator))


def test_automatic_segmentation_stays_the_same(tmp_path, images):
    network = build(write_model(tmp_path / "bare", prompts=False)).eval()
    with torch.no_grad():
        for module in network.modules():  # as after training: nothing is 0 or 1
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-1, 1)
                module.running_var.uniform_(0.5, 3)
                module.weight.uniform_(0.5, 2)
        last = network.image_encoder.neck[-1]
        last.weight.copy_(torch.logspace(-2, 1, len(last.weight)))
        last.bias.uniform_(-3, 3)
        before = network.maps(torch.stack(images))
        prepare_prompts(network, images)
        after = network.maps(torch.stack(images))
        embeddings = network.embed(torch.stack(images))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert embeddings.mean((0, 2, 3)).abs().max() < 1e-4
    assert (embeddings.std((0, 2, 3)) - 1).abs().max() < 1e-3


def test_attention_begins_where_the_prompt_lies(tmp_path, images):
    network = build(write_model(tmp_path / "bare", prompts=False))
    prepare_prompts(network, images)
    code = network.prompt_encoder.get_dense_pe().detach().flatten(2)[0].T
    for block in network.mask_decoder.transformer.layers:
        attention = block.cross_attn_image_to_token
        product = attention.q_proj(code) @ attention.k_proj(code).T
        gram = product / product.diagonal().mean()
        nearest = gram.argmax(1) == torch.arange(len(code))
        assert nearest.float().mean() > 0.3


def test_trained_prompt_parts_stay(tmp_path, images):
    network = build(write_model(tmp_path / "whole"))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    prepare_prompts(network, images)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
