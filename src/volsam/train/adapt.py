"""Which weights are trained: all of them, low-rank additions (LoRA), the last blocks, or decoders only.

LoRA (Hu et al. 2021): a frozen linear layer W gets an addition B A of low rank, B zero at the start, in
the attention and the MLPs of the image encoder. `merge` adds it to W, so that a finished model is an
ordinary one; until then state dicts keep both parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from volsam.errors import VolsamError
from volsam.train.joint import JointNetwork

MODES = ("full", "lora", "decoder", "last-blocks")
_LAYERS = ("qkv", "proj", "lin1", "lin2", "fc1", "fc2")  # SAM's ViT and TinyViT


class LowRank(nn.Module):
    """A linear layer with fixed weights and a trained addition of low rank.

    Parameters
    ----------
    linear : Linear
        The layer; it is frozen.
    rank : int
        Rank of the addition.
    """

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.down = nn.Parameter(torch.empty(rank, linear.in_features))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    @property
    def bias(self) -> Tensor | None:
        """Of the layer: a padded token, all zeros, is projected to it."""
        return self.linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + F.linear(F.linear(x, self.down), self.up)

    def merged(self) -> nn.Linear:
        """The layer with the addition in its weights."""
        with torch.no_grad():
            self.linear.weight += self.up @ self.down
        return self.linear.requires_grad_(True)


def adapt(network: JointNetwork, mode: str, *, rank: int = 4, blocks: int = 1) -> None:
    """Choose what of the image encoder is trained; decoders always are.

    Parameters
    ----------
    network : JointNetwork
        Changed in place.
    mode : {"full", "lora", "decoder", "last-blocks"}
        See the key ``train.adapt``.
    rank : int
        Rank of the additions for ``"lora"``.
    blocks : int
        Number of blocks for ``"last-blocks"``.

    Raises
    ------
    VolsamError
        If the mode is unknown, or the encoder has fewer blocks.
    """
    encoder = network.image_encoder
    if mode not in MODES:
        raise VolsamError(f"There is no way {mode!r} to adapt a model; use {', '.join(MODES)}.")
    if mode == "full":
        return
    encoder.requires_grad_(False)
    if mode == "lora":
        for parent, name, linear in list(_linears(encoder)):
            setattr(parent, name, LowRank(linear, rank))
    elif mode == "last-blocks":
        found = _blocks(encoder)
        if blocks > len(found):
            raise VolsamError(
                f"The image encoder has {len(found)} blocks and train.blocks is {blocks}; lower it."
            )
        for block in found[-blocks:]:
            block.requires_grad_(True)
        encoder.neck.requires_grad_(True)


def restrict(network: JointNetwork, parts: str) -> None:
    """Leave out what the parts to train do not reach: see the key ``train.parts``."""
    if parts == "prompts":
        network.decoder.requires_grad_(False)
    elif parts == "automatic":
        network.prompt_encoder.requires_grad_(False)
        network.mask_decoder.requires_grad_(False)


def merge(network: JointNetwork) -> None:
    """Put low-rank additions into the weights they belong to, in place."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LowRank):
                setattr(module, name, child.merged())


def additions(network: JointNetwork) -> dict[str, Tensor]:
    """The trained low-rank parts by name: all that a LoRA run adds to its parent's encoder."""
    state = network.image_encoder.state_dict()
    return {key: value for key, value in state.items() if key.endswith((".down", ".up"))}


def _linears(encoder: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    for parent in encoder.modules():
        for name, child in parent.named_children():
            if name in _LAYERS and isinstance(child, nn.Linear):
                yield parent, name, child


def _blocks(encoder: nn.Module) -> list[nn.Module]:
    """Transformer blocks in order: SAM's list, or TinyViT's of all its stages."""
    if hasattr(encoder, "blocks"):
        return list(encoder.blocks)  # type: ignore[arg-type]
    return [block for layer in encoder.layers for block in layer.blocks]  # type: ignore[union-attr]
