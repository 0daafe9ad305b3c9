"""Near-duplicates between two sets of images, so that a score can be given without them.

Two images count as near-duplicates if they have the same size and, reduced to thumbnails and in one
of the eight orientations of the square, correlate above a threshold. Neighbouring fields of one
experiment look alike without showing the same objects; they stay below it.

``python -m volsam.train.duplicates --data ../shared/data`` looks for the large example, and for pieces
of it, among the training images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.feature import match_template
from skimage.transform import downscale_local_mean, resize

from volsam.train.data import Example, load_dsb2018

THUMBNAIL = 32
REDUCTION = 4


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


def likeness_to_part(
    large: NDArray[np.floating], image: NDArray[np.floating], reduction: int = REDUCTION
) -> float:
    """Highest correlation of an image with a part of a larger one, in any orientation.

    Parameters
    ----------
    large, image : (h, w) arrays
        Of the same scale; of an `image` that does not fit into `large` a corner is compared.
    reduction : int
        Pixels averaged along each axis before they are compared.
    """
    whole, piece = (downscale_local_mean(np.clip(i, 0, 1), reduction) for i in (large, image))
    side = min(whole.shape) - 1
    piece = piece[:side, :side]
    return max(float(match_template(whole, view).max()) for view in _orientations(piece))


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


def main() -> None:
    """Print the training images that are most like a part of the large example."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    data = parser.parse_args().data
    for large in load_dsb2018(data, "train", large=True):
        found = [
            (likeness_to_part(large.image, example.image), example.name)
            for example in load_dsb2018(data, "train")
        ]
        for likeness, name in sorted(found, reverse=True)[:5]:
            print(f"{large.name} {name} {likeness:.3f}")


if __name__ == "__main__":
    main()
