"""Where objects are expected in the next frame: drift and flow from images, or from the table alone.

Invariants
----------
- A motion is what is common to an object and its neighbourhood; what an object does by itself is for the
  costs to judge.
- Where images or neighbours do not agree on a motion it is zero: a wrong motion is worse than none.
- It depends on the two frames only.

Sources: phase correlation after Kuglin and Hines (1975), refined as in Guizar-Sicairos et al. (2008),
by scikit-image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi
from scipy.spatial import KDTree

from volsam.track.lineage import Floats, Ints

_EDGE = 512  # longest edge at which images are compared, in pixels; motion is smooth
_BLOCKS = 6  # blocks of the flow along the longest edge; they overlap by half
_GAIN = 0.9  # a shift must leave no more than this of the difference between the images
_NEIGHBOURS = 8  # objects whose displacements are compared
_AGREE = 0.7  # least share of them that the common displacement brings nearer


@dataclass(frozen=True)
class Flow:
    """Displacements on a grid of points.

    Parameters
    ----------
    centre : (m, 3) float64
        Positions (z, y, x), units of length.
    shift : (m, 3) float64
        How far what is there moves until the next frame.
    reach : float
        Distance over which displacements are smoothed.
    """

    centre: Floats
    shift: Floats
    reach: float

    def at(self, position: Floats) -> Floats:
        """Displacement at positions (n, 3), weighted by nearness."""
        if not len(position):
            return np.zeros((0, 3))
        apart = ((position[:, None] - self.centre[None]) ** 2).sum(axis=2)
        weight = np.exp(-0.5 * (apart - apart.min(axis=1, keepdims=True)) / self.reach**2)
        moved: Floats = weight @ self.shift / weight.sum(axis=1, keepdims=True)
        return moved


def flow(
    before: npt.NDArray[Any], after: npt.NDArray[Any], spacing: tuple[float, float, float]
) -> Flow:
    """Motion between two images of a sequence: one drift, and what blocks of the plane add to it.

    Parameters
    ----------
    before, after : (z, y, x) numbers
        Volumes are compared by their brightest pixels along z, so their motion along z is zero.
    spacing : (float, float, float)
        Edge lengths of a voxel, zyx.
    """
    from skimage.registration import phase_cross_correlation

    step = max(1, -(-max(before.shape[1:]) // _EDGE))
    a, b = (_plane(image, step) for image in (before, after))
    pixel = np.asarray(spacing[1:]) * step

    def shift(one: Floats, other: Floats) -> Floats:
        if one.std() == 0 or other.std() == 0:
            return np.zeros(2)
        window = np.outer(np.hanning(one.shape[0] + 2)[1:-1], np.hanning(one.shape[1] + 2)[1:-1])
        found, _, _ = phase_cross_correlation(
            *((x - x.mean()) * window for x in (other, one)), upsample_factor=4, normalization=None
        )
        short = (np.abs(found) <= np.asarray(one.shape) / 4).all()
        moved = ndi.shift(one, found, order=1, mode="nearest")
        better = np.abs(moved - other).mean() < _GAIN * np.abs(one - other).mean()
        return found if short and better else np.zeros(2)

    drift = shift(a, b)
    a = ndi.shift(a, drift, order=1, mode="nearest")
    edge = max(32, max(a.shape) * 2 // (_BLOCKS + 1))
    centres, shifts = [], []
    for y in _starts(a.shape[0], edge):
        for x in _starts(a.shape[1], edge):
            box = slice(y, y + edge), slice(x, x + edge)
            part = a[box]
            centres.append([y + part.shape[0] / 2, x + part.shape[1] / 2])
            shifts.append(drift + shift(part, b[box]))
    flat = np.zeros((len(centres), 1))
    return Flow(
        np.hstack([flat, np.asarray(centres) * pixel]),
        np.hstack([flat, np.asarray(shifts) * pixel]),
        float(edge * pixel.mean() / 2),
    )


def _plane(image: npt.NDArray[Any], step: int) -> Floats:
    """Image as one plane on a coarser grid, in standard deviations."""
    plane = image.max(axis=0).astype(np.float64)
    plane = ndi.uniform_filter(plane, step)[::step, ::step] if step > 1 else plane
    scaled: Floats = (plane - plane.mean()) / (plane.std() or 1.0)
    return scaled


def _starts(length: int, edge: int) -> list[int]:
    """Where overlapping blocks start."""
    last = max(0, length - edge)
    steps = -(-last // (edge // 2))
    return [round(last * k / steps) for k in range(steps + 1)] if steps else [0]


def mutual(before: Floats, after: Floats, radius: float) -> tuple[Ints, Ints, Floats]:
    """Pairs of points that are each other's nearest within `radius`, and how far apart they are."""
    if not len(before) or not len(after):
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    apart, there = KDTree(after).query(before, distance_upper_bound=radius)
    _, back = KDTree(before).query(after, distance_upper_bound=radius)
    found = np.flatnonzero(np.isfinite(apart))
    found = found[back[there[found]] == found]
    return found, there[found], apart[found]


def neighbourly(before: Floats, after: Floats, motion: Floats, radius: float) -> Floats:
    """Refine the motion by what neighbours do: the median displacement of the nearest pairs.

    Parameters
    ----------
    before, after : (n, 3) and (m, 3) float64
        Positions in two frames.
    motion : (n, 3) float64
        Motion expected so far.
    radius : float
        Points further apart are no pair.

    Returns
    -------
    (n, 3) float64
        The motion, changed where it brings most of the neighbours nearer.
    """
    a, b, _ = mutual(before + motion, after, radius)
    if len(a) <= _NEIGHBOURS // 2:
        return motion
    rest = after[b] - before[a] - motion[a]
    k = min(_NEIGHBOURS + 1, len(a))
    apart, near = KDTree(before[a]).query(before, k=k)
    others = np.where(apart[..., None] > 0, rest[near], np.nan)  # an object is no witness of itself
    common = np.nan_to_num(np.nanmedian(others, axis=1))
    left = np.linalg.norm(rest[near] - common[:, None], axis=2)
    agree = (left < np.linalg.norm(rest[near], axis=2)).mean(axis=1) >= _AGREE
    refined: Floats = motion + np.where(agree[:, None], common, 0)
    return refined
