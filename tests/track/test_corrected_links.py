"""Corrections of links: later ones stand in for earlier ones, and contradictions are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from families import family

from volsam.errors import VolsamError
from volsam.track.corrected_links import read_corrections, write_corrections
from volsam.track.correction_table import Place, Row, read_rows, write_rows
from volsam.track.lineage import Objects

NONE = np.zeros((0, 2), np.uint64)


def pairs(*links: tuple[int, int]) -> np.ndarray:
    return np.array(links, np.uint64).reshape(-1, 2)


def moved(objects: Objects, by: float) -> Objects:
    """The same objects as another segmentation sees them."""
    return Objects(objects.id, objects.frame, objects.position + by, objects.size)


def rows(table: Path) -> list[tuple[str, int]]:
    return [(row.action, row.second.frame) for row in read_rows(table)]


def test_the_last_word_on_two_objects_counts(tmp_path: Path) -> None:
    table, objects = tmp_path / "t.csv", family().objects
    write_corrections(table, objects, pairs((2, 3)), pairs((4, 6)))
    again = moved(objects, 0.01)
    write_corrections(table, again, pairs((4, 6)), pairs((2, 3)))
    must, never = read_corrections(table, objects, 1.0)
    assert must.tolist() == [[4, 6]]
    assert never.tolist() == [[2, 3]]
    assert len(rows(table)) == 2


def test_an_object_has_one_past(tmp_path: Path) -> None:
    table, objects = tmp_path / "t.csv", family().objects
    write_corrections(table, objects, pairs((4, 6)), NONE)
    write_corrections(table, moved(objects, 0.01), pairs((3, 6)), NONE)
    assert read_corrections(table, objects, 1.0)[0].tolist() == [[3, 6]]


def test_what_speaks_of_something_else_stays(tmp_path: Path) -> None:
    table, objects = tmp_path / "t.csv", family().objects
    split = Row("split", Place(0, 0, 0, 0), Place(0, 0, 1, 1))
    gone = Row("link", Place(0, 99, 99, 99), Place(1, 99, 99, 99))
    write_rows(table, [split, gone])
    write_corrections(table, objects, pairs((2, 3)), pairs((4, 6)))
    assert rows(table) == [("split", 0), ("link", 1), ("link", 2), ("cut", 4)]
    with pytest.raises(VolsamError, match=r"Line 3 .* names an object in frame 0 at z 99"):
        read_corrections(table, objects, 1.0)


def test_a_contradiction_names_both_lines(tmp_path: Path) -> None:
    table, objects = tmp_path / "t.csv", family().objects
    write_corrections(table, objects, pairs((2, 3)), NONE)
    kept = table.read_text()
    write_corrections(table, objects, NONE, pairs((4, 6), (2, 3)))
    table.write_text(kept + table.read_text().split("\n", 1)[1].replace("4,5", "4.000001,5"))
    with pytest.raises(VolsamError, match=r"Lines 2 and 4 of .* link and cut the same"):
        read_corrections(table, objects, 1.0)
