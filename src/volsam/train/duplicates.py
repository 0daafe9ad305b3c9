"""Near-duplicates between two sets of images, so that a score can be given without them.

Two images count as near-duplicates if they have the same size and, reduced to thumbnails and in one
of the eight orientations of the square, correlate above a threshold. Neighbouring fields of one
experiment look alike without showing the same objects; they stay below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray
from skimage.transform import resize

from volsam.train.data import Example

THUMBNAIL = 32


def near_duplicates(
    queries: Sequence[Example], references: Sequence[Example], threshold: float = 0.85
) -> dict[str, str]:
    """Map the name of each query that has a near-duplicate to that reference."""
    found = {}
    thumbnails = [(example, _thumbnail(example.image)) for example in references]
    for query in queries:
        views = _orientations(_thumbnail(query.image))
        best, name = threshold, None
        for reference, thumbnail in thumbnails:
            if sorted(reference.image.shape) == sorted(query.image.shape):
                likeness = float(max((view * thumbnail).mean() for view in views))
                if likeness > best:
                    best, name = likeness, reference.name
        if name is not None:
            found[query.name] = name
    return found


def _thumbnail(image: NDArray[np.floating]) -> NDArray[np.float64]:
    """Reduce an image to a square of zero mean and unit variance."""
    small = resize(np.clip(image, 0, 1), (THUMBNAIL, THUMBNAIL), anti_aliasing=True)
    return (small - small.mean()) / max(float(small.std()), 1e-6)


def _orientations(image: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return the eight rotations and reflections."""
    return [
        np.rot90(image[:, ::-1] if flip else image, turns)
        for flip, turns in product((False, True), range(4))
    ]
