"""Scores against those of elf, which micro-sam evaluates with; recorded by `oracle_elf.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from volsam.evaluate.metrics import segmentation_accuracy

RECORD = Path(__file__).parent / "elf.npz"
CASES = [f"{kind}_{seed}" for kind in ("plane", "volume") for seed in range(4)]
NAMES = ("mSA", "SA50", "SA75", "precision", "recall", "f1")


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_elf(case: str) -> None:
    with np.load(RECORD) as record:
        truth, labels = record[f"{case}_truth"], record[f"{case}_labels"]
        expected, each = record[f"{case}_scores"], record[f"{case}_SA"]
    scores = segmentation_accuracy(labels, truth)
    assert [scores[name] for name in NAMES] == pytest.approx(list(expected), abs=1e-12)
    assert list(scores["SA"].values()) == pytest.approx(list(each), abs=1e-12)


def test_the_cases_tell_scores_apart() -> None:
    """The perfect case aside, no score is trivial and no two names share their values."""
    with np.load(RECORD) as record:
        table = np.array([record[f"{case}_scores"] for case in CASES if case[-1] != "0"])
    assert ((table > 0.02) & (table < 0.98)).all()
    assert len({tuple(column) for column in table.T}) == len(NAMES)
