"""Which planes of a volume the report shows, and how they are read.

No picture asks for more than a window of `WINDOW` pixels, however large the volume is; the window
lies where most objects are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volsam.geometry import Box
from volsam.report.figures import data_uri, draw_scale_bar, overlay

WINDOW = 640
_WIDTH = 720  # picture pixels that a small plane is enlarged to, in whole steps

Reader = Callable[[Box], NDArray[Any]]


@dataclass(frozen=True)
class Picture:
    """One plane, plain and with outlines, ready for HTML."""

    title: str
    caption: str
    plain: str
    outlined: str
    width: int
    height: int


def pictures(
    image: Reader,
    labels: Reader,
    region: Box,
    voxel_size: tuple[float, float, float],
    unit: str,
    centroids: NDArray[np.float64] | None = None,
    frame_depth: int | None = None,
) -> list[Picture]:
    """Slices from the first, middle and last third of a region, and an xz section of a volume.

    Parameters
    ----------
    image, labels : function of a Box (zyx) to an array (z, y, x)
    region : Box
        Part of the volume that was segmented.
    voxel_size : (float, float, float)
        Edge lengths, zyx.
    unit : str
        Their unit, as it is to be printed.
    centroids : (n, 3), optional
        Object centres in voxels; the window is placed where most of them are.
    frame_depth : int, optional
        Slices of a frame, of a sequence.

    Returns
    -------
    list of Picture
        One for a volume of one slice, else four (fewer if there are fewer slices).
    """
    depth = region.shape[0]
    if region.size == 0:
        return []
    (y0, y1), (x0, x1) = (_window(region, axis, WINDOW, centroids) for axis in (1, 2))
    deepest = max(8, int(WINDOW * voxel_size[2] / voxel_size[0]))
    z0, z1 = _window(region, 0, deepest, centroids)
    found: list[Picture] = []
    for z in sorted({region.start[0] + depth * k // 6 for k in (1, 3, 5)}):
        box = Box((z, y0, x0), (z + 1, y1, x1))
        title = f"Slice z = {z}" if depth > 1 else "The image"
        if frame_depth is not None:
            title = f"Frame {z // frame_depth}"
            title += f", slice z = {z % frame_depth}" if frame_depth > 1 else ""
        found.append(_picture(title, image(box)[0], labels(box)[0], box, voxel_size, unit))
    if depth > 1 and frame_depth is None:
        y = (y0 + y1) // 2
        box = Box((z0, y, x0), (z1, y + 1, x1))
        title = f"Vertical section (xz) at y = {y}"
        planes = image(box)[:, 0], labels(box)[:, 0]
        found.append(_picture(title, *planes, box, voxel_size, unit))
    return found


def _window(
    region: Box, axis: int, size: int, centroids: NDArray[np.float64] | None
) -> tuple[int, int]:
    """The `size` voxels along an axis that hold most centroids; else the middle ones."""
    start, stop = region.start[axis], region.stop[axis]
    if stop - start <= size:
        return start, stop
    first = (start + stop - size) // 2
    if centroids is not None and len(centroids):
        steps = np.arange(start, stop - size + 1, max(1, size // 4))
        place = np.sort(centroids[:, axis])
        inside = np.searchsorted(place, steps + size) - np.searchsorted(place, steps)
        first = int(steps[inside.argmax()])
    return first, first + size


def _picture(
    title: str,
    image: NDArray[Any],
    labels: NDArray[Any],
    box: Box,
    voxel_size: tuple[float, float, float],
    unit: str,
) -> Picture:
    vertical = box.shape[1] == 1
    rows, columns = voxel_size[0 if vertical else 1], voxel_size[2]
    step = max(1, round(_WIDTH / max(image.shape))) / min(rows, columns)
    # Pixels become as long as in the specimen, so that the picture has its proportions.
    shape = (
        max(1, round(image.shape[0] * rows * step)),
        max(1, round(image.shape[1] * columns * step)),
    )
    plain, outlined = overlay(image, labels, shape)
    length = round_length(columns * image.shape[1] / 4)
    bar = round(length * step)
    for picture in (plain, outlined):
        draw_scale_bar(picture, bar)
    count = np.unique(labels[labels > 0]).size
    axis, name = (0, "slices") if vertical else (1, "rows")
    caption = (
        f"{count} object{'' if count == 1 else 's'}; columns {box.start[2]}–{box.stop[2] - 1}, "
        f"{name} {box.start[axis]}–{box.stop[axis] - 1}; bar {length:g} {unit}"
    )
    height, width = plain.shape[:2]
    return Picture(title, caption, data_uri(plain), data_uri(outlined), width, height)


def round_length(length: float) -> float:
    """Largest of 1, 2, 5 times a power of ten that is not above `length`."""
    power = 10.0 ** np.floor(np.log10(length))
    return float(max(k * power for k in (1, 2, 5) if k * power <= length * (1 + 1e-9)))
