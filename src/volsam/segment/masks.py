"""Masks of one image in little memory, and which of them are duplicates.

A mask is kept within its box, one bit per pixel, compressed; so many masks of a large image are held at
once, and unpacked one by one.

Invariants
----------
- What is unpacked is what was packed.
- Masks keep the order in which they were added, and of equal ones the first wins.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volsam.geometry import Box


@dataclass(frozen=True, eq=False)
class Candidates:
    """Masks of an image that may become objects.

    Attributes
    ----------
    shape : (int, int)
        Of the image.
    pred_iou_thresh, stability_score_thresh : float
        What they passed to be kept, as of `segment.amg.AmgParameters`.
    boxes : (n, 4) int32 array
        Half-open boxes of the masks: y0, x0, y1, x1 in pixels of the image.
    iou : (n,) float32 array
        Predicted intersection over union (IoU) with the object.
    stability : (n,) float32 array
        See `segment.amg.stability`.
    area : (n,) int64 array
        Pixels.
    packed : tuple of bytes
        See `mask`.
    """

    shape: tuple[int, int]
    pred_iou_thresh: float
    stability_score_thresh: float
    boxes: NDArray[np.int32]
    iou: NDArray[np.float32]
    stability: NDArray[np.float32]
    area: NDArray[np.int64]
    packed: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.packed)

    def box(self, number: int) -> Box:
        """Box of a mask."""
        y0, x0, y1, x1 = self.boxes[number].tolist()
        return Box((y0, x0), (y1, x1))

    def mask(self, number: int) -> NDArray[np.bool_]:
        """A mask within its box."""
        height, width = self.box(number).shape
        return unpack(self.packed[number], (height, width))


class Collector:
    """Candidates in the making.

    Parameters
    ----------
    shape, pred_iou_thresh, stability_score_thresh :
        As of `Candidates`.
    """

    def __init__(
        self, shape: tuple[int, int], pred_iou_thresh: float, stability_score_thresh: float
    ) -> None:
        self._head = shape, pred_iou_thresh, stability_score_thresh
        self._boxes: list[tuple[int, ...]] = []
        self._scores: list[tuple[float, float]] = []
        self._area: list[int] = []
        self._packed: list[bytes] = []

    def add(self, box: Box, mask: NDArray[np.bool_], iou: float, stability: float) -> None:
        """Add a mask, given within its box."""
        self._boxes.append((*box.start, *box.stop))
        self._scores.append((iou, stability))
        self._area.append(int(np.count_nonzero(mask)))
        self._packed.append(pack(mask))

    def candidates(self) -> Candidates:
        """What was added so far."""
        scores = np.array(self._scores, np.float32).reshape(-1, 2)
        return Candidates(
            *self._head,
            boxes=np.array(self._boxes, np.int32).reshape(-1, 4),
            iou=scores[:, 0].copy(),
            stability=scores[:, 1].copy(),
            area=np.array(self._area, np.int64),
            packed=tuple(self._packed),
        )


def tight_box(mask: NDArray[np.bool_]) -> Box:
    """The smallest box around a mask (h, w); empty if the mask is."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return Box((0, 0), (0, 0))
    start, stop = (int(rows[0]), int(columns[0])), (int(rows[-1]) + 1, int(columns[-1]) + 1)
    return Box(start, stop)


def pack(mask: NDArray[np.bool_]) -> bytes:
    """Compress a mask; its shape must be kept elsewhere."""
    return zlib.compress(np.packbits(mask).tobytes(), 1)


def unpack(packed: bytes, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask of that shape that `pack` was given."""
    bits = np.frombuffer(zlib.decompress(packed), np.uint8)
    return np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape).view(np.bool_)


def suppress(
    boxes: NDArray[np.integer[Any]], scores: NDArray[np.floating], threshold: float
) -> NDArray[np.intp]:
    """Non-maximum suppression: of boxes that overlap, those of the highest score.

    Parameters
    ----------
    boxes : (n, 4) integer array
        Half-open, y0, x0, y1, x1. As in segment_anything a side is measured from the first pixel to the
        last.
    scores : (n,) float array
        Of equal ones the first wins.
    threshold : float
        IoU above which two boxes overlap.

    Returns
    -------
    (k,) intp array
        Boxes that are left, by descending score.
    """
    low, high = boxes[:, :2].astype(np.int64), boxes[:, 2:].astype(np.int64) - 1
    area = (high - low).prod(axis=1)
    order = np.argsort(-scores, kind="stable")
    left = []
    while order.size:
        first, order = order[0], order[1:]
        left.append(first)
        sides = np.minimum(high[first], high[order]) - np.maximum(low[first], low[order])
        common = sides.clip(0).prod(axis=1)
        order = order[common <= threshold * (area[first] + area[order] - common)]
    return np.array(left, np.intp)
