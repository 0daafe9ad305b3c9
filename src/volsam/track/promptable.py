"""A segment-anything model as what `propagate` asks: objects of one image from points, boxes and masks.

An image that fits the network's input is seen whole. In a larger one each object is seen in a window of
the input's size, at the model's scale, in which it lies central; windows lie on a grid of half their
side, so that neighbours share one and its embedding.

Invariants
----------
- An answer depends on the image and the query only, up to the rounding of batches.
- Three masks are predicted where one point is all there is, which is ambiguous; the one of best predicted
  IoU is the answer.
- Memory is bounded by `batch` masks of one window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from volsam.errors import VolsamError
from volsam.geometry import Box, window_span
from volsam.models.model import Model, memory_errors
from volsam.segment.masks import tight_box
from volsam.segment.predict import embed_image
from volsam.segment.prompts import NEGATIVE, POSITIVE, Prompts, best, decode, upscale
from volsam.track.propagate import Answer, Image, Query

_SURE = 8.0  # logit of a mask that is handed on


class SamPredictor:
    """A model that answers queries.

    Parameters
    ----------
    model : Model
        With prompt encoder and mask decoder.
    scale : float
        Pixels of the network's input per pixel of the image.
    batch : int
        Objects at once.

    Raises
    ------
    VolsamError
        If the model takes no prompts.
    """

    def __init__(self, model: Model, scale: float = 1.0, batch: int = 16) -> None:
        if model.sam is None:
            raise VolsamError(
                f"Model {model.name} has no prompt encoder and mask decoder, so it cannot follow "
                "prompts; use a complete SAM checkpoint."
            )
        self.model, self.scale, self.batch = model, scale, batch

    def __call__(self, image: Image, queries: Sequence[Query]) -> list[Answer]:
        """Answers in the order of the queries.

        Parameters
        ----------
        image : (h, w) float32 array
            Normalised; what lies outside of 0..1 is clipped.
        queries : sequence of Query

        Raises
        ------
        MemoryError
            If memory runs out; use a smaller `batch`.
        """
        members: dict[Box, list[int]] = {}
        for number, query in enumerate(queries):
            members.setdefault(self._window(query, image.shape), []).append(number)
        answers: dict[int, Answer] = {}
        with torch.inference_mode(), memory_errors():
            for window, numbers in sorted(members.items()):
                scale = min(self.scale, self.model.image_size / max(window.shape))
                embedding = embed_image(self.model, image[window.slices], scale)
                for some in self._batches(queries, numbers):
                    chosen = [queries[number] for number in some]
                    found = self._decode(embedding, chosen, window, scale)
                    answers |= zip(some, found, strict=True)
        return [answers[number] for number in range(len(queries))]

    def _window(self, query: Query, shape: Sequence[int]) -> Box:
        """Rows and columns in which an object is seen."""
        y0, x0, y1, x1 = query.box or (
            min(y for (y, _), _ in query.points),
            min(x for (_, x), _ in query.points),
            max(y for (y, _), _ in query.points) + 1,
            max(x for (_, x), _ in query.points) + 1,
        )
        side = int(max(self.model.image_size / self.scale, 1, np.ceil(max(y1 - y0, x1 - x0))))
        ends = ((y0, y1, shape[0]), (x0, x1, shape[1]))
        spans = [window_span(low, high, length, side) for low, high, length in ends]
        return Box(tuple(a for a, _ in spans), tuple(b for _, b in spans))

    def _batches(self, queries: Sequence[Query], numbers: list[int]) -> list[list[int]]:
        """Queries of one kind: a batch has as many points for each, and boxes and masks for all."""
        kinds: dict[tuple[int, bool, bool], list[int]] = {}
        for number in numbers:
            query = queries[number]
            kind = len(query.points), query.box is not None, query.mask is not None
            kinds.setdefault(kind, []).append(number)
        return [
            alike[start : start + self.batch]
            for alike in kinds.values()
            for start in range(0, len(alike), self.batch)
        ]

    def _decode(
        self, embedding: Tensor, queries: Sequence[Query], window: Box, scale: float
    ) -> list[Answer]:
        prompts = self._prompts(queries, window, scale)
        single = prompts.boxes is None and prompts.masks is None
        single &= prompts.labels is not None and prompts.labels.shape[1] == 1
        logits, iou = decode(self.model.sam, embedding, prompts, multimask=single)
        if not iou.isfinite().all():
            raise VolsamError(
                "The predicted IoU is NaN or infinite, so the network overflowed or its weights are "
                "broken; run with precision fp32 or check the checkpoint."
            )
        height, width = window.shape
        logits = best(logits, iou).float()
        found = upscale(logits, self.model.image_size, (height, width), scale)[:, 0].cpu().numpy()
        quality = iou.max(dim=1).values.tolist()
        return [_cut(each, window, value) for each, value in zip(found, quality, strict=True)]

    def _prompts(self, queries: Sequence[Query], window: Box, scale: float) -> Prompts:
        """Queries in the network's pixels, as (x, y)."""
        corner = np.asarray(window.start)
        points = labels = boxes = masks = None
        if queries[0].points:
            places = np.array([[place for place, _ in q.points] for q in queries]) - corner
            points = torch.from_numpy(((places[..., ::-1] + 0.5) * scale - 0.5).astype(np.float32))
            signs = [[POSITIVE if there else NEGATIVE for _, there in q.points] for q in queries]
            labels = torch.tensor(signs)
        if queries[0].box is not None:
            ends = np.array([q.box for q in queries]).reshape(-1, 2, 2) - corner
            boxes = torch.from_numpy((ends[..., ::-1] * scale).reshape(-1, 4).astype(np.float32))
        if queries[0].mask is not None:
            masks = torch.cat([self._mask(q, window, scale) for q in queries])
        return Prompts(points, labels, boxes, masks)

    def _mask(self, query: Query, window: Box, scale: float) -> Tensor:
        """A mask as logits (1, 1, m, m) of the whole input."""
        assert query.mask is not None
        box, mask = query.mask
        picture: npt.NDArray[np.float32] = np.full(window.shape, -_SURE, np.float32)
        inside = box.intersect(window)
        if inside.size:
            part = mask[inside.relative_to(box).slices]
            picture[inside.relative_to(window).slices] = np.where(part, _SURE, -_SURE)
        sam: Any = self.model.sam
        size: tuple[int, int] = sam.prompt_encoder.mask_input_size
        share = scale / self.model.image_size
        extent = [max(1, round(n * share * m)) for n, m in zip(picture.shape, size, strict=True)]
        small = F.interpolate(torch.from_numpy(picture)[None, None], extent, mode="area")
        after = [m - n for m, n in zip(size, extent, strict=True)]
        return F.pad(small, (0, after[1], 0, after[0]), value=-_SURE)


def _cut(logits: npt.NDArray[np.float32], window: Box, iou: float) -> Answer:
    """A mask within its box."""
    tight = tight_box(logits > 0)
    return Answer(tight.shift(window.start), logits[tight.slices].copy(), iou)
