"""Models small enough to train or run in a second, and annotated images for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tifffile
import torch
from safetensors.torch import save_file
from scipy import ndimage as ndi

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


def write_model(folder: Path, seed: int = 0, *, prompts: bool = True, **more: object) -> str:
    """Write random weights and their description; returns its path. `more` goes into it."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sam = build_sam(TinyViT(**ENCODER), 64, **{**PROMPTS, "width": 16})
        decoder = UNETR(**DECODER)
    state = sam.state_dict() | {f"decoder.{k}": v for k, v in decoder.state_dict().items()}
    if not prompts:
        state = {k: v for k, v in state.items() if k.startswith(("image_encoder.", "decoder."))}
    save_file({k: v.contiguous().clone() for k, v in state.items()}, folder / "weights.safetensors")
    described = {
        "name": folder.name,
        "weights": "weights.safetensors",
        "encoder": ENCODER,
        "decoder": DECODER,
        "prompts": PROMPTS if prompts else None,
        **more,
    }
    (folder / "model.json").write_text(json.dumps(described))
    return str(folder / "model.json")


def write_parent(folder: Path) -> str:
    """Write a model with all parts to train from; returns its path."""
    return write_model(folder, name="tiny", learning_rate=1e-3)


def write_images(folder: Path) -> None:
    """Write ``im/*.tif`` and ``lab/*.tif``."""
    for part in ("im", "lab"):
        (folder / part).mkdir()
    for number, (image, labels) in enumerate(nuclei_slices(0, 1)):
        tifffile.imwrite(
            folder / "im" / f"{number}.tif", (np.clip(image, 0, 2) * 200).astype(np.uint16)
        )
        tifffile.imwrite(folder / "lab" / f"{number}.tif", labels.astype(np.uint16))


def write_discs(folder: Path, count: int = 2, seed: int = 0) -> dict[str, str]:
    """Write ``im/*.tif`` and ``lab/*.tif``, discs on noise; returns an entry of `evaluate.data`."""
    rng = np.random.default_rng(seed)
    for part in ("im", "lab"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        y, x = np.mgrid[:56, :60]
        labels = np.zeros(y.shape, np.uint16)
        for ident in range(1, 7):
            a, b = rng.integers(7, [49, 53])
            disc = (y - a) ** 2 + (x - b) ** 2 <= 25
            if not labels[ndi.binary_dilation(disc, iterations=2)].any():
                labels[disc] = ident
        image = 40 + 120 * (labels > 0) + rng.normal(0, 10, labels.shape)
        tifffile.imwrite(folder / "im" / f"{number}.tif", image.astype(np.uint16))
        tifffile.imwrite(folder / "lab" / f"{number}.tif", labels)
    return {"image": f"{folder}/im/*.tif", "labels": f"{folder}/lab/*.tif"}
