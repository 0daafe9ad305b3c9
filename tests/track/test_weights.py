"""Weights, stored and read."""

from pathlib import Path

import numpy as np
import pytest

from volsam.errors import VolsamError
from volsam.track.defaults import DEFAULTS
from volsam.track.weights import PARTS, Weights, places


def test_there_and_back(tmp_path: Path) -> None:
    for weights in DEFAULTS.values():
        weights.write(tmp_path / "w.json")
        assert np.array_equal(Weights.read(tmp_path / "w.json").vector, weights.vector)


def test_weights_that_ship_know_no_embeddings() -> None:
    """Stage `link` leaves embeddings out where they count nothing."""
    for weights in DEFAULTS.values():
        named = weights.as_dict()
        division = named["division"]
        assert named["link"]["embedding"] == division["embedding"] == division["sisters"] == 0


def test_what_is_not_named_is_zero() -> None:
    weights = Weights.of({"link": {"iou": 2.0}})
    assert weights.part("link").sum() == weights.vector.sum() == 2
    assert weights.as_dict()["link"]["iou"] == 2
    assert places("end").stop == len(weights.vector) == sum(map(len, PARTS.values()))


@pytest.mark.parametrize(
    "text",
    [
        *("no", "[]", "3", '{"link": 1}', '{"link": {"new": 1}}', '{"new": {}}'),
        *('{"link": {"iou": "x"}}', '{"link": {"iou": NaN}}'),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "w.json"
    path.write_text(text)
    with pytest.raises(VolsamError, match=r"w\.json"):
        Weights.read(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(VolsamError, match="Cannot read the weights"):
        Weights.read(tmp_path / "none.json")
