"""A parent small enough to train in a second, and images to learn from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tifffile
import torch
from safetensors.torch import save_file

from volsam.models.sam import build_sam
from volsam.models.tiny_vit import TinyViT
from volsam.models.unetr import UNETR
from volsam.train.synthetic import nuclei_slices

ENCODER = {
    "image_size": 64,
    "embed_dims": [8, 16],
    "depths": [1, 1],
    "num_heads": [1, 2],
    "window_sizes": [4, 4],
    "patch_strides": [2, 1],
    "stage_strides": [2],
    "neck_channels": 16,
}
DECODER = {"embed_dim": 16, "features": [8, 4], "norm": "batch"}
PROMPTS = {"heads": 2, "mlp_width": 16, "mask_channels": 4, "side": 8}


def write_parent(folder: Path) -> str:
    """Write a model with random weights and all parts; returns its path."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sam = build_sam(TinyViT(**ENCODER), 64, **{**PROMPTS, "width": 16})
        decoder = UNETR(**DECODER)
    state = sam.state_dict() | {f"decoder.{k}": v for k, v in decoder.state_dict().items()}
    save_file({k: v.contiguous().clone() for k, v in state.items()}, folder / "weights.safetensors")
    described = {
        "name": "tiny",
        "weights": "weights.safetensors",
        "encoder": ENCODER,
        "decoder": DECODER,
        "prompts": PROMPTS,
        "learning_rate": 1e-3,
    }
    (folder / "model.json").write_text(json.dumps(described))
    return str(folder / "model.json")


def write_images(folder: Path) -> None:
    """Write ``im/*.tif`` and ``lab/*.tif``."""
    for part in ("im", "lab"):
        (folder / part).mkdir()
    for number, (image, labels) in enumerate(nuclei_slices(0, 1)):
        tifffile.imwrite(
            folder / "im" / f"{number}.tif", (np.clip(image, 0, 2) * 200).astype(np.uint16)
        )
        tifffile.imwrite(folder / "lab" / f"{number}.tif", labels.astype(np.uint16))
