"""Automatic mask generation (AMG): a grid of points → masks of one image → instance labels.

Every point of a regular grid is a prompt for three masks, which are filtered by the quality that the
network predicts and by their stability, and freed of duplicates (Kirillov et al., ICCV 2023,
https://doi.org/10.1109/ICCV51070.2023.00371, appendix "Automatic mask generation details"). They become
a label image as in micro-sam (Archit et al. 2025, https://doi.org/10.1038/s41592-024-02580-4).

`predict_candidates` runs the network once; `segment_amg` filters what it found, as often as
parameters are tried.

Invariants
----------
- On one embedding of an image that fits the network's input, masks and scores are those of
  segment_anything; they become labels by micro-sam's rules.
- A larger image is covered by windows that overlap by half. A point is prompted in the window in
  which it lies most central, so the grid is equally dense everywhere. A mask near a border between
  windows may be cut, and is dropped.
- Memory is bounded by a few masks of one window, and the compressed boxes of those that are kept.
- Candidates are in the order of windows, points and masks, and ties are resolved in that order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import torch
from bioimage_cpp.segmentation import label
from numpy.typing import NDArray
from torch import Tensor

from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.models.model import memory_errors
from volsam.segment.ais import select
from volsam.segment.masks import Candidates, Collector, suppress, tight_box
from volsam.segment.predict import embed_image
from volsam.segment.prompts import POSITIVE, Prompts, decode, upscale

if TYPE_CHECKING:
    from volsam.models import Model

_MARGIN = 20 / 1024  # of a window's side: segment_anything's 20 pixels where the input is 1024
_AT_ONCE = 16  # masks in the resolution of the image


@dataclass(frozen=True)
class AmgParameters:
    """Which masks become objects; defaults are those of segment_anything and micro-sam.

    Attributes
    ----------
    pred_iou_thresh : float
        Masks are kept whose predicted intersection over union (IoU) is above this.
    stability_score_thresh : float
        Masks are kept whose stability, see `stability`, is at least this (0..1).
    box_nms_thresh : float
        Of two masks whose boxes have an IoU above this (0..1), that of lower predicted IoU goes.
    min_size : int
        Masks and objects of fewer pixels are dropped; 0 keeps all.
    with_background : bool
        Drop the largest object if it is larger than what no object covers: it is the background.
    """

    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    box_nms_thresh: float = 0.7
    min_size: int = 0
    with_background: bool = True


def predict_candidates(
    model: Model,
    image: NDArray[np.floating],
    *,
    loosest: AmgParameters | None = None,
    scale: float = 1.0,
    points_per_side: int = 32,
    batch: int = 64,
) -> Candidates:
    """Predict the masks of a grid of points.

    Parameters
    ----------
    model : Model
        With prompt encoder and mask decoder.
    image : (h, w) array
        Normalised intensities; what lies outside of 0..1 is clipped.
    loosest : AmgParameters, optional
        Its thresholds of predicted IoU and stability say what is kept; the lowest that
        `segment_amg` will be asked for, by default its own.
    scale : float
        Pixels of the network's input per pixel of the image.
    points_per_side : int
        Points along each axis of an image that fits the network's input, or of a window.
    batch : int
        Points at once.

    Raises
    ------
    VolsamError
        If the model takes no prompts, or predicts NaN.
    MemoryError
        If memory runs out; use a smaller `batch`.
    """
    if model.sam is None:
        raise VolsamError(
            f"Model {model.name} has no prompt encoder and mask decoder for automatic mask "
            "generation; use a complete SAM checkpoint."
        )
    least = loosest or AmgParameters()
    shape = (image.shape[0], image.shape[1])
    found = Collector(shape, least.pred_iou_thresh, least.stability_score_thresh)
    side = max(1, int(model.image_size / scale))
    with torch.inference_mode(), memory_errors():
        for window, points in _windows(shape, side, points_per_side):
            embedding = embed_image(model, image[window.slices], scale)
            for some in torch.from_numpy((points + 0.5) * scale - 0.5).float().split(batch):
                logits, iou = _decode(model, embedding, some)
                good = (iou > least.pred_iou_thresh).nonzero().flatten()
                for few in good.split(_AT_ONCE) if good.numel() else ():
                    height, width = window.shape
                    few_logits = logits[few][:, None]
                    few_logits = upscale(few_logits, model.image_size, (height, width), scale)
                    _collect(found, few_logits[:, 0], iou[few], window, least, shape)
    return found.candidates()


def segment_amg(
    candidates: Candidates, parameters: AmgParameters | None = None
) -> NDArray[np.uint32]:
    """Label the instances of one image.

    Masks that pass lie on top of each other, the smaller ones in front; what is then connected by
    the sides of pixels is an object.

    Parameters
    ----------
    candidates : Candidates
        From `predict_candidates`.
    parameters : AmgParameters, optional
        Defaults to ``AmgParameters()``.

    Returns
    -------
    (h, w) uint32
        0 is background, objects are numbered 1..n without gaps.

    Raises
    ------
    VolsamError
        If the parameters ask for masks that were not kept.
    """
    p = parameters or AmgParameters()
    for name in ("pred_iou_thresh", "stability_score_thresh"):
        kept, asked = getattr(candidates, name), getattr(p, name)
        if asked < kept:
            raise VolsamError(
                f"Candidates were kept from a {name} of {kept:g} on, not from {asked:g}; predict "
                "them with the lower one."
            )
    passed = candidates.iou > p.pred_iou_thresh
    passed &= candidates.stability >= p.stability_score_thresh
    passed &= candidates.area >= p.min_size
    chosen = np.flatnonzero(passed)
    chosen = chosen[suppress(candidates.boxes[chosen], candidates.iou[chosen], p.box_nms_thresh)]
    chosen = chosen[np.argsort(-candidates.area[chosen], kind="stable")]
    stacked = np.zeros(candidates.shape, np.uint32)
    for number, candidate in enumerate(chosen.tolist(), start=1):
        stacked[candidates.box(candidate).slices][candidates.mask(candidate)] = number
    return _drop(label(stacked, connectivity=1), p)


def stability(logits: Tensor, offset: float = 1.0) -> Tensor:
    """How little masks depend on the threshold: the IoU of those at `offset` and at ``-offset``.

    Parameters
    ----------
    logits : (n, h, w) tensor
        In the resolution of the image.
    offset : float
        Above and below the usual threshold, 0.

    Returns
    -------
    (n,) float32 tensor
        0..1, NaN where no logit is above ``-offset``.
    """
    inner, outer = ((logits > level).sum(dim=(1, 2)) for level in (offset, -offset))
    return inner.float() / outer.float()


def _decode(model: Model, embedding: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (3 n, m, m) and predicted IoU (3 n,) of n points."""
    labels = torch.full((len(points), 1), POSITIVE)
    prompts = Prompts(points=points[:, None], labels=labels)
    logits, iou = decode(model.sam, embedding, prompts, multimask=True)
    if not iou.isfinite().all():
        raise VolsamError(
            "The predicted IoU is NaN or infinite, so the network overflowed or its weights are "
            "broken; run with precision fp32 or check the checkpoint."
        )
    return logits.flatten(0, 1), iou.flatten()


