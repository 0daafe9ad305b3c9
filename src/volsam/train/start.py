"""Where prompt parts start that a model lacks: small encoders of our own come without them.

SAM's prompt encoder and mask decoder learn from random weights very slowly, for two reasons: channels
of an embedding that was learnt for something else differ in size by orders of magnitude, which drowns
the code of the position; and attention has to find by chance that a prompt matters where it lies. Both
are cured here before the first step.

Invariant: what the model had predicted without prompts stays the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from volsam.models.tiny_vit import TinyViT
from volsam.models.unetr import TransposedUpsampler
from volsam.train.joint import JointNetwork


def prepare_prompts(network: JointNetwork, images: Iterable[Tensor]) -> None:
    """Give prompt parts that are at random a start from which they learn; others stay as they are.

    Parameters
    ----------
    network : JointNetwork
        Changed in place.
    images : iterable of (3, h, w) tensor
        In 0..255; some of those to learn from, read only if there is something to prepare.
    """
    if "mask_decoder" not in network.missing or not isinstance(network.image_encoder, TinyViT):
        return
    if isinstance(network.decoder.get_submodule("deconv1.block.0"), TransposedUpsampler):
        return  # its pixels have weights of their own, so a mean cannot be taken back
    standardise(network, images)
    align_attention(network)


@torch.no_grad()
def standardise(network: JointNetwork, images: Iterable[Tensor]) -> None:
    """Scale the channels of the embedding to mean 0 and deviation 1 over `images`.

    The last norm of the encoder takes the change up, and the first layers of the decoder for automatic
    segmentation take it back.
    """
    network.eval()
    embeddings = torch.stack([network.embed(image[None])[0] for image in images])
    mean = embeddings.mean((0, 2, 3))
    deviation = embeddings.std((0, 2, 3)).clamp(min=1e-6)
    last: Any = network.image_encoder.neck[-1]
    last.weight.div_(deviation)
    last.bias.sub_(mean).div_(deviation)
    decoder: Any = network.decoder
    norm: Any = decoder.base.block[0]
    if not isinstance(norm, nn.InstanceNorm2d):  # which does not see the change
        variance = norm.running_var / deviation.square()
        norm.weight.mul_(deviation * ((variance + norm.eps) / (norm.running_var + norm.eps)).sqrt())
        norm.running_mean.sub_(mean).div_(deviation)
        norm.running_var.copy_(variance)
    convolution = decoder.deconv1.block[0].conv
    convolution.bias.add_(convolution.weight[:, :, 0, 0] @ mean)
    convolution.weight.mul_(deviation[:, None, None])


@torch.no_grad()
def align_attention(network: JointNetwork) -> None:
    """Let attention between prompts and image start as a measure of their distance.

    Queries and keys come from the same orthogonal projection, so that their product is that of the codes
    of two positions, which falls with the distance.
    """
    transformer: Any = network.mask_decoder.transformer
    layers = [transformer.final_attn_token_to_image]
    for block in transformer.layers:
        layers += [block.cross_attn_token_to_image, block.cross_attn_image_to_token]
    for attention in layers:
        nn.init.orthogonal_(attention.q_proj.weight)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        nn.init.zeros_(attention.q_proj.bias)
        nn.init.zeros_(attention.k_proj.bias)
