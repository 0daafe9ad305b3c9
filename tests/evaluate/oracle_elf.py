"""Record the scores that elf, micro-sam's evaluation library, gives to segmentations.

Not a test: run it where micro-sam is installed; ``test_metrics_elf.py`` compares with what it records::

    python tests/evaluate/oracle_elf.py tests/evaluate/elf.npz

Each case is a truth of random blobs and labels that split, merge, shift, lose and invent objects. The
thresholds are handed over: elf's own come from ``np.arange`` and lie 2e-16 above 0.6, 0.7 and 0.75,
so that pairs of just this intersection over union, frequent among small objects, would not match.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from elf.evaluation import matching, mean_segmentation_accuracy
from scipy.ndimage import gaussian_filter, label

SHAPES = {"plane": (96, 110), "volume": (14, 34, 36)}
THRESHOLDS = [round(0.5 + 0.05 * i, 2) for i in range(10)]


def blobs(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Objects of many sizes."""
    return label(gaussian_filter(rng.normal(size=shape), 2.4) > 0.04)[0].astype(np.uint16)


def spoil(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels with every kind of fault."""
    found = truth.copy()
    found[truth % 5 == 1] = 0
    found[truth % 7 == 2] = 3
    found[..., int(rng.integers(5, 20)) :: 40] = 0
    found[: truth.shape[0] // 2] = np.roll(found, 1, -1)[: truth.shape[0] // 2]
    extra = blobs(rng, truth.shape)
    found[(extra % 3 == 0) & (truth == 0)] = 0
    found = np.where((extra % 9 == 1) & (truth == 0), 500 + extra, found)
    return label(found > 0)[0].astype(np.uint16) if rng.random() < 0.5 else found.astype(np.uint16)


def main(path: Path) -> None:
    """Write cases and scores."""
    record: dict[str, np.ndarray] = {}
    for name, shape in SHAPES.items():
        for seed in range(4):
            rng = np.random.default_rng(seed)
            truth = blobs(rng, shape)
            found = truth if seed == 0 else spoil(truth, rng)
            mean, each = mean_segmentation_accuracy(found, truth, THRESHOLDS, True)
            at = [matching(found, truth, threshold=t) for t in (0.5, 0.75)]
            case = f"{name}_{seed}"
            record[f"{case}_truth"], record[f"{case}_labels"] = truth, found
            record[f"{case}_scores"] = np.array(
                [mean, at[0]["segmentation_accuracy"], at[1]["segmentation_accuracy"],
                 at[0]["precision"], at[0]["recall"], at[0]["f1"]]
            )  # fmt: skip
            record[f"{case}_SA"] = np.array(each)
            print(case, record[f"{case}_scores"].round(3))
    np.savez_compressed(path, **record)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
