"""Prompts that a user would give for known objects: a first point or box, then corrections.

The annotator of the iterative training and evaluation of Segment Anything for Microscopy (Archit et
al. 2025, https://doi.org/10.1038/s41592-024-02580-4, Methods, steps 4a and 4d) and of SAM itself
(Kirillov et al. 2023).

Invariants
----------
- Coordinates (x, y) name pixels: (0, 0) is the upper left one, and SAM adds the half to its centre.
- The draws come from NumPy's generator alone and one per object and point, so that the same masks
  give the same prompts on every device.
- Only counts per row and single rows of the masks leave their device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from volsam.errors import VolsamError
from volsam.segment.prompts import NEGATIVE, POSITIVE, Prompts

Start = Literal["point", "box"]
Index = slice | NDArray[np.intp]

NO_POINT = -1  # label of a point that SAM ignores
NEAR = 3  # pixels around an object's box that count as near it


def start_prompts(
    truth: Tensor, kind: Start, rng: np.random.Generator, distortion: float = 0.025
) -> Prompts:
    """First prompts: a random point inside of each object, or its bounding box.

    Parameters
    ----------
    truth : (n, h, w) bool tensor
        One object each, none empty.
    kind : {"point", "box"}
        Which of the two.
    rng : numpy.random.Generator
        Source of all randomness.
    distortion : float
        Every side of a box is moved outwards by a uniform share of the box's length along that
        axis, of at most this; 0 gives the exact box. Boxes end at the border of the image.

    Returns
    -------
    Prompts
        Points (n, 1, 2) with labels (n, 1), or boxes (n, 4), float32 on the device of `truth`.

    Raises
    ------
    VolsamError
        If an object has no pixel.
    """
    if kind == "point":
        points, empty = _draw([lambda rows: truth[rows]], rng.random(len(truth)))
        _refuse(empty)
        labels = torch.full((len(truth), 1), POSITIVE, device=truth.device)
        return Prompts(points=torch.from_numpy(points)[:, None].to(truth.device), labels=labels)
    boxes = bounding_boxes(truth)
    extent = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    outwards = np.array([-1, -1, 1, 1]) * rng.uniform(0, distortion, boxes.shape) * extent
    height, width = truth.shape[-2:]
    boxes = np.clip(boxes + outwards, 0, [width, height, width, height])
    return Prompts(boxes=torch.from_numpy(boxes.astype(np.float32)).to(truth.device))


def correction_points(
    truth: Tensor,
    prediction: Tensor,
    rng: np.random.Generator,
    ignore: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One positive and one negative point per object, where the prediction is wrong.

    The positive point is a random pixel of the object that the prediction misses, or any pixel of
    the object if it misses none; the negative one a random pixel that the prediction has too much,
    or one near the object (in its box grown by `NEAR` pixels, else anywhere outside of it).

    Parameters
    ----------
    truth, prediction : (n, h, w) bool tensor
        One object each; no object of `truth` may be empty.
    rng : numpy.random.Generator
        Source of all randomness.
    ignore : (h, w) or (n, h, w) bool tensor, optional
        Pixels whose truth is not known; no point is set there.

    Returns
    -------
    points : (n, 2, 2) float32 tensor
        Coordinates (x, y) on the device of `truth`, the positive point first.
    labels : (n, 2) int64 tensor
        `POSITIVE`, `NEGATIVE`; `NO_POINT` in place of the latter where nothing but the object is known.

    Raises
    ------
    VolsamError
        If an object has no known pixel, or the masks differ in shape.
    """
    if truth.shape != prediction.shape:
        raise VolsamError(
            f"A prediction of shape {tuple(prediction.shape)} cannot be corrected by truth of shape "
            f"{tuple(truth.shape)}: bring the masks to the pixels of the image first."
        )
    share = rng.random((2, len(truth)))
    outside = ~truth
    if ignore is not None:
        truth, outside = truth & ~ignore, outside & ~ignore
    missed, extra = truth & ~prediction, outside & prediction
    positive, empty = _draw([lambda rows: missed[rows], lambda rows: truth[rows]], share[0])
    _refuse(empty)
    negative, filled = _draw(
        [
            lambda rows: extra[rows],
            lambda rows: _near(truth[rows]) & outside[rows],
            lambda rows: outside[rows],
        ],
        share[1],
    )
    points = torch.from_numpy(np.stack([positive, negative], axis=1))
    labels = torch.tensor([[POSITIVE, NEGATIVE]]).repeat(len(truth), 1)
    labels[torch.from_numpy(filled), 1] = NO_POINT
    return points.to(truth.device), labels.to(truth.device)


