"""Weights for data without tracked truth, by kind.

All were fitted to synthetic sequences with known truth, at random: bacteria and nuclei of any density,
speed, frame interval, drift and quality of segmentation (`benchmarks.linking.cultures`). No real sequence
had a part in the fit; ``python -m benchmarks.linking refit`` makes them again.
"""

from __future__ import annotations

from collections.abc import Mapping

from volsam.track.weights import Weights

DEFAULTS: Mapping[str, Weights] = {
    # Both, with labels and images.
    "general": Weights.of(
        {
            "link": {
                "bias": 5.14,
                "gap": -7.65,
                "step": -0.83,
                "distance": -1.16,
                "covered": -0.45,
                "uncovered": 0.16,
                "iou": 4.38,
                "size": -0.68,
                "intensity": -2.64,
                "claimed": -1.68,
                "border": 0.41,
                "squared": 0.14,
                "loose": 2.28,
            },
            "division": {
                "bias": 2.5,
                "step": 0.37,
                "distance": -2.24,
                "midpoint": 0.15,
                "separation": 0.3,
                "balance": 0.17,
                "opposite": 1.86,
                "covered": -0.32,
                "uncovered": -0.66,
                "least": 4.87,
                "growth": -4.21,
                "loss": -2.62,
                "ratio": -0.91,
                "large": -2.09,
                "intensity": -2.06,
                "bright": -0.05,
                "mother_bright": 0.15,
                "deviation": 0.93,
                "elongation": 0.01,
                "claimed": -3.83,
                "squared": -0.36,
                "apart": -0.28,
                "population": 0.88,
                "gap": -4.93,
                "loose": -0.54,
            },
            "start": {"bias": -3.48, "border": -0.87, "loose": 2.28},
            "end": {"bias": -4.16, "border": 1.05, "loose": 2.33},
        }
    ),
    # Bacteria only.
    "bacteria": Weights.of(
        {
            "link": {
                "bias": 3.45,
                "gap": -6.14,
                "step": -0.01,
                "distance": -3.41,
                "covered": 3.25,
                "uncovered": 2.29,
                "iou": 0.77,
                "size": -0.16,
                "intensity": -0.77,
                "claimed": -2.32,
                "border": 0.31,
                "squared": -0.86,
                "loose": 0.63,
            },
            "division": {
                "bias": -0.9,
                "step": 0.29,
                "distance": -1.42,
                "midpoint": -0.27,
                "separation": -0.29,
                "balance": -1.89,
                "opposite": 2.39,
                "covered": 1.42,
                "uncovered": 1.19,
                "least": 7.05,
                "growth": -1.4,
                "loss": -0.06,
                "ratio": -0.21,
                "large": -0.51,
                "intensity": -0.65,
                "bright": -0.76,
                "mother_bright": 0.04,
                "deviation": 0.62,
                "elongation": 0.26,
                "claimed": -1.95,
                "squared": -0.28,
                "apart": -0.88,
                "population": -1.15,
                "gap": -3.76,
                "loose": -2.98,
            },
            "start": {"bias": -1.02, "border": -0.59, "loose": -0.94},
            "end": {"bias": -1.53, "border": 0.68, "loose": -1.57},
        }
    ),
    # Both, by positions alone, and points that wander and divide in planes and volumes.
    "points": Weights.of(
        {
            "link": {
                "bias": 5.38,
                "gap": -6.87,
                "step": -0.85,
                "distance": -1.32,
                "covered": 0.0,
                "uncovered": 0.0,
                "iou": 0.0,
                "size": 0.0,
                "intensity": 0.0,
                "claimed": -2.78,
                "border": 0.24,
                "squared": -0.31,
                "loose": 1.42,
            },
            "division": {
                "bias": 4.53,
                "step": 0.0,
                "distance": -2.53,
                "midpoint": -0.61,
                "separation": -2.5,
                "balance": -0.17,
                "opposite": 0.21,
                "covered": 0.0,
                "uncovered": 0.0,
                "least": 0.0,
                "growth": 3.14,
                "loss": 0.0,
                "ratio": 0.0,
                "large": 0.0,
                "intensity": 0.0,
                "bright": 0.0,
                "mother_bright": 0.0,
                "deviation": 0.0,
                "elongation": 0.0,
                "claimed": -8.04,
                "squared": -0.91,
                "apart": 0.66,
                "population": 1.42,
                "gap": -6.57,
                "loose": 0.38,
            },
            "start": {"bias": -4.96, "border": 2.59, "loose": 2.37},
            "end": {"bias": -4.94, "border": 3.37, "loose": 2.2},
        }
    ),
}
