"""The network that is trained for prompts and for automatic segmentation, and its two steps.

One image encoder feeds SAM's prompt encoder and mask decoder, and the decoder of automatic instance
segmentation (AIS). Training interleaves a step for prompts with one for AIS on the same images and
truth (Archit et al., Nature Methods 2025, Methods, "Training").

Invariants
----------
- Each round of prompting is differentiated by itself, and the image encoder once with the gradients
  that all rounds left at the embedding: the same gradient as that of the mean loss over all rounds, and
  the memory of one round.
- All random choices come from the generator passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from volsam.errors import VolsamError
from volsam.models.checkpoint import fit, read_checkpoint
from volsam.models.model import Source, prompt_arguments
from volsam.models.sam import build_sam, normalise, recognise
from volsam.models.tiny_vit import TinyViT
from volsam.models.unetr import UNETR, is_transposed
from volsam.segment.corrections import correction_points, start_prompts
from volsam.segment.prompts import Prompts, best, decode, upscale
from volsam.train.layers import prepare_decoder, prepare_encoder
from volsam.train.loss import ais_loss, mask_losses

Backward = Callable[[Tensor], None]
# For encoders of our own, whose embeddings are fine: prompts see them at half the resolution.
SMALL_PROMPTS = {"heads": 4, "mlp_width": 256, "mask_channels": 8, "drawn": True}


class JointNetwork(nn.Module):
    """Image encoder, prompt encoder, mask decoder and AIS decoder; keys as in our checkpoints.

    Attributes
    ----------
    source : Source
        What it was built from; its descriptions hold for the trained model as well.
    scale : float
        Pixels of the network's input per pixel of the images.
    missing : frozenset of str
        Parts that the model it was built from lacks, which have random weights.
    """

    def __init__(
        self,
        sam: Any,
        decoder: UNETR,
        source: Source,
        scale: float = 1.0,
        missing: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        self.missing = missing
        self.image_encoder = sam.image_encoder
        self.prompt_encoder = sam.prompt_encoder
        self.mask_decoder = sam.mask_decoder
        self.decoder = decoder
        self.source, self.scale = source, scale

    @property
    def image_size(self) -> int:
        """Side of the network's square input in pixels."""
        return int(self.image_encoder.img_size)

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings (n, c, h, w) of images (n, 3, h, w) in 0..255."""
        if self.scale != 1:
            size = [round(extent * self.scale) for extent in images.shape[-2:]]
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        images = normalise(images, self.image_size).contiguous(memory_format=torch.channels_last)
        embeddings: Tensor = self.image_encoder(images)
        return embeddings

    def maps(self, images: Tensor) -> Tensor:
        """Logits of the AIS maps (n, 3, h, w) at the pixels of the images."""
        logits = self.decoder.logits(self.embed(images))
        if self.scale == 1:
            return logits[..., : images.shape[-2], : images.shape[-1]]
        height, width = (round(extent * self.scale) for extent in images.shape[-2:])
        maps = logits[..., :height, :width].float().sigmoid()
        # Maps are resized as in inference, logits would give others.
        return torch.logit(F.interpolate(maps, images.shape[-2:], mode="bilinear"), eps=1e-6)

    def masks(
        self, embedding: Tensor, prompts: Prompts, multimask: bool, shape: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits at the pixels of an image, logits as `decode` gives them, and predicted IoU."""
        low, iou = decode(self, embedding, prompts, multimask)
        return upscale(low, self.image_size, shape, self.scale), low, iou


