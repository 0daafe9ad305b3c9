"""Models that cannot be had, loaded or used, on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from volsam.models import model as module
from volsam.models.registry import Entry, Remote
from volsam.models.tiny_vit import TinyViT
from volsam.models.unetr import UNETR

if TYPE_CHECKING:
    from conftest import Bench

Write = Callable[..., Path]
SHAPE = (4, 40, 44)
ENCODER = {
    "image_size": 32,
    "embed_dims": [8, 16],
    "depths": [1, 1],
    "num_heads": [1, 2],
    "window_sizes": [4, 4],
    "stage_strides": [1],
    "neck_channels": 16,
}
DECODER = {"embed_dim": 16, "features": [8, 4], "norm": "batch"}


class Objects:
    """Something that a checkpoint should not hold."""


def write_model(bench: Bench, *, decoder: bool = True, **more: object) -> Path:
    """Make a miniature model the one of the configuration."""
    torch.manual_seed(0)
    path = bench.folder / "model.json"
    state = {f"image_encoder.{k}": v for k, v in TinyViT(**ENCODER).state_dict().items()}
    if decoder:
        state |= {f"decoder.{k}": v for k, v in UNETR(**DECODER).state_dict().items()}
    save_file({k: v.contiguous() for k, v in state.items()}, bench.folder / "weights.safetensors")
    path.write_text(json.dumps({"name": "tiny", "encoder": ENCODER, "decoder": DECODER, **more}))
    bench.data |= {"model": str(path), "tiles": {"size": 16, "halo": 8}}
    return path


def checkpoint(bench: Bench, content: object) -> Path:
    """Make a torch file the model of the configuration."""
    path = bench.folder / "model.pt"
    torch.save(content, path)
    bench.data["model"] = str(path)
    return path


def test_unknown_name(bench: Bench) -> None:
    bench.data["model"] = "vit_x_lm"
    bench.refuses("plan", "'vit_x_lm'", "vit_b_lm", "embedded")


def test_no_decoder(bench: Bench) -> None:
    write_model(bench, decoder=False)
    bench.refuses("plan", "tiny", "no decoder")


def test_torn(bench: Bench) -> None:
    path = checkpoint(bench, {"image_encoder.a": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:900])
    bench.refuses("plan", "model.pt", "damaged")


def test_torn_weights_of_a_described_model(bench: Bench) -> None:
    path = write_model(bench).with_name("weights.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    bench.refuses("plan", "weights.safetensors", "damaged")


def test_pickle(bench: Bench) -> None:
    checkpoint(bench, {"model_state": {"image_encoder.a": torch.zeros(1)}, "config": Objects()})
    bench.refuses("plan", "model.pt", "Python objects", "compute.allow_pickle: true")


def test_no_model_at_all(bench: Bench) -> None:
    checkpoint(bench, {"weight": torch.zeros(3)})
    bench.refuses("plan", "model.pt", "no SAM checkpoint")


@pytest.mark.parametrize("content", [b"weights" * 99, None], ids=["wrong hash", "unreachable"])
def test_download(bench: Bench, content: bytes | None) -> None:
    cache = bench.root / "cache"
    remote = bench.root / "remote.pt"
    if content:
        remote.write_bytes(content)
    bench.patch.setenv("VOLSAM_CACHE", str(cache))
    bench.patch.setitem(module.MODELS, "vit_b_lm", Entry(Remote(remote.as_uri(), "00" * 16)))
    bench.data["model"] = "vit_b_lm"
    bench.refuses("plan", "remote.pt", "has hash" if content else "Cannot download")
    assert not [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"tiles": {"size": 32, "halo": 8}}, ("tile of 32", "32 pixels", "tiny", "tiles.size")),
        ({"scale": {"diameter": 20}}, ("tiny", "object diameter", "scale.pixel_size")),
        ({"scale": {"pixel_size": 1e-4}}, ("tiny", "factor of 1e+04", "scale.pixel_size")),
        ({"compute": {"precision": "fp16", "device": "cpu"}}, ("fp16", "compute.precision")),
        ({"tiles": {"size": 2**20}, "scale": {"pixel_size": 1e5}}, ("TiB",)),
    ],
    ids=["tile too large", "no diameter", "too fine", "fp16", "tile beyond the machine"],
)
def test_settings_for_the_model(
    bench: Bench, section: dict[str, object], words: tuple[str, ...]
) -> None:
    write_model(bench)
    bench.data |= section
    bench.refuses("plan", *words)


def test_nan_in_an_image_that_is_not_copied(bench: Bench, ome_zarr: Write) -> None:
    image = np.random.default_rng(0).random(SHAPE, np.float32)
    image[3, 21, 7] = np.inf
    ome_zarr(image)
    write_model(bench)
    bench.refuses("plan", "image.zarr", "inf", "z 3, y 21, x 7", plan=False)


def test_damaged_chunk(bench: Bench, ome_zarr: Write) -> None:
    path = ome_zarr(np.random.default_rng(0).integers(0, 9999, SHAPE, np.uint16))
    chunk = path / "0" / "c" / "1" / "1" / "1"
    chunk.write_bytes(chunk.read_bytes()[:20])
    write_model(bench)
    bench.refuses("plan", "image.zarr", "damaged", plan=False)