def bounding_boxes(masks: Tensor) -> NDArray[np.float64]:
    """Boxes (n, 4) of masks (n, h, w) as (x0, y0, x1, y1), x1 and y1 one past the last pixel.

    Raises
    ------
    VolsamError
        If a mask has no pixel.
    """
    boxes = np.empty((len(masks), 4))
    for axis in (0, 1):
        hit = masks.any(dim=1 + axis).cpu().numpy()
        _refuse(np.flatnonzero(~hit.any(axis=1)))
        boxes[:, axis] = hit.argmax(axis=1)
        boxes[:, 2 + axis] = hit.shape[1] - hit[:, ::-1].argmax(axis=1)
    return boxes


def _near(truth: Tensor) -> Tensor:
    """The boxes of objects, grown by `NEAR`, as masks (n, h, w)."""
    x0, y0, x1, y1 = torch.from_numpy(bounding_boxes(truth)).to(truth.device).T[..., None]
    y, x = (torch.arange(side, device=truth.device)[None] for side in truth.shape[-2:])
    rows, columns = (y >= y0 - NEAR) & (y < y1 + NEAR), (x >= x0 - NEAR) & (x < x1 + NEAR)
    return rows[:, :, None] & columns[:, None]


def _draw(
    regions: Sequence[Callable[[Index], Tensor]], share: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """One pixel per object, from the first of several regions that has any.

    Parameters
    ----------
    regions : sequence of function
        Of the numbers of some objects (or a slice of all) to their regions, (m, h, w) bool.
    share : (n,) array
        Uniform in 0..1: which of the pixels, in their order.

    Returns
    -------
    points : (n, 2) float32 array
        Coordinates (x, y).
    without : (m,) array
        Numbers of the objects that have a pixel in no region; their point is (0, 0).
    """
    points = np.zeros((len(share), 2), np.float32)
    pending = np.arange(len(share))
    for region in regions:
        if not pending.size:
            break
        masks = region(slice(None) if pending.size == len(share) else pending)
        drawn, found = _pick(masks, share[pending])
        points[pending[found]] = drawn[found]
        pending = pending[~found]
    return points, pending


def _pick(masks: Tensor, share: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """The pixel at a share of each mask's pixels, (n, 2) as (x, y), and whether it has any."""
    upto = masks.sum(dim=2, dtype=torch.int32).cpu().numpy().cumsum(axis=1, dtype=np.int64)
    total = upto[:, -1]
    rank = np.minimum((share * total).astype(np.int64), total - 1)
    y = np.minimum((upto <= rank[:, None]).sum(axis=1), masks.shape[1] - 1)
    each = np.arange(len(masks))
    rank -= np.where(y > 0, upto[each, y - 1], 0)
    row = masks[torch.from_numpy(each), torch.from_numpy(y)].cpu().numpy()
    x = (row.cumsum(axis=1) > rank[:, None]).argmax(axis=1)
    return np.stack([x, y], axis=1), total > 0


def _refuse(empty: NDArray[np.intp]) -> None:
    if empty.size:
        raise VolsamError(
            f"Object {int(empty[0])} of the batch has no pixel, so no prompt can be drawn from it; "
            "leave out objects that are not in the crop."
        )