def build(spec: str, *, scale: float = 1.0, allow_pickle: bool = False) -> JointNetwork:
    """A network with the weights of a model; parts that the model lacks get random weights.

    Parameters
    ----------
    spec : str
        As for `volsam.models.load_model`, or a training checkpoint of micro-sam.
    scale : float
        Pixels of the network's input per pixel of the images.
    allow_pickle : bool
        See `volsam.models.checkpoint.read_checkpoint`.
    """
    source = Source.find(spec)
    checkpoint = read_checkpoint(*source.files, allow_pickle=allow_pickle)
    state = checkpoint.sam
    if source.encoder is None:
        encoder: Any = recognise(state).encoder()
    else:
        encoder = TinyViT(**source.encoder)
        half = encoder.embedding_shape[1] // 2
        source.prompts = source.prompts or {**SMALL_PROMPTS, "side": half}
    sam: Any = build_sam(encoder, encoder.img_size, **prompt_arguments(source, encoder))
    if all(key.startswith("image_encoder.") for key in state):
        bare = {key.removeprefix("image_encoder."): value for key, value in state.items()}
        fit(encoder, bare, f"image encoder of {source.name}", source.files[0])
    else:
        fit(sam, state, source.name, source.files[0])
    if not isinstance(encoder, TinyViT):
        prepare_encoder(encoder)
    channels = sam.prompt_encoder.embed_dim
    decoder_state = checkpoint.decoder
    arguments = source.decoder or {
        "embed_dim": channels,
        "transposed": decoder_state is not None and is_transposed(decoder_state),
    }
    decoder = UNETR(**arguments)
    if decoder_state is not None:
        fit(decoder, decoder_state, "decoder for automatic instance segmentation", source.files[-1])
    prepare_decoder(decoder)
    missing = frozenset() if decoder_state is not None else frozenset({"decoder"})
    if all(key.startswith("image_encoder.") for key in state):
        missing |= {"prompt_encoder", "mask_decoder"}
    return JointNetwork(sam, decoder, source, scale, missing)


class Prompting:
    """The simulated annotator: how prompts are drawn in training.

    Parameters
    ----------
    sub_iterations : int
        Rounds per step.
    mask_probability : float
        Chance that the last prediction is a prompt of the next round.
    box_distortion : float
        See `volsam.segment.corrections.start_prompts`.
    chunk : int
        Objects that are decoded at a time; bounds the memory, changes nothing else.
    """

    def __init__(
        self,
        sub_iterations: int = 8,
        mask_probability: float = 0.5,
        box_distortion: float = 0.025,
        chunk: int = 64,
    ) -> None:
        self.sub_iterations, self.mask_probability = sub_iterations, mask_probability
        self.box_distortion, self.chunk = box_distortion, chunk

    def start(self, truth: Tensor, box: bool, rng: np.random.Generator) -> Prompts:
        """First prompts of objects (n, h, w)."""
        return start_prompts(truth, "box" if box else "point", rng, self.box_distortion)

    def correct(
        self,
        prompts: Prompts,
        truth: Tensor,
        logits: Tensor,
        low: Tensor,
        rng: np.random.Generator,
    ) -> Prompts:
        """Prompts of the next round, in pixels of the image."""
        points, labels = correction_points(truth, logits[:, 0] > 0, rng)
        prompts = prompts.with_points(points, labels)
        return prompts.with_masks(low if rng.random() < self.mask_probability else None)


