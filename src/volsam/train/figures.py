"""Curves of a training as plain numbers, and pictures of what a model finds and misses.

The template draws curves as SVG in the colours of the page; their coordinates run from 0 to 1. In
pictures an object counts as found where a prediction overlaps it by an IoU of 0.5 or more, as for SA50.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from volsam.evaluate.contingency import Contingency
from volsam.evaluate.metrics import matches, overlaps
from volsam.geometry import Box
from volsam.report.figures import RGB, data_uri, grey, outlines
from volsam.report.pictures import round_length

POINTS = 300  # per line
TRUE, FOUND, MISSED, EXTRA = (255, 235, 120), (60, 215, 255), (255, 150, 0), (255, 70, 190)
UNKNOWN = (70, 80, 150)
_TINT = 0.35
_WIDTH = 560  # picture pixels that a small image is enlarged to, in whole steps

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes
    ----------
    name : str
        For the legend.
    points : list of (float, float)
        From left to right; (0, 0) is the lower left corner, (1, 1) the upper right one.
    """

    name: str
    points: list[Point]


@dataclass(frozen=True)
class Curves:
    """A chart of lines.

    Attributes
    ----------
    title, axis : str
        Heading, and name of the horizontal axis.
    lines : list of Line
    across, up : list of (float, str)
        Places of the ticks on either axis, 0 to 1, and their texts.
    mark : Point or None
        A point to point out.
    note : str
        What it is.
    """

    title: str
    axis: str
    lines: list[Line]
    across: list[tuple[float, str]]
    up: list[tuple[float, str]]
    mark: Point | None = None
    note: str = ""


@dataclass(frozen=True)
class Panel:
    """A picture with what is to be said of it."""

    title: str
    caption: str
    uri: str


@dataclass(frozen=True)
class Comparison:
    """One image: with its truth, and with what each model found."""

    name: str
    width: int
    height: int
    panels: list[Panel] = field(default_factory=list)


def curves(
    title: str,
    axis: str,
    across: ArrayLike,
    lines: Mapping[str, ArrayLike],
    *,
    zero: bool = False,
    mark: int | None = None,
    note: str = "",
) -> Curves | None:
    """Lay out lines over a common horizontal axis.

    Parameters
    ----------
    title, axis : str
        As of `Curves`.
    across : (n,) float array, ascending
        Places along the axis, epochs or steps.
    lines : mapping of str to (n,) float array
        Values by name; what is not finite is left out, and so is a line of zeros.
    zero : bool
        Whether the vertical axis starts at 0.
    mark : int, optional
        Place in `across` that is marked on the first line.
    note : str
        What the mark says.

    Returns
    -------
    Curves or None
        None where no line is left. Lines of more than `POINTS` values are averaged in as many bins.
    """
    x = np.asarray(across, np.float64)
    columns = {name: np.asarray(values, np.float64) for name, values in lines.items()}
    finite = {name: np.isfinite(x) & np.isfinite(y) for name, y in columns.items()}
    kept = {
        name: _thin(x[finite[name]], y[finite[name]])
        for name, y in columns.items()
        if (y[finite[name]] != 0).any()
    }
    if not kept:
        return None
    left, right = _ends(np.concatenate([xs for xs, _ in kept.values()]))
    values = np.concatenate([ys for _, ys in kept.values()])
    low, high = _ends(values, 0.06)
    low = 0.0 if zero or low < 0 <= values.min() else low

    def place(at: float, value: float) -> Point:
        return (float((at - left) / (right - left)), float((value - low) / (high - low)))

    drawn = [
        Line(name, [place(a, b) for a, b in zip(xs, ys, strict=True)])
        for name, (xs, ys) in kept.items()
    ]
    first = next(iter(columns))
    marked = None
    if mark is not None and first in kept and finite[first][mark]:
        marked = place(x[mark], columns[first][mark])
    return Curves(
        title, axis, drawn, ticks(left, right, whole=True), ticks(low, high), marked, note
    )


def ticks(low: float, high: float, whole: bool = False) -> list[tuple[float, str]]:
    """Places between 0 and 1 of round numbers, whole ones if asked, from `low` to `high`; their texts."""
    step = round_length((high - low) / 3)
    if whole:
        step = max(step, 1.0)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    marks = [k * step for k in range(first, last + 1)]
    return [((m - low) / (high - low), f"{m:,.6g}" if abs(m) < 1e6 else f"{m:.3g}") for m in marks]


