"""Random crops for training: geometry on image and instances alike, then the microscope's faults.

Images are float32 with the normalised signal in 0..1; the result is clipped to that range, as
prediction does. All randomness comes from the generator passed in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float32]
Labels = NDArray[np.int32]


def random_crop(
    image: Image, labels: Labels, size: int, diameter: float, rng: np.random.Generator
) -> tuple[Image, Labels]:
    """Cut a square through a random rotation, flip, scale and stretch.

    Parameters
    ----------
    image, labels : (h, w) arrays
        Image and instances. Beyond their border both are mirrored, as tiles are in prediction.
    size : int
        Side of the crop in pixels.
    diameter : float
        Typical object diameter in pixels; scales that make it leave 7..64 px are not drawn.
    rng : numpy Generator
        Source of all randomness.
    """
    near = rng.random() < 0.5
    zoom = np.exp(rng.uniform(-0.2, 0.2) if near else rng.uniform(-0.8, 0.8))
    zoom = float(np.clip(zoom, 7 / diameter, 64 / diameter))
    stretch = np.exp(rng.uniform(-0.12, 0.12)) if rng.random() < 0.5 else 1.0
    turn = rng.integers(4) * np.pi / 2 + (rng.uniform(-0.8, 0.8) if rng.random() < 0.4 else 0.0)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    flip = np.diag([1.0, rng.choice([-1.0, 1.0])])
    matrix = rotation @ flip @ np.diag([1 / (zoom * stretch), stretch / zoom])
    center = np.array([_center(extent, size / zoom, rng) for extent in image.shape])
    offset = center - matrix @ np.full(2, (size - 1) / 2)
    if zoom < 0.8:  # below the sampling of the source: blur first
        image = ndimage.gaussian_filter(image, 0.4 / zoom)
    shape = (size, size)
    crop = ndimage.affine_transform(image, matrix, offset, shape, order=1, mode="mirror")
    truth = ndimage.affine_transform(labels, matrix, offset, shape, order=0, mode="mirror")
    return crop, truth


def _center(extent: int, span: float, rng: np.random.Generator) -> float:
    """Draw where a crop lies along one axis, mostly inside of the image."""
    if extent <= span:
        return (extent - 1) / 2 + rng.uniform(-0.1, 0.1) * extent
    return rng.uniform(span / 2 - 16, extent - span / 2 + 16)


def degrade(image: Image, labels: Labels, rng: np.random.Generator) -> Image:
    """Vary an image as microscopes and specimens do, and clip it to 0..1."""
    signal: NDArray[np.floating] = image.copy()
    background = float(np.percentile(signal, 10))
    if rng.random() < 0.35:  # nuclei of unequal brightness
        gains = np.exp(rng.uniform(-1.4, 0.2, int(labels.max()) + 1)).astype(np.float32)
        gains[0] = 1
        signal = background + (signal - background) * ndimage.gaussian_filter(gains[labels], 1.0)
    if rng.random() < 0.25:  # light of these nuclei from out of focus
        haze = ndimage.gaussian_filter(signal, rng.uniform(3, 14))
        signal += rng.uniform(0.1, 0.8) * haze
    if rng.random() < 0.3:  # clouds of light from nuclei far below
        clouds = _smooth_field(signal.shape, int(rng.integers(4, 12)), rng)
        signal += rng.uniform(0.05, 0.4) * np.clip(clouds - rng.uniform(0, 1), 0, None)
    if rng.random() < 0.4:  # uneven illumination
        signal *= np.exp(rng.uniform(0.1, 0.6) * _smooth_field(signal.shape, 4, rng))
    if rng.random() < 0.3:
        signal = ndimage.gaussian_filter(signal, rng.uniform(0.4, 1.8))
    if rng.random() < 0.5:
        gamma = np.exp(rng.uniform(-0.7, 0.7))
        signal = np.clip(signal, 0, None) ** np.float32(gamma)
    if rng.random() < 0.7:  # contrast, down to what is left deep in tissue
        signal = signal * np.exp(rng.uniform(np.log(0.15), np.log(1.6))) + rng.uniform(0, 0.15)
    if rng.random() < 0.4:  # few photons
        photons = 10 ** rng.uniform(0.8, 2.5)
        signal = rng.poisson(np.clip(signal, 0, None) * photons) / photons
    if rng.random() < 0.5:
        noise = rng.normal(size=signal.shape)
        if rng.random() < 0.5:  # noise of a resampled image has grain
            noise = ndimage.gaussian_filter(noise, 0.7) * 2
        signal = signal + np.exp(rng.uniform(np.log(0.004), np.log(0.09))) * noise
    return np.clip(signal, 0, 1).astype(np.float32)


def adjust(image: Image, rng: np.random.Generator) -> Image:
    """Vary brightness and contrast a little and clip to 0..1.

    Outlines follow conventions that differ between experiments; an image that still looks like its
    experiment tells which one holds.
    """
    image = np.clip(image, 0, None) ** np.float32(np.exp(rng.uniform(-0.15, 0.15)))
    image = image * np.float32(rng.uniform(0.8, 1.25))
    return np.clip(image, 0, 1).astype(np.float32)


def _smooth_field(shape: tuple[int, ...], knots: int, rng: np.random.Generator) -> Image:
    """Draw a slowly varying field of about unit variance, with `knots` values along each axis."""
    coarse = rng.normal(size=(knots, knots))
    zoom = [extent / knots for extent in shape]
    return ndimage.zoom(coarse, zoom, order=1, mode="nearest").astype(np.float32)
