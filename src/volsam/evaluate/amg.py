"""Grid search over the parameters of automatic mask generation (AMG), on candidates predicted once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volsam.evaluate.grid import Evaluator, parameters_of
from volsam.segment.amg import AmgParameters, segment_amg
from volsam.segment.masks import Candidates


class AmgEvaluator(Evaluator[Candidates]):
    """`Evaluator` of AMG; predictions are the candidates of each image."""

    @staticmethod
    def segment(prediction: Candidates, parameters: Mapping[str, float]) -> NDArray[np.uint32]:
        """See `segment_amg`."""
        return segment_amg(prediction, amg_parameters(parameters))

    @staticmethod
    def arrays(prediction: Candidates) -> Iterable[NDArray[Any]]:
        """Masks and what is known of them."""
        masks = (np.frombuffer(packed, np.uint8) for packed in prediction.packed)
        return (prediction.boxes, prediction.iou, prediction.stability, *masks)


def amg_parameters(values: Mapping[str, float]) -> AmgParameters:
    """Turn names and numbers into `AmgParameters`; unknown names are refused."""
    return parameters_of(AmgParameters, "AMG", values)


def loosest(grid: Mapping[str, Sequence[float]], start: AmgParameters) -> AmgParameters:
    """What candidates must be kept with for all parameters of a grid, and for `start`."""
    names = ("pred_iou_thresh", "stability_score_thresh")
    least = {name: min(*grid.get(name, ()), getattr(start, name), np.inf) for name in names}
    return replace(start, **least)
