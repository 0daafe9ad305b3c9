"""Windows of an image that a promptable model sees at once, each with the objects it holds whole.

An image that fits the network's input is one window. A larger one is covered by windows that overlap
by half; every object belongs to one that contains it, the one it lies most central in, or gets a
window of its own. Only an object that is itself larger than the input is seen at a smaller scale.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from volsam.geometry import Box, window_span


@dataclass(frozen=True)
class Window:
    """A part of an image.

    Attributes
    ----------
    box : Box
        Rows and columns.
    scale : float
        Pixels of the network's input per pixel of the image.
    ids : (n,) intp array
        Objects that are prompted in it, ascending.
    """

    box: Box
    scale: float
    ids: NDArray[np.intp]


def windows(labels: NDArray[np.integer[Any]], image_size: int, scale: float = 1.0) -> list[Window]:
    """Distribute the objects of an image over windows.

    Parameters
    ----------
    labels : (h, w) integer array
        Objects 1..n without gaps, 0 is background.
    image_size : int
        Side of the network's square input.
    scale : float
        Pixels of the network's input per pixel of the image.

    Returns
    -------
    list of Window
        In the order of their place; none without an object, each object in exactly one.
    """
    side = max(1, int(image_size / scale))
    members: defaultdict[tuple[Box, float], list[int]] = defaultdict(list)
    for number, part in enumerate(ndi.find_objects(labels), start=1):
        extent = max(s.stop - s.start for s in part)
        wide = max(side, extent)
        spans = [
            window_span(s.start, s.stop, n, wide) for s, n in zip(part, labels.shape, strict=True)
        ]
        box = Box(tuple(a for a, _ in spans), tuple(b for _, b in spans))
        members[box, scale if wide == side else image_size / wide].append(number)
    ordered = sorted(members.items(), key=lambda item: item[0])
    return [Window(box, zoom, np.array(numbers)) for (box, zoom), numbers in ordered]