def _collect(
    found: Collector,
    logits: Tensor,
    iou: Tensor,
    window: Box,
    least: AmgParameters,
    shape: tuple[int, int],
) -> None:
    """Keep the masks (n, h, w) of a window that are stable, not empty, and surely not cut."""
    steady = stability(logits)
    good = steady >= least.stability_score_thresh
    masks = (logits[good] > 0).cpu().numpy()
    for mask, *scores in zip(masks, iou[good].tolist(), steady[good].tolist(), strict=True):
        tight = tight_box(mask)
        box = tight.shift(window.start)
        if tight.size and not _may_be_cut(box, window, shape):
            found.add(box, mask[tight.slices], *scores)


def _may_be_cut(box: Box, window: Box, shape: tuple[int, int]) -> bool:
    """Whether a mask comes close to a border of its window that is not the image's."""
    ends = zip(box.start, box.stop, window.start, window.stop, shape, strict=True)
    for start, stop, first, end, length in ends:
        margin = _MARGIN * (end - first)
        if first > 0 and start - first <= margin:
            return True
        if end < length and end - (stop - 1) <= margin:
            return True
    return False


def _drop(labels: NDArray[np.uint64], p: AmgParameters) -> NDArray[np.uint32]:
    """Remove small objects and the background, and close the gaps in numbering."""
    sizes = np.bincount(labels.ravel())
    keep = sizes >= p.min_size
    if p.with_background:
        keep[sizes.argmax()] = False
    return select(labels, keep)


def _windows(
    shape: tuple[int, int], side: int, points_per_side: int
) -> Iterator[tuple[Box, NDArray[np.float64]]]:
    """Windows, and the points (n, 2) prompted in each: x and y from its corner, row by row."""
    along = (_along(length, side, points_per_side) for length in shape)
    for (y0, y1, rows), (x0, x1, columns) in product(*along):
        x, y = np.meshgrid(columns - x0, rows - y0)
        if x.size:
            yield Box((y0, x0), (y1, x1)), np.stack([x, y], axis=-1).reshape(-1, 2)


def _along(
    length: int, side: int, points_per_side: int
) -> list[tuple[int, int, NDArray[np.float64]]]:
    """Start and stop of the windows along an axis, and the points that lie most central in each."""
    side = min(side, length)
    step, last = max(1, side // 2), length - side
    starts = np.unique(np.minimum(np.arange(0, last + step, step), last))
    count = ceil(points_per_side * length / side)
    # segment_anything's points: fractions of the side, taken as numbers of pixels.
    points = (np.arange(count) + 0.5) / count * length
    nearest = np.abs(points[:, None] - (starts + side / 2)).argmin(axis=1)
    return [(s, s + side, points[nearest == i]) for i, s in enumerate(starts.tolist())]
