"""The network of a BioImage.IO package whose image encoder is a plain ViT of SAM.

Only shipped (see `architecture`) and never imported by volsam itself, which reaches segment_anything's
modules without its package, see `models.sam.modeling`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from segment_anything.modeling.image_encoder import ImageEncoderViT
from torch import nn

from volsam.exchange.network import AisNetwork
from volsam.models.unetr import UNETR


def sam_vit_network(
    encoder: dict[str, Any], decoder: dict[str, Any], tile_statistics: bool = False
) -> AisNetwork:
    """Build the network with random weights.

    Parameters
    ----------
    encoder : dict
        ``width``, ``depth``, ``heads``, ``global_blocks`` and ``image_size`` of the ViT.
    decoder : dict
        Arguments of `UNETR`.
    tile_statistics : bool
        See `AisNetwork`.
    """
    image_encoder = ImageEncoderViT(
        img_size=encoder["image_size"],
        patch_size=16,
        embed_dim=encoder["width"],
        depth=encoder["depth"],
        num_heads=encoder["heads"],
        out_chans=256,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=tuple(encoder["global_blocks"]),
    )
    return AisNetwork(image_encoder, UNETR(**decoder), tile_statistics)
