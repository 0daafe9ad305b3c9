"""Scores of pairs of objects from a model that looks at a window of frames at once.

The window slides over the sequence by single frames, so a pair of neighbouring frames is scored several
times. As trackastra has it, its score is the mean of those that are not below `THRESHOLD`, each object of
its windows described by position, shape and brightness.

Invariants
----------
- Windows are places in the sequence, so scores depend on its frames only, not on the run of frames that
  they are asked for. Time is counted from the start of a window: the number of a frame means nothing.
- A model sees at most `MOST` objects at once. A window with more is divided in space, by the positions of
  its objects, and each part sees what is around it as well, as far as the model looks. Where objects are
  so dense that this is too many, it sees the nearest.
- Of frames nothing is kept but the descriptions of their objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from volsam.track.lineage import Floats, Ids, Ints
from volsam.track.observe import Columns, Frame

THRESHOLD = 0.05
"""Score below which a window says nothing of a pair."""
MOST = 4096
"""Objects of a window that a model looks at together: memory goes with their square."""

Singles = npt.NDArray[np.float32]


class Described(NamedTuple):
    """Objects of a frame: ids (n,), positions in voxels (n, 2 or 3), and what the model knows of them."""

    id: Ids
    position: Singles
    features: Singles


class Model(Protocol):
    """What scores pairs."""

    window: int
    """Frames that it looks at."""
    reach: float
    """Distance in voxels that it looks."""

    def describe(self, frame: Frame) -> Described:
        """Objects of a frame, sorted by id."""

    def scores(self, when: Ints, position: Singles, features: Singles) -> Singles:
        """Scores (n, n) that objects of a window, the rows, are the pasts of others, the columns."""


class Descriptions:
    """Descriptions of frames, whether they are read for other reasons or not: each is read once.

    Parameters
    ----------
    read : function
        Gives a frame.
    model : Model
    """

    def __init__(self, read: Callable[[int], Frame], model: Model) -> None:
        self._read, self._model = read, model
        self._known: dict[int, Described] = {}

    def frame(self, number: int) -> Frame:
        """A frame, which is described by the way."""
        frame = self._read(number)
        if number not in self._known:
            self._known[number] = self._model.describe(frame)
        return frame

    def __getitem__(self, number: int) -> Described:
        if number not in self._known:
            self.frame(number)
        return self._known[number]


def associate(described: Descriptions, run: range, sequence: range, model: Model) -> Columns:
    """Scores of pairs of a run of frames and the frame after each.

    Parameters
    ----------
    described : Descriptions
        Of the frames of all windows that hold such a pair.
    run, sequence : range
        Frames to score, and all there are.
    model : Model

    Returns
    -------
    ``source`` and ``target`` ids and ``score``, sorted by frame, source and target; pairs that no window
    scores are left out.
    """
    length = min(model.window, len(sequence))
    starts = range(sequence.start, sequence.stop - length + 1)
    found: dict[int, list[Columns]] = {frame: [] for frame in run}
    if length > 1:
        for start in starts[max(0, run.start + 2 - length - starts.start) :]:
            if start >= run.stop:
                break
            frames = range(start, start + length)
            for frame, pairs in _of_window(frames, described, run, model):
                found[frame].append(pairs)
    tables = [_mean(windows) for windows in found.values()]
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def _of_window(
    frames: range, described: Descriptions, run: range, model: Model
) -> Iterator[tuple[int, Columns]]:
    """Pairs that a window scores, by frame of the source."""
    objects = [described[frame] for frame in frames]
    when = np.repeat(np.arange(len(frames)), [len(one.id) for one in objects])
    ids, position, features = (np.concatenate(column) for column in zip(*objects, strict=True))
    rows: list[Ints] = [np.zeros((0, 2), np.int64)]
    scores: list[Singles] = [np.zeros(0, np.float32)]
    for own, near in pieces(position, model.reach, MOST):
        score = model.scores(when[near], position[near], features[near])
        one, other = np.nonzero(score >= THRESHOLD)
        counts = (when[near[other]] - when[near[one]] == 1) & np.isin(near, own)[other]
        one, other = one[counts], other[counts]
        rows.append(np.stack([near[one], near[other]], axis=1))
        scores.append(score[one, other])
    pairs, score = np.concatenate(rows), np.concatenate(scores)
    for place, frame in enumerate(frames):
        if frame in run:
            source, target = pairs[when[pairs[:, 0]] == place].T
            here = score[when[pairs[:, 0]] == place]
            yield frame, {"source": ids[source], "target": ids[target], "score": here}


def pieces(position: Singles, reach: float, most: int) -> Iterator[tuple[Ints, Ints]]:
    """Parts of a window: rows whose pasts are scored, and the rows that are looked at, both sorted.

    Parameters
    ----------
    position : (n, d) float32
    reach : float
        How far around its own rows a part looks.
    most : int
        Rows of a part, if so few are enough to see its own and some of what is around them.
    """
    waiting = [np.arange(len(position))] if len(position) else []
    while waiting:
        own = waiting.pop()
        low, high = position[own].min(axis=0), position[own].max(axis=0)
        away = np.maximum(low - position, position - high).clip(min=0).max(axis=1)
        near = np.flatnonzero(away <= reach)
        if len(near) > most and len(own) > most // 4:
            axis = int(np.argmax(high - low))
            order = own[np.argsort(position[own, axis], kind="stable")]
            waiting += [np.sort(half) for half in np.array_split(order, 2)]
            continue
        if len(near) > most:
            away[own] = -1
            near = np.sort(near[np.argsort(away[near], kind="stable")[:most]])
        yield own, near


def _mean(windows: list[Columns]) -> Columns:
    """The mean score of each pair of a frame."""
    source, target = (
        np.concatenate([np.zeros(0, np.uint64), *(pairs[side] for pairs in windows)])
        for side in ("source", "target")
    )
    score: Floats = np.concatenate([np.zeros(0), *(pairs["score"] for pairs in windows)])
    pairs, place, count = np.unique(
        np.stack([source, target], axis=1), axis=0, return_inverse=True, return_counts=True
    )
    total = np.bincount(place.ravel(), score, len(pairs))
    return {"source": pairs[:, 0], "target": pairs[:, 1], "score": total / count}
