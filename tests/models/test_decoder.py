"""The fused decoder against the plain one, and both against what micro-sam's recorded."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from seeded import seeded_state

from volsam.models.decoder import FusedDecoder, use_tile_statistics
from volsam.models.unetr import UNETR

FIXTURE = Path(__file__).with_name("micro_sam.npz")


def plain(**settings: object) -> UNETR:
    decoder = UNETR(**({"embed_dim": 16, "features": (32, 16, 8, 4)} | settings)).eval()
    decoder.load_state_dict(seeded_state(decoder))
    return decoder.requires_grad_(False)


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("features", [(32, 16, 8, 4), (16, 8)])
def test_same_maps(norm: str, transposed: bool, features: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    embeddings = torch.randn(2, 16, 7, 5) + 3
    kept = embeddings.clone()
    decoder = plain(norm=norm, transposed=transposed, features=features)
    expected = decoder(embeddings)
    maps = FusedDecoder(decoder)(embeddings)
    assert (maps - expected).abs().max() < 3e-5
    assert torch.equal(embeddings, kept)


@pytest.mark.parametrize("form", ["bilinear", "transposed"])
def test_same_maps_as_micro_sam(form: str) -> None:
    embeddings = np.random.default_rng(0).standard_normal((1, 16, 4, 4)).astype(np.float32)
    expected = np.load(FIXTURE)[form]
    decoder = plain(transposed=form == "transposed")
    use_tile_statistics(decoder)
    for variant in (decoder.requires_grad_(False), FusedDecoder(decoder)):
        maps = variant(torch.from_numpy(embeddings)).numpy()
        assert np.abs(maps[0] - expected).max() < 3e-5


def test_channels_with_a_large_mean_are_normalised_precisely() -> None:
    torch.manual_seed(0)
    embeddings = torch.randn(1, 16, 64, 64) * 0.1 + torch.linspace(-50, 50, 16)[:, None, None]
    decoder = plain(features=(16, 8))
    expected = decoder.double()(embeddings.double())
    maps = FusedDecoder(copy.deepcopy(decoder).float())(embeddings)
    assert (maps - expected).abs().max() < 1e-4


def test_bf16_is_close() -> None:
    torch.manual_seed(0)
    embeddings = torch.randn(1, 16, 16, 16)
    decoder = plain()
    expected = decoder(embeddings)
    reduced = FusedDecoder(decoder)
    reduced.reduce_precision(torch.bfloat16)
    assert (reduced(embeddings) - expected).abs().mean() < 0.01
