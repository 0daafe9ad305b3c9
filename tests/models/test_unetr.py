"""The AIS decoder has torch_em's keys, size and arithmetic."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from volsam.models.unetr import UNETR, BilinearUpsampler, is_transposed

SMALL = {"embed_dim": 12, "features": (8, 4)}


def test_default_has_the_size_of_micro_sams_decoder() -> None:
    state = UNETR().state_dict()
    assert len(state) == 66
    parameters = sum(p.numel() for p in UNETR().parameters())
    assert parameters == pytest.approx(9.59e6, rel=1e-3)
    assert state["decoder_head.block.1.weight"].shape == (64, 128, 3, 3)
    assert state["base.block.4.weight"].shape == (512, 512, 3, 3)
    assert state["deconv1.block.0.conv.weight"].shape == (512, 256, 1, 1)
    assert "deconv4.block.2.running_mean" in state
    assert {"decoder.samplers.2.conv.bias", "deconv_out.conv.bias", "out_conv.bias"} <= set(state)


def test_transposed_variant_differs_in_sixteen_keys_and_is_recognised() -> None:
    bilinear, transposed = UNETR().state_dict(), UNETR(transposed=True).state_dict()
    assert len(set(transposed) - set(bilinear)) == 16
    assert {"decoder.samplers.0.block.weight", "deconv_out.block.bias"} <= set(transposed)
    assert is_transposed(transposed)
    assert not is_transposed(bilinear)


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("transposed", [False, True])
def test_maps_are_sigmoids_at_full_resolution(norm: str, transposed: bool) -> None:
    model = UNETR(**SMALL, norm=norm, transposed=transposed).eval()
    with torch.inference_mode():
        maps = model(torch.randn(2, 12, 5, 6))
    assert maps.shape == (2, 3, 20, 24)
    assert 0 <= float(maps.min()) <= float(maps.max()) <= 1


def test_convolution_before_interpolation_is_the_same_as_after() -> None:
    torch.manual_seed(0)
    layer = BilinearUpsampler(6, 4)
    x = torch.randn(1, 6, 7, 5)
    after = layer.conv(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
    torch.testing.assert_close(layer(x), after, atol=1e-6, rtol=1e-5)


def test_only_the_middle_channels_of_a_skip_are_used() -> None:
    torch.manual_seed(0)
    decoder = UNETR(embed_dim=12, features=(8, 4)).decoder.eval()
    x, skip = torch.randn(1, 8, 4, 4), torch.randn(1, 8, 8, 8)
    changed = skip.clone()
    changed[:, [0, 1, 6, 7]] += 1
    torch.testing.assert_close(decoder(x, [skip]), decoder(x, [changed]))
    changed[:, 2] += torch.randn(8, 8)
    assert not torch.allclose(decoder(x, [skip]), decoder(x, [changed]))


def test_features_that_do_not_halve_are_refused() -> None:
    with pytest.raises(ValueError, match="halve"):
        UNETR(features=(64, 48))
