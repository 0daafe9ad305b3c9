"""Automatic instance segmentation (AIS): three predicted maps of one tile → instance labels.

The maps are the foreground probability, the distance to the object's centre and the distance to its
boundary; both distances are 0 inside (at the centre) and 1 at the border and in the background.
Seeds are where both distances are low; a watershed on the boundary distance grows them within the
foreground. The method is that of micro-sam (Archit et al. 2025, https://doi.org/10.1038/s41592-024-02580-4).

Invariants
----------
- On one untiled image, where no object is judged (`min_foreground` 0, `max_center` 1), the labels
  are pixel-identical to micro-sam's serial
  ``InstanceSegmentationWithDecoder.generate``. The filters and the watershed are therefore those of
  bioimage-cpp: its watershed sorts heights into 65 536 levels of the image's value range and floods
  ties last-in-first-out, so that neither another library nor a crop of the same map would agree
  wherever heights tie (saturated or half-precision predictions).
- A tile without foreground costs one look at its maximum.
- Inputs are never modified.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from bioimage_cpp.filters import gaussian_smoothing
from bioimage_cpp.segmentation import label, watershed
from numpy.typing import NDArray

from volsam.errors import VolsamError

Value = TypeVar("Value")
_ROUNDING = 1e-5  # a float32 Gaussian average may exceed its largest input by this much, generously


@dataclass(frozen=True)
class AisParameters:
    """Thresholds and smoothing of the seeded watershed, and what drops an object afterwards.

    The defaults are micro-sam's, which drops by `min_size` only: the other two keep everything.

    Attributes
    ----------
    center_threshold, boundary_threshold : float
        A seed lies where the smoothed distances are below these (0..1).
    foreground_threshold : float
        Objects lie where the smoothed foreground is above this (0..1).
    foreground_smoothing, distance_smoothing : float
        Standard deviations of the Gaussians, in pixels; 0 switches one off.
    min_size : int
        Objects of fewer pixels are dropped; 0 keeps all.
    min_foreground : float
        Objects whose mean smoothed foreground is below this are dropped (0..1); 0 keeps all. The
        network is unsure of what is not there, and along the border of what it draws too wide.
    max_center : float
        Objects without a pixel whose smoothed distance to the centre is this or less are dropped
        (0..1); 1 keeps all. Such are what a high `center_threshold` seeds between true centres.
    """

    center_threshold: float = 0.5
    boundary_threshold: float = 0.5
    foreground_threshold: float = 0.5
    foreground_smoothing: float = 1.0
    distance_smoothing: float = 1.6
    min_size: int = 0
    min_foreground: float = 0.0
    max_center: float = 1.0


def in_pixels(values: Mapping[str, float], scale: float) -> dict[str, float]:
    """Parameters in pixels of an image, from those in pixels of a model's input, and back.

    Parameters
    ----------
    values : mapping
        Fields of `AisParameters`: lengths grow with 1 / scale, areas with its square.
    scale : float
        Pixels of the network's input per pixel of the image; its inverse for the way back.
    """
    found = dict(values)
    for name in ("foreground_smoothing", "distance_smoothing"):
        if name in found:
            found[name] = round(found[name] / scale, 6)
    if "min_size" in found:
        found["min_size"] = round(found["min_size"] / scale**2)
    return found


def of_stacks(values: Mapping[str, Value]) -> dict[str, Value]:
    """Parameters tuned on images, for stacks and sequences: without the judgement of single objects.

    There an object's fragments vouch for each other. The dim first and last ones would be dropped, and
    so would an object that a frame shows badly.
    """
    return {name: v for name, v in values.items() if name not in ("min_foreground", "max_center")}


def grid_in_pixels(
    grid: Mapping[str, Sequence[float]], scale: float
) -> dict[str, tuple[float, ...]]:
    """The same for a grid of values."""
    return {
        name: tuple(in_pixels({name: value}, scale)[name] for value in values)
        for name, values in grid.items()
    }


def segment_ais(
    foreground: NDArray[np.floating],
    center: NDArray[np.floating],
    boundary: NDArray[np.floating],
    parameters: AisParameters | None = None,
) -> NDArray[np.uint32]:
    """Label the instances of one image or tile.

    Parameters
    ----------
    foreground, center, boundary : (h, w) float
        Predicted maps, 0..1; worked on in float32.
    parameters : AisParameters, optional
        Defaults to ``AisParameters()``.

    Returns
    -------
    (h, w) uint32
        0 is background, objects are numbered 1..n without gaps.

    Raises
    ------
    VolsamError
        If the maps differ in shape or hold a NaN or an infinity.
    """
    p = parameters or AisParameters()
    maps = [np.ascontiguousarray(m, np.float32) for m in (foreground, center, boundary)]
    if len({m.shape for m in maps}) > 1 or maps[0].ndim != 2:
        raise VolsamError(
            f"AIS needs three 2D maps of one shape but got {[m.shape for m in maps]}; "
            "pass the decoder's three channels of one tile."
        )
    if not all(np.isfinite(m.sum()) for m in maps):
        raise VolsamError(
            "The predicted maps contain NaN or infinity, so the network overflowed or its weights "
            "are broken; run with precision fp32 or check the checkpoint."
        )
    if maps[0].max(initial=0.0) <= p.foreground_threshold - _ROUNDING:
        return np.zeros(maps[0].shape, np.uint32)

    signal = _smooth(maps[0], p.foreground_smoothing)
    center = _smooth(maps[1], p.distance_smoothing)
    ridge = _smooth(maps[2], p.distance_smoothing)
    inside = signal > p.foreground_threshold
    seeds = label(inside & (center < p.center_threshold) & (ridge < p.boundary_threshold))
    labels = watershed(ridge, seeds.astype(np.uint32), mask=inside)
    return _drop_doubtful(labels, signal, center, p)


def _smooth(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return gaussian_smoothing(image, sigma) if sigma > 0 else image


def _drop_doubtful(
    labels: NDArray[np.uint32],
    signal: NDArray[np.float32],
    center: NDArray[np.float32],
    p: AisParameters,
) -> NDArray[np.uint32]:
    """Remove what is too small or too uncertain and close the gaps in numbering."""
    if p.min_size <= 1 and p.min_foreground <= 0 and p.max_center >= 1:
        return labels  # every label holds at least its seed
    flat = labels.ravel()
    size = np.bincount(flat)
    keep = size >= p.min_size
    if p.min_foreground > 0:
        keep &= np.bincount(flat, signal.ravel()) >= p.min_foreground * size
    if p.max_center < 1:
        deepest = np.full(len(size), np.inf, np.float32)
        np.minimum.at(deepest, flat, center.ravel())
        keep &= deepest <= p.max_center
    return select(labels, keep)


def select(labels: NDArray[np.unsignedinteger[Any]], keep: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Objects with ``keep[label]``, numbered 1..n without gaps; the rest becomes background."""
    number = np.cumsum(keep & (np.arange(len(keep)) > 0))
    return np.where(keep, number, 0).astype(np.uint32)[labels]
