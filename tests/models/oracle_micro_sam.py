"""Make a random-weight ``vit_b`` with decoder and record what micro-sam itself predicts with it.

Not a test: run it where micro-sam is installed, in a folder of its own, then compare with
``compare_micro_sam.py`` in this project's environment::

    python tests/models/oracle_micro_sam.py <folder>
    python tests/models/compare_micro_sam.py <folder>

Writes ``vit_b.pt`` (combined form) and ``oracle.npz``: images, embeddings, maps, and CPU seconds.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from micro_sam import instance_segmentation, util
from segment_anything import sam_model_registry


def randomise(module: torch.nn.Module) -> None:
    """Fill what starts at zero or one, so that every parameter matters."""
    for key, value in module.state_dict().items():
        if "rel_pos" in key or "pos_embed" in key:
            value.normal_(0, 0.5)
        elif "running_mean" in key:
            value.normal_(0, 0.2)
        elif "running_var" in key:
            value.uniform_(0.5, 2)
        elif value.ndim == 1 and value.dtype == torch.float32:
            value.add_(torch.randn_like(value) * 0.1)


def images() -> dict[str, np.ndarray]:
    """Grey images of several shapes and types, blobs on noise."""
    rng = np.random.default_rng(0)
    result = {}
    for name, shape, dtype in (("square", (512, 512), "uint8"), ("wide", (300, 430), "uint16")):
        y, x = np.mgrid[: shape[0], : shape[1]]
        picture = 0.2 * rng.random(shape)
        for _ in range(60):
            cy, cx, r = rng.random() * shape[0], rng.random() * shape[1], 6 + 14 * rng.random()
            picture += np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / r**2)
        result[name] = (picture / picture.max() * np.iinfo(dtype).max).astype(dtype)
    return result


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    sam = sam_model_registry["vit_b"]()
    randomise(sam)
    unetr = instance_segmentation.get_unetr(sam.image_encoder, device="cpu")
    randomise(unetr)
    decoder = {k: v for k, v in unetr.state_dict().items() if not k.startswith("encoder.")}
    path = folder / "vit_b.pt"
    torch.save({"model_state": sam.state_dict(), "decoder_state": decoder}, path)
    predictor, decoder = instance_segmentation.get_predictor_and_decoder("vit_b", path, "cpu")
    segmenter = instance_segmentation.InstanceSegmentationWithDecoder(predictor, decoder)
    record = {}
    for name, image in images().items():
        start = time.process_time()
        embeddings = util.precompute_image_embeddings(predictor, image, ndim=2, verbose=False)
        encoded = time.process_time()
        segmenter.initialize(image, embeddings)
        decoded = time.process_time()
        print(f"{name}: {encoded - start:.1f} + {decoded - encoded:.1f} CPU s")
        state = segmenter.get_state()
        maps = ("foreground", "center_distances", "boundary_distances")
        record[f"{name}_image"] = image
        record[f"{name}_embedding"] = embeddings["features"]
        record[f"{name}_maps"] = np.stack([state[key] for key in maps])
    np.savez(folder / "oracle.npz", **record)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
