"""Automatic instance segmentation (AIS): three predicted maps of one tile → instance labels.

The maps are the foreground probability, the distance to the object's centre and the distance to its
boundary; both distances are 0 inside (at the centre) and 1 at the border and in the background.
Seeds are where both distances are low; a watershed on the boundary distance grows them within the
foreground. The method is that of micro-sam (Archit et al. 2025, https://doi.org/10.1038/s41592-024-02580-4).

Invariants
----------
- On one untiled image the labels are pixel-identical to micro-sam's serial
  ``InstanceSegmentationWithDecoder.generate``.
- Work is confined to the foreground's bounding box. That is exact: the box is enlarged by the reach
  of the Gaussians, and cropping keeps the row-major order on which label numbers and the
  watershed's tie-breaking rest.
- Inputs are never modified.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.measure import label
from skimage.segmentation import watershed

from volsam.errors import VolsamError
from volsam.geometry import Box

_TRUNCATE = 3.0  # Gaussians end at this many standard deviations, as in the reference
_SLACK = 1e-5  # relative rounding of a float32 Gaussian, generously


@dataclass(frozen=True)
class AisParameters:
    """Thresholds and smoothing of the seeded watershed; defaults are micro-sam's.

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
    """

    center_threshold: float = 0.5
    boundary_threshold: float = 0.5
    foreground_threshold: float = 0.5
    foreground_smoothing: float = 1.0
    distance_smoothing: float = 1.6
    min_size: int = 0


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
        Predicted maps, 0..1.
    parameters : AisParameters, optional
        Defaults to ``AisParameters()``.

    Returns
    -------
    (h, w) uint32
        0 is background, objects are numbered 1..n without gaps.

    Raises
    ------
    VolsamError
        If the foreground holds a NaN, or the maps differ in shape.
    """
    p = parameters or AisParameters()
    if not foreground.shape == center.shape == boundary.shape or foreground.ndim != 2:
        raise VolsamError(
            f"AIS needs three 2D maps of one shape but got {foreground.shape}, {center.shape} and "
            f"{boundary.shape}; pass the decoder's three channels of one tile."
        )
    labels = np.zeros(foreground.shape, np.uint32)
    box = _foreground_box(foreground, p)
    if box is None:
        return labels
    mask = _smooth(foreground, p.foreground_smoothing, box) > p.foreground_threshold
    ridge = _smooth(boundary, p.distance_smoothing, box)
    seeds = (ridge < p.boundary_threshold) & mask
    seeds &= _smooth(center, p.distance_smoothing, box) < p.center_threshold
    markers = label(seeds, connectivity=2)
    grown = watershed(ridge, markers=markers, mask=mask)
    labels[box.slices] = _drop_small(grown, p.min_size)
    return labels


def _reach(sigma: float) -> int:
    """Pixels that a truncated Gaussian looks to each side (scipy's rule)."""
    return int(_TRUNCATE * sigma + 0.5)


def _foreground_box(foreground: NDArray[np.floating], p: AisParameters) -> Box | None:
    """Box that surely holds every pixel of the smoothed foreground mask; None if there is none."""
    if np.isnan(foreground.max(initial=0.0)):
        raise VolsamError(
            "The predicted foreground contains NaN, so the network overflowed or its weights are "
            "broken; run with precision fp32 or check the checkpoint."
        )
    # An average exceeds the threshold only within reach of a value that does, up to rounding.
    candidate = foreground > p.foreground_threshold - _SLACK
    rows, columns = (np.flatnonzero(candidate.any(axis=axis)) for axis in (1, 0))
    if rows.size == 0:
        return None
    tight = Box((int(rows[0]), int(columns[0])), (int(rows[-1]) + 1, int(columns[-1]) + 1))
    return tight.grow((_reach(p.foreground_smoothing),) * 2, within=Box.of(foreground.shape))


def _smooth(image: NDArray[np.floating], sigma: float, box: Box) -> NDArray[np.floating]:
    """Gaussian of `image` inside `box`, equal to cropping the Gaussian of the whole image."""
    if sigma <= 0:
        return image[box.slices]
    context = box.grow((_reach(sigma),) * 2, within=Box.of(image.shape))
    smooth = gaussian_filter(image[context.slices], sigma, mode="mirror", truncate=_TRUNCATE)
    return smooth[box.relative_to(context).slices]


def _drop_small(labels: NDArray[np.signedinteger], min_size: int) -> NDArray[np.uint32]:
    """Remove objects of fewer than `min_size` pixels and close the gaps in numbering."""
    size = np.bincount(labels.ravel())
    keep = size >= max(1, min_size)
    keep[0] = False
    number = np.where(keep, np.cumsum(keep), 0).astype(np.uint32)
    return number[labels]
