"""Prompted objects followed through a sequence of planes: from the mask in a frame to that in the next.

The model is asked for the box of the last mask, moved as the image moves there (`volsam.track.motion`)
and grown a little, with the mask's innermost point, and the mask itself if that is wanted. Handing masks
on as prompts of the next image is how micro-sam tracks (Archit et al. 2025,
https://doi.org/10.1038/s41592-024-02580-4, Methods, interactive tracking).

Invariants
----------
- A box or a positive point of the user in a later frame replaces what would be asked; points of the
  background alone are added to it.
- Objects do not overlap: a pixel belongs to the track of the highest logit, of equal ones to that of the
  lowest number. An object is one piece, the largest.
- A track goes on until the user's end or division, or until it is lost: the model gives no mask or a low
  predicted IoU, the area jumps, or other tracks take most of it. Where the user prompts, nothing is lost
  but what has no mask, and a lost track goes on from its next prompt.
- Two frames are held; of tracks that are followed backward, also their masks' boxes of earlier frames.
- The result is a function of the arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi

from volsam.geometry import Box
from volsam.track.motion import flow
from volsam.track.prompted import Prompt, PromptTable, Propagation

Image = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]

_SHARE = 0.5  # of its own mask that an object must keep beside other tracks


@dataclass(frozen=True, eq=False)
class Query:
    """What a model is asked for one object, in pixels of the image.

    Attributes
    ----------
    points : tuple of ((float, float), bool)
        Pixels (y, x), and whether the object is there.
    box : (float, float, float, float) or None
        y0, x0, y1, x1; ends before y1 and x1.
    mask : (Box, (h, w) bool array) or None
        Where the object is expected, within a box that may reach beyond the image.
    """

    points: tuple[tuple[tuple[float, float], bool], ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: tuple[Box, Mask] | None = None


class Answer(NamedTuple):
    """A mask that a model gives.

    Attributes
    ----------
    box : Box
        Rows and columns that hold it; of size 0 if there is none.
    logits : (h, w) floating array
        Above 0 inside, within that box.
    iou : float
        Predicted intersection over union with the object.
    """

    box: Box
    logits: npt.NDArray[np.floating]
    iou: float

    @property
    def mask(self) -> Mask:
        """Pixels of the object within the box."""
        return self.logits > 0


Predict = Callable[[Image, Sequence[Query]], Sequence[Answer]]


class Step(NamedTuple):
    """A frame of the result.

    Attributes
    ----------
    frame : int
    labels : (h, w) uint32 array
        Tracks, 0 is background.
    lost : dict of int to str
        Tracks that are not found in this frame, with the reason.
    """

    frame: int
    labels: Labels
    lost: dict[int, str]


def propagate(
    predict: Predict,
    read: Callable[[int], Image],
    table: PromptTable,
    frames: range,
    shape: tuple[int, int],
    settings: Propagation | None = None,
    corner: tuple[int, int] = (0, 0),
) -> Iterator[Step]:
    """Follow prompted objects.

    Parameters
    ----------
    predict : function of an image and queries to answers
        The model, e.g. `volsam.track.promptable.SamPredictor`.
    read : function of a frame to a (h, w) float32 array
        Intensities, normalised.
    table : PromptTable
        What the user says.
    frames : range
        Frames of the sequence.
    shape : (int, int)
        Of a frame.
    settings : Propagation, optional
        Defaults to ``Propagation()``.
    corner : (int, int)
        Pixel (y, x) of the user's coordinates at which the frames begin.

    Yields
    ------
    Step
        Of every frame, in their order.

    Raises
    ------
    VolsamError
        If a prompt lies outside of the frames.
    """
    settings = settings or Propagation()
    table.check(frames, corner, shape)
    earlier = _backward(predict, read, table, frames, shape, settings, corner)
    prompts = {
        f: {t: _moved(p, corner) for t, p in own.items()} for f, own in table.prompts.items()
    }
    walk = _Walk(predict, read, shape, settings, table.last)
    for frame in frames:
        yield Step(frame, *walk.enter(frame, prompts.get(frame, {}), earlier.pop(frame, {})))


def _backward(
    predict: Predict,
    read: Callable[[int], Image],
    table: PromptTable,
    frames: range,
    shape: tuple[int, int],
    settings: Propagation,
    corner: tuple[int, int],
) -> dict[int, dict[int, Answer]]:
    """Objects of the frames before the first prompt of their tracks, by frame and track."""
    found: dict[int, dict[int, Answer]] = {}
    if not settings.backward:
        return found
    first = table.first()
    # A daughter is not there while its mother is.
    begin = {track: table.last[mother] + 1 for track, mother in table.parent.items()}
    walk = _Walk(predict, read, shape, settings, begin)
    for frame in reversed(range(frames.start, max(first.values()) + 1)):
        own = table.prompts.get(frame, {})
        starts = {track: _moved(own[track], corner) for track in own if first[track] == frame}
        walk.enter(frame, starts, {})
        found[frame] = {
            track: answer._replace(logits=answer.logits.astype(np.float16))
            for track, answer in walk.held.items()
            if frame < first[track]
        }
    return found


class _Walk:
    """A way through the frames, in either direction.

    Attributes
    ----------
    held : dict of int to Answer
        Objects of the frame last entered, by track.
    """

    def __init__(
        self,
        predict: Predict,
        read: Callable[[int], Image],
        shape: tuple[int, int],
        settings: Propagation,
        last: Mapping[int, int],
    ) -> None:
        self.predict, self.read, self.shape, self.settings = predict, read, shape, settings
        self.last = last
        self.held: dict[int, Answer] = {}
        self._seen: tuple[int, Image] | None = None
        self._place = -1

    def enter(
        self, frame: int, prompts: Mapping[int, Sequence[Prompt]], others: Mapping[int, Answer]
    ) -> tuple[Labels, dict[int, str]]:
        """Find the objects of the next frame on the way.

        Parameters
        ----------
        frame : int
        prompts : mapping of track to prompts
            Of the user in this frame.
        others : mapping of track to Answer
            Further objects of this frame, which are known already.

        Returns
        -------
        labels : (h, w) uint32 array
        lost : dict of track to reason
        """
        going = {
            track: answer
            for track, answer in self.held.items()
            if self._place != self.last.get(track)
        }
        before, self._place = self._seen, frame
        lost: dict[int, str] = {}
        answers: dict[int, Answer] = {}
        if going or prompts:
            image = self.read(frame)
            queries = self._queries(before, image, going, prompts, lost)
            given = self.predict(image, list(queries.values()))
            answers = dict(zip(queries, given, strict=True))
            self._seen = frame, image
        else:
            self._seen = None
        fixed = {track for track, own in prompts.items() if any(p.positive for p in own)}
        for track, answer in list(answers.items()):
            reason = self._doubt(answer, None if track in fixed else going[track])
            if reason:
                lost[track] = reason
                del answers[track]
        labels, kept = _settle({**others, **answers}, self.shape, fixed | others.keys())
        lost |= {track: "other tracks take most of it" for track in answers if track not in kept}
        self.held = {track: kept[track] for track in answers if track in kept}
        return labels, lost

    def _queries(
        self,
        before: tuple[int, Image] | None,
        image: Image,
        going: Mapping[int, Answer],
        prompts: Mapping[int, Sequence[Prompt]],
        lost: dict[int, str],
    ) -> dict[int, Query]:
        """What to ask of each track; those that leave the image are lost."""
        queries: dict[int, Query] = {}
        asked = [t for t in going if not any(p.positive for p in prompts.get(t, ()))]
        inner = np.array([_innermost(going[track]) for track in asked]).reshape(-1, 2)
        motion = np.zeros_like(inner)
        if asked and before is not None:
            place = np.pad(inner, ((0, 0), (1, 0)))
            motion = flow(before[1][None], image[None], (1.0, 1.0, 1.0)).at(place)[:, 1:]
        for track, point, shift in zip(asked, inner, motion, strict=True):
            query = self._follow(going[track], point, shift)
            if query is None:
                lost[track] = "it leaves the image"
            else:
                queries[track] = query
        for track, own in prompts.items():
            points = tuple(((p.place[0], p.place[1]), p.positive) for p in own if not p.is_box)
            if track in queries:
                queries[track] = replace(queries[track], points=queries[track].points + points)
            elif any(p.positive for p in own):
                boxes = [p.place for p in own if p.is_box]
                queries[track] = Query(points, boxes[0] if boxes else None)  # type: ignore[arg-type]
        return dict(sorted(queries.items()))

    def _follow(
        self,
        answer: Answer,
        inner: npt.NDArray[np.float64],
        shift: npt.NDArray[np.float64],
    ) -> Query | None:
        """What to ask of an object that moves by `shift`; nothing if that is outside of the image."""
        start, stop = np.asarray(answer.box.start), np.asarray(answer.box.stop)
        margin = self.settings.margin * (stop - start)
        low = np.clip(start + shift - margin, 0, self.shape)
        high = np.clip(stop + shift + margin, 0, self.shape)
        if (high - low < 1).any():
            return None
        y, x = np.clip(inner + shift, low, high - 1).tolist()
        (y0, x0), (y1, x1) = low.tolist(), high.tolist()
        mask = None
        if self.settings.mask:
            mask = answer.box.shift(np.rint(shift).astype(int).tolist()), answer.mask
        return Query((((y, x), True),), (y0, x0, y1, x1), mask)

    def _doubt(self, answer: Answer, before: Answer | None) -> str | None:
        """Why an answer is not believed; without an earlier one the user vouches for it."""
        area = np.count_nonzero(answer.mask)
        if not area:
            return "the model finds nothing there"
        if before is None:
            return None
        if answer.iou < self.settings.min_iou:
            return f"the predicted IoU is {answer.iou:.2f}, below {self.settings.min_iou:g}"
        change = area / np.count_nonzero(before.mask)
        if max(change, 1 / change) > self.settings.max_change:
            return f"its area changes by the factor {change:.2f}"
        return None


def _settle(
    claims: Mapping[int, Answer], shape: tuple[int, int], fixed: set[int]
) -> tuple[Labels, dict[int, Answer]]:
    """Labels without overlaps, and what is left of each object; those that lose most are left out.

    Parameters
    ----------
    claims : mapping of track to Answer
        None empty.
    shape : (int, int)
    fixed : set of int
        Tracks that stay whatever they lose, if a pixel is left.
    """
    masks = _divide(claims, shape)
    keep = [
        track
        for track, mask in masks.items()
        if mask.any() and (track in fixed or mask.sum() >= _SHARE * claims[track].mask.sum())
    ]
    if len(keep) < len(claims):  # their pixels go to the others
        claims = {track: claims[track] for track in keep}
        masks = _divide(claims, shape)
    labels = np.zeros(shape, np.uint32)
    kept: dict[int, Answer] = {}
    for track, mask in masks.items():
        box, logits, iou = claims[track]
        labels[box.slices][mask] = track
        rows, columns = ndi.find_objects(mask.view(np.uint8))[0]
        own = Box((rows.start, columns.start), (rows.stop, columns.stop))
        kept[track] = Answer(own.shift(box.start), np.where(mask, logits, -1)[own.slices], iou)
    return labels, kept


def _divide(claims: Mapping[int, Answer], shape: tuple[int, int]) -> dict[int, Mask]:
    """The largest piece that each track gets if pixels go to the highest logit."""
    owner, height = np.zeros(shape, np.uint32), np.zeros(shape, np.float32)
    for track in sorted(claims):
        box, logits, _ = claims[track]
        front = logits > height[box.slices]
        height[box.slices][front] = logits[front]
        owner[box.slices][front] = track
    return {track: _largest(owner[claims[track].box.slices] == track) for track in sorted(claims)}


def _largest(mask: Mask) -> Mask:
    """The largest connected piece of a mask, of equal ones the first."""
    pieces, count = ndi.label(mask)
    if count < 2:
        return mask
    piece: Mask = pieces == np.argmax(np.bincount(pieces.ravel())[1:]) + 1
    return piece


def _innermost(answer: Answer) -> tuple[float, float]:
    """The pixel (y, x) of an object that is furthest from its border."""
    inside = ndi.distance_transform_edt(np.pad(answer.mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(np.argmax(inside)), inside.shape)
    return float(y + answer.box.start[0]), float(x + answer.box.start[1])


def _moved(prompts: Sequence[Prompt], corner: tuple[int, int]) -> list[Prompt]:
    """Prompts in pixels from a corner of the image."""
    return [
        Prompt(tuple(v - corner[n % 2] for n, v in enumerate(p.place)), p.positive) for p in prompts
    ]
