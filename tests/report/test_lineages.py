"""Pictures of lineages."""

import base64

import numpy as np

from volsam.report.lineages import (
    division_chart,
    length_chart,
    summary,
    tree_picture,
    tree_rows,
)
from volsam.track.lineage import Lineage, Objects


def family() -> Lineage:
    """1 lives two frames and divides; one daughter divides again; another cell stands alone."""
    frame = [0, 0, 1, 1, 2, 2, 2, 3, 3, 3]
    objects = Objects.sort(np.arange(1, 11), frame, np.zeros((10, 3)), np.ones(10))
    links = [[1, 3], [3, 5], [3, 6], [5, 8], [5, 9], [6, 10], [2, 4], [4, 7]]
    return Lineage.of(objects, links)


def test_mothers_lie_between_their_daughters() -> None:
    lineage = family()
    rows = tree_rows(lineage, np.array([1]))
    assert len(rows) == 5
    for mother, daughters in lineage.divisions().items():
        assert rows[mother] == np.mean([rows[int(d)] for d in daughters])
    leaves = sorted(row for track, row in rows.items() if track not in lineage.divisions())
    assert leaves == [0, 1, 2]


def test_a_deep_family_is_no_recursion() -> None:
    n = 3000
    frames = np.concatenate([np.arange(n), np.arange(1, n)])
    objects = Objects.sort(
        np.arange(1, 2 * n), frames, np.zeros((2 * n - 1, 3)), np.ones(2 * n - 1)
    )
    chain = np.arange(1, n)
    links = np.concatenate([np.stack([chain, chain + 1], 1), np.stack([chain, chain + n], 1)])
    lineage = Lineage.of(objects, links)
    assert len(tree_rows(lineage, np.array([1]))) == len(lineage)
    assert tree_picture(lineage)


def test_charts_and_summary() -> None:
    lineage = family()
    picture = base64.b64decode(tree_picture(lineage))
    assert picture.startswith(b"\x89PNG")
    lengths, divisions = length_chart(lineage), division_chart(lineage)
    assert lengths is not None
    assert sum(lengths.counts) == len(lineage)
    assert divisions is not None
    assert sum(divisions.counts) == 2
    assert dict(summary(lineage))["families"] == "2"


def test_nothing_to_draw() -> None:
    empty = Lineage.of(Objects.sort([], [], [], []), [])
    assert tree_picture(empty) == ""
    assert length_chart(empty) is None
    assert division_chart(empty) is None
    assert dict(summary(empty))["tracks"] == "0"
