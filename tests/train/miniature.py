"""A SAM in miniature, here and where micro-sam is: 8 x 8 tokens, a block with windows and one without."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

SIDE, WIDTH = 128, 32  # of the network's input, and of the embedding
OBJECTS, ITERATIONS = 3, 2


def miniature(modeling: Any) -> Any:
    """Build it from segment_anything's modules."""
    tokens = (SIDE // 16, SIDE // 16)
    encoder = modeling.ImageEncoderViT(
        img_size=SIDE,
        embed_dim=WIDTH,
        depth=2,
        num_heads=2,
        out_chans=WIDTH,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=5,
        global_attn_indexes=(1,),
    )
    prompts = modeling.PromptEncoder(WIDTH, tokens, (SIDE, SIDE), mask_in_chans=8)
    transformer = modeling.TwoWayTransformer(2, WIDTH, num_heads=2, mlp_dim=48)
    masks = modeling.MaskDecoder(transformer_dim=WIDTH, transformer=transformer)
    return modeling.Sam(encoder, prompts, masks)
