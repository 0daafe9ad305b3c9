"""Tiles to maps: scale, padding, batches, and micro-sam's way."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from volsam.errors import VolsamError
from volsam.models import Model
from volsam.segment.predict import (
    _as_micro_sam,
    decode_tiles,
    embed_tiles,
    predict_clipped,
    predict_tiles,
)


class Echo:
    """A model whose embedding is the padded image and whose maps are that embedding."""

    name, image_size, device = "echo", 64, torch.device("cpu")
    largest_batch = 0

    def embed(self, images: Tensor) -> Tensor:
        self.largest_batch = max(self.largest_batch, len(images))
        side = images.shape[-1]
        return F.pad(images, (0, self.image_size - side, 0, self.image_size - images.shape[-2]))

    def decode(self, embeddings: Tensor) -> Tensor:
        return embeddings / 255


@pytest.fixture
def echo() -> Echo:
    return Echo()


def tiles(n: int = 5, side: int = 40, channels: tuple[int, ...] = ()) -> np.ndarray:
    y, x = np.mgrid[:side, :side] / side
    phase = np.arange(n * max(1, *channels, 1)).reshape(n, *channels, 1, 1)
    return (0.5 + 0.5 * np.sin(3 * x + 2 * y + phase)).astype(np.float32)


def test_grey_tiles_come_back_where_they_were(echo: Echo) -> None:
    image = tiles()
    maps = predict_tiles(cast(Model, echo), image, batch=2)
    assert maps.shape == (5, 3, 40, 40)
    assert maps.dtype == np.float32
    assert echo.largest_batch == 2
    assert np.allclose(maps, image[:, None], atol=1e-6)


def test_channels_are_kept(echo: Echo) -> None:
    image = tiles(2, channels=(3,))
    assert np.allclose(predict_tiles(cast(Model, echo), image), image, atol=1e-6)


@pytest.mark.parametrize("scale", [0.5, 0.73, 1.6])
def test_scale_there_and_back(echo: Echo, scale: float) -> None:
    image = tiles()
    maps = predict_tiles(cast(Model, echo), image, scale=scale, batch=4)
    inner = (..., slice(2, -2), slice(2, -2))
    assert np.abs(maps - image[:, None])[inner].max() < 0.03
    embeddings = embed_tiles(cast(Model, echo), image, scale=scale)
    assert not embeddings[..., round(40 * scale) :].any()


def test_embeddings_can_be_stored_between(echo: Echo) -> None:
    image, model = tiles(), cast(Model, echo)
    stored = embed_tiles(model, image, scale=1.3).numpy()
    maps = decode_tiles(model, torch.from_numpy(stored), scale=1.3, size=40)
    assert np.array_equal(maps, predict_tiles(model, image, scale=1.3, batch=5))


def test_nothing_is_normalised_per_tile(echo: Echo) -> None:
    image = np.full((1, 8, 8), 0.25, np.float32)
    assert np.allclose(predict_tiles(cast(Model, echo), image), 0.25)
    assert np.allclose(predict_tiles(cast(Model, echo), image + 1), 1)


def test_a_tile_too_large_for_the_model(echo: Echo) -> None:
    with pytest.raises(VolsamError, match="80 pixels for the network at scale 2, more than the 64"):
        predict_tiles(cast(Model, echo), tiles(), scale=2)


def test_out_of_memory_is_a_memory_error(echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Tensor) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(echo, "embed", fail)
    with pytest.raises(MemoryError, match="9 bytes"):
        predict_tiles(cast(Model, echo), tiles())


@pytest.mark.parametrize("kind", ["gray", "two", "five"])
def test_input_as_micro_sam_makes_it(kind: str) -> None:
    record = np.load(Path(__file__).parents[1] / "models" / "micro_sam.npz")
    ours = _as_micro_sam(record[f"image_{kind}"], 96)
    assert np.array_equal(ours.permute(1, 2, 0).numpy(), record[f"input_{kind}"])


def test_clipped_tiles_are_stretched_in_contrast_and_size(echo: Echo) -> None:
    image = (tiles(1, 32)[0, :20] * 1000 + 500).astype(np.uint16)
    maps = predict_clipped(cast(Model, echo), image)
    assert maps.shape == (3, 20, 32)
    expected = (image - image.min()) / (image.max() - image.min())
    assert np.abs(maps - expected).max() < 0.02