def prompt_step(
    network: JointNetwork,
    images: Tensor,
    truths: Sequence[Tensor],
    box: bool,
    prompting: Prompting,
    rng: np.random.Generator,
    backward: Backward | None = None,
) -> dict[str, float]:
    """All rounds of prompting for a batch; gradients are added to those there.

    Parameters
    ----------
    network : JointNetwork
        In training or evaluation mode.
    images : (n, 3, h, w) tensor
        In 0..255.
    truths : n tensors (k, h, w), bool
        Objects of each image; images without any count nothing.
    box : bool
        Start from a box instead of a point, which gives three masks, the best of which counts.
    prompting : Prompting
        Rounds and how prompts are drawn.
    rng : numpy Generator
        Source of all randomness.
    backward : callable, optional
        Differentiates a loss (a gradient scaler's, say); without it nothing is differentiated.

    Returns
    -------
    dict
        Means over rounds and images of ``dice`` (1 - Dice of the best mask) and ``iou`` (squared error
        of the predicted IoU); their sum is the loss.
    """
    truths = [truth.to(images.device) for truth in truths]
    with torch.set_grad_enabled(backward is not None):
        embeddings = network.embed(images)
    leaf = embeddings.detach().requires_grad_(backward is not None)
    count = max(1, sum(len(truth) > 0 for truth in truths)) * prompting.sub_iterations
    sums = {"dice": 0.0, "iou": 0.0}
    for embedding, truth in zip(leaf.split(1), truths, strict=True):
        if not len(truth):
            continue
        prompts = prompting.start(truth, box, rng)
        for turn in range(prompting.sub_iterations):
            multimask = turn == 0 and not box
            logits, low = _round(
                network,
                embedding,
                prompts,
                truth,
                multimask,
                prompting.chunk,
                count,
                sums,
                backward,
            )
            if turn + 1 < prompting.sub_iterations:
                prompts = prompting.correct(prompts, truth, logits, low, rng)
    if embeddings.requires_grad and leaf.grad is not None:
        embeddings.backward(leaf.grad)
    return sums


def _round(
    network: JointNetwork,
    embedding: Tensor,
    prompts: Prompts,
    truth: Tensor,
    multimask: bool,
    chunk: int,
    count: int,
    sums: dict[str, float],
    backward: Backward | None,
) -> tuple[Tensor, Tensor]:
    """One round of one image, some objects at a time; the best masks (n, 1, h, w) and their logits."""
    shape = (truth.shape[-2], truth.shape[-1])
    kept: list[tuple[Tensor, Tensor]] = []
    for start in range(0, len(truth), chunk):
        part = slice(start, start + chunk)
        scaled = _part(prompts, part).scaled(network.scale)
        with torch.set_grad_enabled(backward is not None):
            logits, low, iou = network.masks(embedding, scaled, multimask, shape)
            dice, error = mask_losses(logits.float(), truth[part], iou.float())
            share = len(truth[part]) / len(truth) / count
            loss = (dice.mean() + error.mean()) * share
        if backward is not None:
            backward(loss)
        sums["dice"] += float(dice.detach().mean()) * share
        sums["iou"] += float(error.detach().mean()) * share
        with torch.no_grad():
            kept.append((best(logits, iou), best(low, iou)))
    return torch.cat([a.detach() for a, _ in kept]), torch.cat([b.detach() for _, b in kept])


def automatic_step(
    network: JointNetwork,
    images: Tensor,
    targets: Tensor,
    known: Tensor,
    errors: bool,
    backward: Backward | None = None,
) -> float:
    """The step of automatic segmentation; returns the loss, gradients are added to those there.

    Parameters
    ----------
    images : (n, 3, h, w) tensor
        In 0..255.
    targets : (n, 3, h, w) tensor
        From `volsam.train.targets.distance_targets`.
    known : (n, 1, h, w) tensor
        1 where the truth is known, else 0.
    errors : bool
        See `volsam.train.loss.ais_loss`.
    """
    with torch.set_grad_enabled(backward is not None):
        logits = network.maps(images)
        loss = ais_loss(logits, targets.to(logits.device), known.to(logits.device), errors=errors)
    if backward is not None:
        backward(loss)
    return float(loss.detach())


def _part(prompts: Prompts, part: slice) -> Prompts:
    return Prompts(
        *(
            None if value is None else value[part]
            for value in (prompts.points, prompts.labels, prompts.boxes, prompts.masks)
        )
    )


def trainable(network: JointNetwork) -> dict[str, Tensor]:
    """Parameters that training changes, by name."""
    found: dict[str, Tensor] = {
        name: p for name, p in network.named_parameters() if p.requires_grad
    }
    if not found:
        raise VolsamError("Nothing of the model is left to train; set train.adapt: full.")
    return found
