"""Histograms as plain numbers, which the template draws as SVG in the colours of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volsam.report.pictures import round_length


@dataclass(frozen=True)
class Chart:
    """A histogram.

    Attributes
    ----------
    heights : list of float
        Height of each bar, 0 to 1.
    counts : list of int
        What it stands for.
    spans : list of str
        Range of each bin.
    ticks : list of (float, str)
        Place on the horizontal axis, 0 to 1, and its text.
    top : str
        Text at the height of 1.
    axis : str
        Name of the horizontal axis, with its unit.
    """

    heights: list[float]
    counts: list[int]
    spans: list[str]
    ticks: list[tuple[float, str]]
    top: str
    axis: str


def histogram(counts: Sequence[int], low: float, high: float, axis: str) -> Chart | None:
    """Chart of counts in equal bins from `low` to `high`; None if all are 0."""
    if not len(counts) or not any(counts) or high <= low:
        return None
    edges = np.linspace(low, high, len(counts) + 1)
    step = round_length((high - low) / 4)
    marks = np.arange(np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9) + 1) * step
    top = max(counts)
    return Chart(
        heights=[c / top for c in counts],
        counts=[int(c) for c in counts],
        spans=[f"{a:.3g} – {b:.3g}" for a, b in pairwise(edges)],
        ticks=[(float((m - low) / (high - low)), f"{m:g}") for m in marks + 0.0],
        top=f"{top:,}",
        axis=axis,
    )


def equivalent_diameters(
    voxels: NDArray[Any], voxel_size: tuple[float, float, float], flat: bool
) -> NDArray[np.float64]:
    """Diameter of the ball (of the disc in a single slice) of each object's size."""
    z, y, x = voxel_size
    if flat:
        return np.sqrt(4 / np.pi * voxels * y * x)
    return np.cbrt(6 / np.pi * voxels * z * y * x)


def size_chart(diameters: NDArray[np.float64], unit: str, flat: bool) -> Chart | None:
    """Histogram of object diameters; the largest half per cent is counted in the last bin."""
    if not diameters.size:
        return None
    high = float(np.percentile(diameters, 99.5)) * 1.02
    counts, _ = np.histogram(np.minimum(diameters, high * 0.9999), bins=24, range=(0, high))
    shape = "disc" if flat else "ball"
    return histogram(counts.tolist(), 0, high, f"diameter of the {shape} of equal size, {unit}")
