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
                "bias": 2.88,
                "gap": -5.05,
                "step": -0.51,
                "distance": -1.46,
                "covered": -1.04,
                "uncovered": -0.12,
                "iou": 4.7,
                "size": -0.67,
                "intensity": -2.7,
                "claimed": -1.94,
                "border": 0.49,
            },
            "division": {
                "bias": 2.12,
                "step": 0.18,
                "distance": -1.37,
                "midpoint": -1.78,
                "separation": -0.69,
                "balance": -0.4,
                "opposite": 1.84,
                "covered": -0.92,
                "uncovered": -0.03,
                "least": 4.98,
                "growth": -4.21,
                "loss": -2.66,
                "ratio": -1.07,
                "large": -1.93,
                "intensity": -2.14,
                "bright": -0.07,
                "mother_bright": 0.23,
                "deviation": 0.81,
                "elongation": 0.27,
                "claimed": -4.09,
            },
            "start": {"bias": -2.22, "border": -1.05},
            "end": {"bias": -2.78, "border": 0.86},
        }
    ),
    # Bacteria only.
    "bacteria": Weights.of(
        {
            "link": {
                "bias": 3.91,
                "gap": -5.71,
                "step": -0.84,
                "distance": -3.05,
                "covered": 2.54,
                "uncovered": 2.6,
                "iou": 0.44,
                "size": -0.39,
                "intensity": -0.71,
                "claimed": -2.46,
                "border": 0.38,
            },
            "division": {
                "bias": -0.55,
                "step": 0.16,
                "distance": -2.0,
                "midpoint": -1.25,
                "separation": -0.97,
                "balance": -2.43,
                "opposite": 2.24,
                "covered": 1.3,
                "uncovered": 1.87,
                "least": 7.16,
                "growth": -1.46,
                "loss": -0.33,
                "ratio": -0.65,
                "large": -0.62,
                "intensity": -0.66,
                "bright": -0.52,
                "mother_bright": 0.23,
                "deviation": 0.13,
                "elongation": 0.39,
                "claimed": -2.26,
            },
            "start": {"bias": -1.12, "border": -0.86},
            "end": {"bias": -2.25, "border": 0.51},
        }
    ),
    # Both, by positions alone, and points that wander and divide in planes and volumes.
    "points": Weights.of(
        {
            "link": {
                "bias": 3.52,
                "gap": -5.04,
                "step": -1.06,
                "distance": -1.59,
                "covered": 0.0,
                "uncovered": 0.0,
                "iou": 0.0,
                "size": 0.0,
                "intensity": 0.0,
                "claimed": -2.84,
                "border": 0.31,
            },
            "division": {
                "bias": 2.82,
                "step": -0.04,
                "distance": 0.19,
                "midpoint": -4.01,
                "separation": -1.33,
                "balance": -1.44,
                "opposite": 0.11,
                "covered": 0.0,
                "uncovered": 0.0,
                "least": 0.0,
                "growth": 1.96,
                "loss": 0.0,
                "ratio": 0.0,
                "large": 0.0,
                "intensity": 0.0,
                "bright": 0.0,
                "mother_bright": 0.0,
                "deviation": 0.0,
                "elongation": 0.0,
                "claimed": -8.19,
            },
            "start": {"bias": -3.02, "border": 2.3},
            "end": {"bias": -3.33, "border": 3.05},
        }
    ),
}
