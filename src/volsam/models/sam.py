"""The architectures: SAM's ViTs, MobileSAM's TinyViT, and encoders described in a file.

segment_anything's modules are used as they are. Its package imports torchvision at the top, which
the modules do not need and which cannot be loaded on every machine; see `modeling`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from volsam.errors import VolsamError
from volsam.models.drawing import drawing_encoder
from volsam.models.tiny_vit import TinyViT, vit_t

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
EMBED_DIM = 256  # channels of every SAM's embedding
STRIDE = 16


@dataclass(frozen=True)
class VitArchitecture:
    """A SAM with a plain ViT encoder (Kirillov et al., ICCV 2023).

    Attributes
    ----------
    name : str
        Name as in segment_anything.
    width, depth, heads : int
        Of the transformer.
    global_blocks : tuple of int
        Blocks that attend to the whole image; the others attend in windows of 14 tokens.
    image_size : int
        Side of the network's input in pixels.
    """

    name: str
    width: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    image_size: int = 1024

    def encoder(self) -> nn.Module:
        """The image encoder, with random weights."""
        encoder: nn.Module = modeling().ImageEncoderViT(
            img_size=self.image_size,
            patch_size=STRIDE,
            embed_dim=self.width,
            depth=self.depth,
            num_heads=self.heads,
            out_chans=EMBED_DIM,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=14,
            global_attn_indexes=self.global_blocks,
        )
        return encoder


@dataclass(frozen=True)
class TinyArchitecture:
    """A SAM with a TinyViT encoder (MobileSAM, Zhang et al. 2023).

    Attributes
    ----------
    name : str
        Name as in MobileSAM.
    image_size : int
        Side of the network's input in pixels.
    """

    name: str = "vit_t"
    image_size: int = 1024

    def encoder(self) -> TinyViT:
        """The image encoder, with random weights."""
        return vit_t(image_size=self.image_size)


Architecture = VitArchitecture | TinyArchitecture
VIT_B = VitArchitecture("vit_b", 768, 12, 12, (2, 5, 8, 11))
VIT_L = VitArchitecture("vit_l", 1024, 24, 16, (5, 11, 17, 23))
VIT_H = VitArchitecture("vit_h", 1280, 32, 16, (7, 15, 23, 31))
VIT_T = TinyArchitecture()


def recognise(state: Mapping[str, Tensor]) -> Architecture:
    """Tell the architecture from the keys and shapes of a SAM state dict."""
    weight = state.get("image_encoder.patch_embed.proj.weight")
    if weight is not None:
        for architecture in (VIT_B, VIT_L, VIT_H):
            if weight.shape[0] == architecture.width:
                return architecture
        raise VolsamError(
            f"The image encoder is {weight.shape[0]} wide, which no known SAM is (vit_b 768, "
            "vit_l 1024, vit_h 1280); use a checkpoint of one of these."
        )
    if "image_encoder.patch_embed.seq.0.c.weight" in state:
        return VIT_T
    raise VolsamError(
        "The weights have no patch embedding of a SAM image encoder; use a checkpoint of vit_b, "
        "vit_l, vit_h or vit_t."
    )


def build_sam(
    encoder: nn.Module,
    image_size: int,
    *,
    width: int = EMBED_DIM,
    side: int | None = None,
    heads: int = 8,
    mlp_width: int = 2048,
    mask_channels: int = 16,
    drawn: bool = False,
) -> nn.Module:
    """A SAM around an image encoder; prompt encoder and mask decoder get random weights.

    Parameters
    ----------
    encoder : Module
        Image encoder.
    image_size : int
        Side of its input in pixels.
    width, side : int
        Channels and side of its embedding.
    heads, mlp_width : int
        Of the mask decoder's transformer.
    mask_channels : int
        Channels in which a mask prompt is encoded.
    drawn : bool
        Draw boxes and points as a mask prompt, see `volsam.models.drawing`.
    """
    parts = modeling()
    prompt_encoder = drawing_encoder(parts) if drawn else parts.PromptEncoder
    side = image_size // STRIDE if side is None else side
    sam: nn.Module = parts.Sam(
        image_encoder=encoder,
        prompt_encoder=prompt_encoder(
            embed_dim=width,
            image_embedding_size=(side, side),
            input_image_size=(image_size, image_size),
            mask_in_chans=mask_channels,
        ),
        mask_decoder=parts.MaskDecoder(
            transformer_dim=width,
            transformer=parts.TwoWayTransformer(
                depth=2, embedding_dim=width, num_heads=heads, mlp_dim=mlp_width
            ),
            num_multimask_outputs=3,
            iou_head_depth=3,
            iou_head_hidden_dim=width,
        ),
        pixel_mean=list(PIXEL_MEAN),
        pixel_std=list(PIXEL_STD),
    )
    return sam


def normalise(images: Tensor, image_size: int) -> Tensor:
    """Apply SAM's mean and deviation to images (n, 3, h, w) in 0..255, then pad with zeros.

    Returns
    -------
    (n, 3, image_size, image_size) tensor
        The image lies at the top left.
    """
    mean = torch.tensor(PIXEL_MEAN, device=images.device).view(3, 1, 1)
    std = torch.tensor(PIXEL_STD, device=images.device).view(3, 1, 1)
    images = (images - mean) / std
    height, width = images.shape[-2:]
    return nn.functional.pad(images, (0, image_size - width, 0, image_size - height))


@cache
def modeling() -> ModuleType:
    """``segment_anything.modeling``, also where its package cannot be imported.

    The package's ``__init__`` needs torchvision, whose binary needs the CUDA libraries it was built
    with. Where that fails, an empty package of the same name and path stands in while the modules are
    imported, and is gone afterwards.
    """
    try:
        return importlib.import_module("segment_anything.modeling")
    except (ImportError, RuntimeError, OSError, AttributeError):
        pass
    spec = importlib.util.find_spec("segment_anything")
    if spec is None or not spec.submodule_search_locations:
        raise VolsamError("The package segment-anything is missing; install volsam again with pip.")
    stand_in: Any = ModuleType("segment_anything")
    stand_in.__path__ = list(spec.submodule_search_locations)
    stand_in.__spec__ = spec
    sys.modules["segment_anything"] = stand_in
    try:
        return importlib.import_module("segment_anything.modeling")
    finally:
        del sys.modules["segment_anything"]
