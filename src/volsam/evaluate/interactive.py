"""Simulated interactive segmentation: prompts as a user would give them, round after round.

The evaluation of Segment Anything for Microscopy (Archit et al. 2025,
https://doi.org/10.1038/s41592-024-02580-4, Inference and evaluation): every object of the truth
starts from one point or from its box, then each round corrects the prediction by a positive and a
negative point, with or without the last prediction as a further prompt.

Invariants
----------
- Result k is after k corrections, so `rounds` corrections give ``rounds + 1`` results; the paper
  shows the results 0 to 7.
- Three masks are predicted for the single first point only; the one of best predicted IoU counts,
  here and as the mask prompt of the next round.
- With and without mask prompt start from the same prompts.
- Memory is bounded by `batch` masks of one window, the embeddings of the windows and
  ``rounds + 1`` label images, whatever the number of objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from volsam.errors import VolsamError
from volsam.evaluate.metrics import segmentation_accuracy
from volsam.evaluate.windows import Window, windows
from volsam.models.model import memory_errors
from volsam.segment.corrections import Start, correction_points, start_prompts
from volsam.segment.predict import Embedder, embed_image
from volsam.segment.prompts import Prompts, best, decode, upscale

Predict = Callable[[Prompts, bool], tuple[Tensor, Tensor]]
STARTS: tuple[Start, ...] = ("point", "box")


class Promptable(Embedder, Protocol):
    """What is asked of a model; `volsam.models.Model` qualifies."""

    sam: Any


@dataclass(frozen=True)
class Setting:
    """How a session goes: from what it starts, and whether masks are handed on."""

    start: Start
    with_mask: bool

    @property
    def name(self) -> str:
        """For tables and legends."""
        return f"{self.start}, {'with' if self.with_mask else 'without'} mask"


SETTINGS = tuple(Setting(start, masked) for start, masked in product(STARTS, (False, True)))


@dataclass(frozen=True)
class Curve:
    """Results of one setting on one image.

    Attributes
    ----------
    setting : Setting
        Of the simulation.
    ids : (n,) array
        Objects, as in the labels.
    iou : (rounds + 1, n) float64 array
        Of each prediction with its own object.
    scores : list of dict
        Per result, `metrics.score` of all predictions put into one label image, the smaller ones in
        front.
    """

    setting: Setting
    ids: NDArray[Any]
    iou: NDArray[np.float64]
    scores: list[dict[str, Any]]


def simulate(
    predict: Predict,
    truth: Tensor,
    setting: Setting,
    rng: np.random.Generator,
    *,
    image_size: int,
    scale: float = 1.0,
    rounds: int = 8,
    distortion: float = 0.025,
    ignore: Tensor | None = None,
) -> Iterator[Tensor]:
    """Segment objects interactively; yields the masks after 0, 1 … `rounds` corrections.

    Parameters
    ----------
    predict : function of (Prompts, multimask) to (logits, predicted IoU)
        As `prompts.decode` for one embedding.
    truth : (n, h, w) bool tensor
        One object each, none empty.
    setting : Setting
        Start, and whether the last mask is a prompt.
    rng : numpy.random.Generator
        Source of all randomness.
    image_size : int
        Side of the network's square input.
    scale : float
        Pixels of the network's input per pixel of the image.
    rounds : int
        Corrections.
    distortion : float
        Of boxes, see `start_prompts`.
    ignore : (h, w) bool tensor, optional
        Pixels that are not looked at.

    Yields
    ------
    (n, h, w) bool tensor
    """
    height, width = truth.shape[-2:]
    prompts = start_prompts(truth, setting.start, rng, distortion)
    for done in range(rounds + 1):
        logits, quality = predict(prompts.scaled(scale), done == 0 and setting.start == "point")
        logits = best(logits, quality)
        masks = upscale(logits, image_size, (height, width), scale)[:, 0] > 0
        yield masks
        if done < rounds:
            points, labels = correction_points(truth, masks, rng, ignore)
            prompts = prompts.with_points(points, labels)
            prompts = prompts.with_masks(logits if setting.with_mask else None)


def interact(
    model: Promptable,
    image: NDArray[np.floating],
    labels: NDArray[np.integer[Any]],
    *,
    ignore: NDArray[np.bool_] | None = None,
    settings: Sequence[Setting] = SETTINGS,
    rounds: int = 8,
    seed: int = 0,
    batch: int = 32,
    scale: float = 1.0,
    distortion: float = 0.025,
) -> list[Curve]:
    """Segment all objects of an image interactively.

    Parameters
    ----------
    model : Promptable
        With prompt encoder and mask decoder.
    image : (h, w) array
        Normalised intensities; what lies outside of 0..1 is clipped. Images beyond the network's
        input are cut into windows, see `windows`.
    labels : (h, w) integer array
        True objects, 0 is background.
    ignore : (h, w) bool array, optional
        Pixels without truth, left out of objects and predictions.
    settings : sequence of Setting
        What is simulated; all four by default.
    rounds, distortion, scale :
        As in `simulate`.
    seed : int
        The prompts are a function of it, of `batch` and of the predictions.
    batch : int
        Objects at once.

    Returns
    -------
    list of Curve
        One per setting; with 0 objects, curves of 0 columns.

    Raises
    ------
    VolsamError
        If the model takes no prompts, or image and labels differ in shape.
    MemoryError
        If memory runs out; use a smaller `batch`.
    """
    if model.sam is None:
        raise VolsamError(
            "The model has no prompt encoder and mask decoder, so it cannot be evaluated "
            "interactively; use a complete SAM checkpoint or switch interactive evaluation off."
        )
    if image.shape != labels.shape:
        raise VolsamError(
            f"The image of shape {image.shape} and its labels of shape {labels.shape} do not "
            "match; give labels on the grid of the image."
        )
    known = np.ones(labels.shape, bool) if ignore is None else ~ignore
    ids, numbers = np.unique(np.where(known, labels, 0), return_inverse=True)
    numbers = numbers.reshape(labels.shape) + (0 if (ids == 0).any() else 1)
    ids = ids[ids != 0]
    parts = windows(numbers, model.image_size, scale)
    curves = []
    with torch.inference_mode(), memory_errors():
        embeddings = [embed_image(model, image[part.box.slices], part.scale) for part in parts]
        for setting in settings:
            iou = np.zeros((rounds + 1, ids.size))
            canvas = _Canvas(rounds + 1, labels.shape, ids.size)
            for place, (part, embedding) in enumerate(zip(parts, embeddings, strict=True)):
                unknown = torch.from_numpy(~known[part.box.slices]).to(embedding.device)
                for start in range(0, part.ids.size, batch):
                    chosen = part.ids[start : start + batch]
                    truth = torch.from_numpy(numbers[part.box.slices] == chosen[:, None, None])
                    truth = truth.to(embedding.device)
                    session = simulate(
                        partial(decode, model.sam, embedding),
                        truth,
                        setting,
                        np.random.default_rng([seed, STARTS.index(setting.start), place, start]),
                        image_size=model.image_size,
                        scale=part.scale,
                        rounds=rounds,
                        distortion=distortion,
                        ignore=unknown,
                    )
                    for done, masks in enumerate(session):
                        masks = masks & ~unknown
                        iou[done, chosen - 1] = _iou(masks, truth)
                        canvas.paste(done, part, chosen, masks.cpu().numpy())
            scores = [segmentation_accuracy(found, numbers, mask=known) for found in canvas.labels]
            curves.append(Curve(setting, ids, iou, scores))
    return curves


class _Canvas:
    """Label images of several rounds; where masks overlap, the smaller one is in front."""

    def __init__(self, rounds: int, shape: tuple[int, ...], objects: int) -> None:
        self.labels = np.zeros((rounds, *shape), np.int32)
        self._area = np.full((rounds, objects + 1), np.inf)  # background is behind all

    def paste(
        self, done: int, part: Window, ids: NDArray[np.intp], masks: NDArray[np.bool_]
    ) -> None:
        """Add masks (n, h, w) of a window to one of the images."""
        view = self.labels[done][part.box.slices]
        for number, mask in zip(ids, masks, strict=True):
            y, x = np.nonzero(mask)
            self._area[done, number] = y.size
            front = y.size < self._area[done, view[y, x]]
            view[y[front], x[front]] = number


def _iou(masks: Tensor, truth: Tensor) -> NDArray[np.float64]:
    common = (masks & truth).sum(dim=(1, 2))
    union = (masks | truth).sum(dim=(1, 2))
    return (common.cpu().double() / union.cpu()).numpy()
