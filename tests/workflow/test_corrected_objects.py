"""Snakemake for real: a table that merges objects reruns what depends on it, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scenes
from flow import Workflow

from volsam.track.correction_table import Place, Row, write_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

AFTER = ["label", "measure", "report"]


def test_rows_of_objects_and_of_links(finished: Workflow) -> None:
    labels = scenes.read_labels(finished.paths)
    points = [np.argwhere(labels == number)[0] for number in (1, 2)]
    merge = Row("merge", *(Place.of(0, point, (3, 1, 1)) for point in points))
    cut = Row("cut", Place(0, 0, 0, 0), Place(1, 0, 0, 0))
    table = Path(finished.folder) / "corrections.csv"
    write_rows(table, [cut])
    finished.data["samples"]["a"]["corrections"] = str(table)
    assert finished.run() == []  # links are no matter of a volume
    write_rows(table, [merge])
    assert finished.run() == ["regroup", *AFTER]
    again = scenes.read_labels(finished.paths)
    assert len(np.unique(again)) == len(np.unique(labels)) - 1
    write_rows(table, [cut, merge])
    assert finished.run() == []
    table.write_text(table.read_text() + "merge,0,0,0,0,0,999,0,0\n")
    process = finished.start()
    assert process.wait(timeout=800) != 0
    assert "Line 4 of" in finished.log()
    del finished.data["samples"]["a"]["corrections"]
    assert finished.run() == AFTER
    np.testing.assert_array_equal(scenes.read_labels(finished.paths), labels)
