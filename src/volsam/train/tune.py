"""Choice of the AIS parameters by the mean segmentation accuracy on held-out training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volsam.evaluate.metrics import segmentation_accuracy
from volsam.segment.ais import AisParameters, segment_ais

Maps = NDArray[np.float32]
Labels = NDArray[np.int32]

GRID: dict[str, tuple[float, ...]] = {
    "center_threshold": (0.3, 0.4, 0.6, 0.7),
    "boundary_threshold": (0.4, 0.6, 0.7, 0.8),
    "distance_smoothing": (0.0, 0.8, 1.2, 2.0),
    "foreground_threshold": (0.4, 0.45, 0.55, 0.6),
    "foreground_smoothing": (0.0, 0.5),
    "min_size": (10, 20, 30, 40),
}


def mean_scores(predictions: Sequence[NDArray[Any]], truths: Sequence[Labels]) -> dict[str, float]:
    """Average mSA, SA50 and SA75 over images, each image counting once."""
    scores = [segmentation_accuracy(p, t) for p, t in zip(predictions, truths, strict=True)]
    return {key: float(np.mean([s[key] for s in scores])) for key in ("mSA", "SA50", "SA75")}


def tune_ais(
    maps: Sequence[Maps], truths: Sequence[Labels], rounds: int = 2
) -> tuple[AisParameters, dict[str, float]]:
    """Search the parameters coordinate by coordinate; return the best and its scores."""
    best = AisParameters()
    scores = _score(maps, truths, best)
    for _ in range(rounds):
        before = best
        for name, values in GRID.items():
            for value in values:
                candidate = replace(best, **{name: value})  # type: ignore[arg-type]
                if candidate == best:
                    continue
                new = _score(maps, truths, candidate)
                if new["mSA"] > scores["mSA"]:
                    best, scores = candidate, new
        if best == before:
            break
    return best, scores


def segment_maps(maps: Maps, parameters: AisParameters) -> NDArray[np.uint32]:
    """Label the instances of (3, h, w) maps."""
    foreground, center, boundary = maps
    return segment_ais(foreground, center, boundary, parameters)


def _score(
    maps: Sequence[Maps], truths: Sequence[Labels], parameters: AisParameters
) -> dict[str, float]:
    return mean_scores([segment_maps(m, parameters) for m in maps], truths)