def _ends(values: NDArray[np.float64], margin: float = 0.0) -> tuple[float, float]:
    """Range of values, widened by a share of it, and never empty."""
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        extent = max(abs(low), abs(high)) / 2 or 1.0
        return low - extent, high + extent
    return low - margin * (high - low), high + margin * (high - low)


def _thin(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if len(x) <= POINTS:
        return x, y
    starts = np.linspace(0, len(x), POINTS, endpoint=False).astype(int)
    counts = np.diff(starts, append=len(x))
    return np.add.reduceat(x, starts) / counts, np.add.reduceat(y, starts) / counts


def busiest(labels: NDArray[Any], size: int) -> Box:
    """The window of at most `size` x `size` pixels in which most object pixels are.

    Parameters
    ----------
    labels : (h, w) integer array
        Objects are positive.
    size : int
        Side in pixels.
    """
    step = max(1, size // 32)
    coarse = (labels[::step, ::step] > 0).astype(np.float32)
    sides = [min(size, extent) for extent in labels.shape]
    counts = [max(1, side // step) for side in sides]
    sums = np.lib.stride_tricks.sliding_window_view(coarse, counts).sum(axis=(2, 3))
    best = np.unravel_index(int(sums.argmax()), sums.shape)
    start = tuple(
        min(int(place) * step, extent - side)
        for place, extent, side in zip(best, labels.shape, sides, strict=True)
    )
    return Box(start, tuple(a + side for a, side in zip(start, sides, strict=True)))


def compare(
    name: str,
    image: NDArray[np.floating],
    truth: NDArray[Any],
    found: Sequence[tuple[str, NDArray[Any]]],
    ignore: NDArray[np.bool_] | None = None,
) -> Comparison:
    """Draw an image with its truth, and with each model's objects.

    Parameters
    ----------
    name : str
        Of the image.
    image : (h, w) float array
        Intensities.
    truth : (h, w) integer array
        True objects, 0 is background.
    found : sequence of (title, (h, w) integer array)
        Objects of each model.
    ignore : (h, w) bool array, optional
        Pixels without truth: tinted, and not counted.
    """
    known = np.ones(image.shape, np.bool_) if ignore is None else ~ignore
    plain = grey(image).astype(np.float32)
    unknown = (~known, UNKNOWN, 0.7)
    truth = np.where(known, truth, 0)
    count = np.unique(truth[truth > 0]).size
    drawn = _draw(plain, [unknown, (truth, TRUE, 0.0)])
    caption = f"{count:,} object{'' if count == 1 else 's'}"
    panels = [Panel("Truth", caption, data_uri(drawn))]
    for title, labels in found:
        labels = np.where(known, labels, 0)
        pairs = overlaps(Contingency.of(labels, truth))
        matched = matches(pairs, 0.5)
        good = np.isin(labels, pairs.label[matched])
        seen = np.isin(truth, pairs.truth[matched])
        layers = [
            unknown,
            (np.where(good, labels, 0), FOUND, 0.0),
            (np.where(good, 0, labels), EXTRA, _TINT),
            (np.where(seen, 0, truth), MISSED, _TINT),
        ]
        hits, missed = len(matched), pairs.n_truth - len(matched)
        extra = pairs.n_labels - len(matched)
        total = hits + missed + extra
        caption = (
            f"{hits:,} found, {missed:,} missed, {extra:,} extra; "
            f"SA50 {hits / total if total else 1.0:.2f}"
        )
        panels.append(Panel(title, caption, data_uri(_draw(plain, layers))))
    height, width = drawn.shape[:2]
    return Comparison(name, width, height, panels)


def _draw(
    plain: NDArray[np.floating], layers: Sequence[tuple[NDArray[Any], tuple[int, int, int], float]]
) -> RGB:
    """Objects in the colour and with the tint of their layer, enlarged; outlines are above tints."""
    factor = max(1, round(_WIDTH / max(plain.shape)))

    def enlarge(array: NDArray[Any]) -> NDArray[Any]:
        return array.repeat(factor, axis=0).repeat(factor, axis=1)

    picture = np.stack([plain] * 3, axis=-1)
    for labels, colour, tint in layers:
        # In place: a later tint is blended with an earlier one.
        picture[labels > 0] += tint * (np.asarray(colour) - picture[labels > 0])
    picture = enlarge(picture)
    for labels, colour, _ in layers:
        picture[outlines(enlarge(labels), 1 + max(picture.shape) // 400)] = colour
    return np.asarray(picture, np.uint8)
