"""Choice of the AIS parameters by the mean segmentation accuracy on held-out training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volsam.evaluate.grid import AIS_GRID, AisEvaluator, ais_parameters, search
from volsam.evaluate.metrics import segmentation_accuracy
from volsam.segment.ais import AisParameters, segment_ais

Maps = NDArray[np.float32]
Labels = NDArray[np.int32]


def mean_scores(predictions: Sequence[NDArray[Any]], truths: Sequence[Labels]) -> dict[str, float]:
    """Average mSA, SA50 and SA75 over images, each image counting once."""
    scores = [segmentation_accuracy(p, t) for p, t in zip(predictions, truths, strict=True)]
    return {key: float(np.mean([s[key] for s in scores])) for key in ("mSA", "SA50", "SA75")}


def tune_ais(
    maps: Sequence[Maps],
    truths: Sequence[Labels],
    rounds: int = 2,
    *,
    start: AisParameters | None = None,
    workers: int = 1,
) -> tuple[AisParameters, dict[str, float]]:
    """Search the parameters coordinate by coordinate; return the best and its scores.

    With several `workers` these are processes, and the caller needs its ``__main__`` guard.
    """
    evaluator, first = AisEvaluator(maps, truths), asdict(start or AisParameters())
    found = search(
        evaluator, AIS_GRID, exhaustive=False, rounds=rounds, start=first, workers=workers
    )
    return ais_parameters(found.best), found.scores


def segment_maps(maps: Maps, parameters: AisParameters) -> NDArray[np.uint32]:
    """Label the instances of (3, h, w) maps."""
    foreground, center, boundary = maps
    return segment_ais(foreground, center, boundary, parameters)
