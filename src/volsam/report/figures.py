"""Pictures: a slice with the outlines of its objects, as arrays, files or data URIs.

An object has the same colour in every picture, a function of its id alone.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage as ndi

from volsam.paths import replace

RGB = NDArray[np.uint8]


def colours(ids: NDArray[Any]) -> RGB:
    """Bright, well separated colours of object ids, (..., 3); background (0) is black."""
    # Steps of the golden ratio spread the hues of consecutive ids over the circle.
    hue = (ids.astype(np.float64) * 0.6180339887498949) % 1.0
    angle = (hue[..., None] + np.array([0.0, 1 / 3, 2 / 3])) * 2 * np.pi
    rgb = 150 + 105 * np.cos(angle)
    return np.where((ids == 0)[..., None], 0, rgb).astype(np.uint8)


def grey(image: NDArray[Any], limits: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """Stretch intensities to 0..255, by default from the 0.5th to the 99.8th percentile."""
    values = np.nan_to_num(image.astype(np.float32), posinf=0, neginf=0)
    low, high = limits or (np.percentile(values, [0.5, 99.8]) if values.size else (0.0, 1.0))
    unit = np.clip((values - low) / max(float(high) - float(low), 1e-12), 0, 1)
    return np.asarray(255 * unit**0.8, np.uint8)  # a mild gamma shows dim objects beside bright


def outlines(labels: NDArray[Any], width: int = 1) -> NDArray[np.bool_]:
    """Object pixels at most `width` steps from another id or from background."""
    edge = np.zeros(labels.shape, np.bool_)
    down = labels[1:] != labels[:-1]
    right = labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    if width > 1:
        edge = ndi.binary_dilation(edge, iterations=width - 1)
    return np.asarray(edge & (labels != 0))


def resize(plane: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Nearest-neighbour resampling of a plane to (rows, columns)."""
    rows, columns = (np.arange(n) * m // n for n, m in zip(shape, plane.shape, strict=True))
    return plane[np.ix_(rows, columns)]


def overlay(
    image: NDArray[Any], labels: NDArray[Any], shape: tuple[int, int] | None = None
) -> tuple[RGB, RGB]:
    """A plane in grey, and the same with coloured outlines.

    Parameters
    ----------
    image, labels : (rows, columns)
    shape : (int, int), optional
        Of the picture; outlines are as thick as it needs, whatever the enlargement.

    Returns
    -------
    plain, outlined : uint8 (rows, columns, 3)
    """
    size = shape or (image.shape[0], image.shape[1])
    plain = np.stack([resize(grey(image), size)] * 3, axis=-1)
    large = resize(labels, size)
    edge = outlines(large, 1 + max(size) // 600)
    outlined = plain.copy()
    outlined[edge] = colours(large[edge])
    return plain, outlined


def draw_scale_bar(picture: RGB, length: int) -> None:
    """Draw, in place, a white bar of `length` pixels into the lower left corner."""
    rows = picture.shape[0]
    margin = max(4, rows // 40)
    thick = max(2, rows // 120)
    bottom = rows - margin
    picture[bottom - thick - 1 : bottom + 1, margin - 1 : margin + length + 1] = 0
    picture[bottom - thick : bottom, margin : margin + length] = 255


def png(picture: RGB) -> bytes:
    """PNG file of an RGB or grey picture."""
    buffer = io.BytesIO()
    is_grey = picture.ndim == 3 and bool((picture == picture[..., :1]).all())
    Image.fromarray(picture[..., 0] if is_grey else picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def data_uri(picture: RGB) -> str:
    """The picture as an address that HTML can hold."""
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode()


def preview_figure(image: NDArray[Any], labels: NDArray[Any], path: Path) -> None:
    """Write a crop beside the same crop with outlines as one PNG.

    Parameters
    ----------
    image, labels : (rows, columns)
    path : Path
        Replaced only when the picture is complete.
    """
    factor = max(1, 512 // max(image.shape))
    size = (image.shape[0] * factor, image.shape[1] * factor)
    plain, outlined = overlay(image, labels, size)
    gap = np.full((plain.shape[0], 8, 3), 255, np.uint8)
    picture = png(np.concatenate([plain, gap, outlined], axis=1))
    replace(path, lambda partial: partial.write_bytes(picture))
