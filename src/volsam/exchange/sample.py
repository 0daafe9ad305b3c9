"""The picture that a BioImage.IO package is tested with, and its cover."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]
_COVER = 256  # side of each half, in pixels


def blobs(side: int, diameter: float) -> Floats:
    """Bright discs of about one size on noise; a function of its arguments.

    Parameters
    ----------
    side : int
        Side of the image in pixels.
    diameter : float
        Of the discs, in pixels.

    Returns
    -------
    (side, side) float32 array
        Whole numbers, as a camera gives them.
    """
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    image = 100 + 10 * rng.random((side, side))
    for _ in range(max(4, round(0.3 * (side / diameter) ** 2))):
        centre_y, centre_x = rng.random(2) * side
        radius = diameter / 2 * (0.8 + 0.4 * rng.random())
        distance = np.hypot(y - centre_y, x - centre_x)
        disc = 1 / (1 + np.exp(distance - radius))
        image = np.maximum(image, 110 + (200 + 400 * rng.random()) * disc)
    whole: Floats = np.round(image).astype(np.float32)
    return whole


def fitted(image: NDArray[np.generic], image_size: int, step: int | None) -> Floats | None:
    """The middle of an image in a size that the network takes; None if the image is too small.

    Parameters
    ----------
    image : (h, w) array
        Any intensities.
    image_size, step : int, int or None
        As of `architecture.Network`; at most twice `image_size` is kept.
    """
    sides = []
    for extent in image.shape:
        kept = min(extent, 2 * image_size) // step * step if step else image_size
        if extent < kept or kept < (4 * step if step else image_size):
            return None
        sides.append(kept)
    starts = [(extent - side) // 2 for extent, side in zip(image.shape, sides, strict=True)]
    rows, columns = (slice(a, a + side) for a, side in zip(starts, sides, strict=True))
    return np.ascontiguousarray(image[rows, columns], np.float32)


def cover(image: Floats, maps: Floats) -> bytes:
    """A PNG, twice as wide as high: the image, and the maps as red, green and blue.

    Parameters
    ----------
    image : (h, w) array
        In 0..1.
    maps : (3, h, w) array
        In 0..1.
    """
    left = Image.fromarray((image.clip(0, 1) * 255).astype(np.uint8)).convert("RGB")
    right = Image.fromarray((np.moveaxis(maps, 0, -1).clip(0, 1) * 255).astype(np.uint8))
    picture = Image.new("RGB", (2 * _COVER, _COVER))
    for index, half in enumerate((left, right)):
        picture.paste(half.resize((_COVER, _COVER)), (index * _COVER, 0))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()
