"""Slices of synthetic nuclei in 3D: crowded ellipsoids under a microscope's blur.

What real 2D training images lack and volumes are full of: light of nuclei above and below the
slice, contrast that falls with depth, nuclei cut at their poles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Slice = tuple[NDArray[np.float32], NDArray[np.int32]]


def nuclei_volume(
    rng: np.random.Generator, shape: tuple[int, int, int]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Draw a volume of touching nuclei and its instances.

    Parameters
    ----------
    rng : numpy Generator
        Source of all randomness.
    shape : (z, y, x)
        Size in voxels.

    Returns
    -------
    image : (z, y, x) float32 array
        Intensities, about 0..1 before noise.
    labels : (z, y, x) int32 array
        Instances.
    """
    radius = float(np.exp(rng.uniform(np.log(4.5), np.log(12))))
    anisotropy = rng.uniform(1, 3)
    labels = np.zeros(shape, np.int32)
    brightness = [0.0]
    spread = rng.uniform(0.05, 0.6)
    for number, center in enumerate(_centers(rng, shape, radius, anisotropy), start=1):
        _paint(labels, number, center, radius * rng.uniform(0.75, 1.3, 3), anisotropy, rng)
        brightness.append(float(np.exp(rng.normal(0, spread))))
    signal = np.array(brightness, np.float32)[labels]
    grain = ndimage.gaussian_filter(rng.normal(size=shape), (0.7, 1.5, 1.5))
    signal *= 1 + rng.uniform(0.05, 0.35) * grain.astype(np.float32) / grain.std()
    depth = np.arange(shape[0])[:, None, None] / shape[0]
    signal *= np.exp(-rng.uniform(0, 1.5) * depth).astype(np.float32)
    # A point spreads along z in proportion to the size of a nucleus, up to half of its depth.
    blur = rng.uniform(0.4, 1.6)
    axial = rng.uniform(0.1, 0.5) * radius / anisotropy
    signal = ndimage.gaussian_filter(signal, (axial, blur, blur))
    haze = (2.5 * axial, radius, radius)
    signal += rng.uniform(0, 0.7) * ndimage.gaussian_filter(signal, haze)
    return signal / max(float(np.percentile(signal, 99.8)), 1e-3), labels


def _centers(
    rng: np.random.Generator, shape: tuple[int, ...], radius: float, anisotropy: float
) -> NDArray[np.float64]:
    """Draw where nuclei may lie: all over, in a ball, or in the wall of a hollow ball."""
    count = rng.uniform(0.3, 2.0) * np.prod(shape) * anisotropy / (4.19 * radius**3)
    places = rng.uniform(-1, 1, (int(count) + 8, 3))
    arrangement = rng.random()
    if arrangement > 0.35:
        size = np.array([rng.uniform(0.8, 1.3), *rng.uniform(0.35, 0.9, 2)])
        distance = np.linalg.norm(places / size, axis=1)
        hollow = rng.uniform(0.5, 0.75) if arrangement > 0.75 else 0.0
        places = places[(distance < 1) & (distance > hollow)]
    else:
        places = places[: len(places) // 2]
    return (places + 1) / 2 * np.array(shape)


def _paint(
    labels: NDArray[np.int32],
    number: int,
    center: NDArray[np.float64],
    radii: NDArray[np.float64],
    anisotropy: float,
    rng: np.random.Generator,
) -> None:
    """Paint one rotated, slightly dented ellipsoid where nothing else is yet."""
    reach = np.ceil(radii.max() * 1.2 / np.array([anisotropy, 1, 1])).astype(int) + 1
    low = np.maximum(np.floor(center).astype(int) - reach, 0)
    high = np.minimum(np.floor(center).astype(int) + reach + 1, labels.shape)
    if (high <= low).any():
        return
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    z, y, x = np.meshgrid(
        *[np.arange(a, b) - c for a, b, c in zip(low, high, center, strict=True)], indexing="ij"
    )
    z = z * anisotropy
    angle = rng.uniform(0, np.pi)
    y, x = np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x
    azimuth = np.arctan2(y, x)
    dent = 1 + rng.uniform(0, 0.12) * np.sin(rng.integers(2, 4) * azimuth + rng.uniform(0, 6.3))
    shape = (z / radii[0]) ** 2 + (y / radii[1]) ** 2 + (x / radii[2]) ** 2 < dent
    free = labels[box] == 0
    # Mostly covered candidates would leave slivers that no annotator would call a nucleus.
    if (shape & free).sum() > 0.75 * shape.sum():
        labels[box][shape & free] = number


def nuclei_slices(seed: int, volumes: int) -> list[Slice]:
    """Draw volumes and return every fourth of their slices as (image, labels) pairs."""
    rng = np.random.default_rng(seed)
    slices = []
    for _ in range(volumes):
        shape = (int(rng.integers(12, 32)), 160, 160)
        image, labels = nuclei_volume(rng, shape)
        slices += [(image[z], labels[z]) for z in range(int(rng.integers(4)), shape[0], 4)]
    return slices
