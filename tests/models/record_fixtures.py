"""Record what micro-sam's and MobileSAM's own code make of seeded weights: the two .npz files here.

Not a test: run it where these are installed::

    python tests/models/record_fixtures.py micro-sam
    python tests/models/record_fixtures.py mobile-sam
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from seeded import seeded_state
from torch import Tensor, nn

FOLDER = Path(__file__).parent


class _Encoder(nn.Module):
    """What torch_em asks of an encoder."""

    img_size, embed_dim = 64, 16

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x


def micro_sam() -> None:
    """Maps of a narrow decoder with both kinds of upsampling, and network inputs of images."""
    from micro_sam.instance_segmentation import DecoderAdapter
    from micro_sam.util import _to_image
    from segment_anything.utils.transforms import ResizeLongestSide
    from torch_em.model.unetr import UNETR

    record = {}
    embeddings = np.random.default_rng(0).standard_normal((1, 16, 4, 4)).astype(np.float32)
    for form in ("bilinear", "transposed"):
        unetr = UNETR(
            img_size=64,
            encoder=_Encoder(),
            out_channels=3,
            use_sam_stats=True,
            final_activation="Sigmoid",
            use_skip_connection=False,
            use_conv_transpose=form == "transposed",
            initial_features=4,
        )
        unetr.load_state_dict(seeded_state(unetr))
        # As micro-sam: one tile, and no switch to evaluation.
        with torch.no_grad():
            maps = DecoderAdapter(unetr)._forward_impl(torch.from_numpy(embeddings))
        record[form] = maps[0].numpy()
    rng = np.random.default_rng(1)
    for name, shape, dtype in (
        ("gray", (48, 70), np.uint16),
        ("two", (50, 31, 2), np.uint8),
        ("five", (20, 64, 5), np.float32),
    ):
        image = (rng.random(shape) * 200).astype(dtype)
        record[f"image_{name}"] = image
        record[f"input_{name}"] = ResizeLongestSide(96).apply_image(_to_image(image.copy()))
    np.savez_compressed(FOLDER / "micro_sam.npz", **record)


def mobile_sam() -> None:
    """Part of the embedding of a narrow and shallow TinyViT."""
    from mobile_sam.modeling.tiny_vit_sam import TinyViT

    encoder = TinyViT(
        img_size=1024,
        num_classes=10,
        embed_dims=[8, 16, 16, 320],
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 2, 10],
        window_sizes=[7, 7, 14, 7],
        drop_path_rate=0.0,
    )
    encoder.load_state_dict(seeded_state(encoder))
    encoder.train().eval()  # it caches its attention biases on the way to evaluation
    image = np.random.default_rng(0).standard_normal((1, 3, 1024, 1024)).astype(np.float32)
    with torch.no_grad():
        embedding = encoder(torch.from_numpy(image))[0, ::8, ::4, ::4]
    np.savez_compressed(FOLDER / "mobile_sam.npz", embedding=embedding.numpy())


if __name__ == "__main__":
    {"micro-sam": micro_sam, "mobile-sam": mobile_sam}[sys.argv[1]]()
