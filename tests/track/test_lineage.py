"""Lineages from links and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volsam.errors import VolsamError
from volsam.track.lineage import Lineage, Objects


def objects(frames: list[int]) -> Objects:
    n = len(frames)
    return Objects.sort(np.arange(1, n + 1), frames, np.zeros((n, 3)), np.ones(n))


def test_a_division_and_a_gap() -> None:
    # 1 -> 2 -> (3, 4); 4 -> 6 over a gap; 5 on its own
    lineage = Lineage.of(objects([0, 1, 2, 2, 2, 4]), [[1, 2], [2, 3], [2, 4], [4, 6]])
    assert lineage.track.tolist() == [1, 1, 2, 3, 4, 3]
    assert lineage.parent.tolist() == [0, 1, 1, 0]
    assert lineage.links().tolist() == [[1, 2], [2, 3], [2, 4], [4, 6]]
    first, last = lineage.frames()
    assert (first.tolist(), last.tolist()) == ([0, 2, 2, 2], [1, 2, 4, 2])
    assert lineage.family().tolist() == [1, 1, 1, 4]
    assert {k: v.tolist() for k, v in lineage.divisions().items()} == {1: [2, 3]}


def test_nothing_is_a_lineage_too() -> None:
    lineage = Lineage.of(objects([]), [])
    assert len(lineage) == 0
    assert lineage.links().shape == (0, 2)


@pytest.mark.parametrize(
    ("links", "said"),
    [
        ([[2, 1]], "forward in time"),
        ([[1, 3], [2, 3]], "several predecessors"),
        ([[1, 9]], "no object 9"),
    ],
)
def test_impossible_links_are_refused(links: list[list[int]], said: str) -> None:
    with pytest.raises(VolsamError, match=said):
        Lineage.of(objects([0, 0, 1]), links)


@settings(deadline=None)
@given(st.data())
def test_links_come_back(data: st.DataObject) -> None:
    frames = sorted(data.draw(st.lists(st.integers(0, 5), max_size=20)))
    made = objects(frames)
    links = []
    for row in range(len(made)):
        earlier = np.flatnonzero(made.frame < made.frame[row])
        if len(earlier) and data.draw(st.booleans()):
            links.append([earlier[data.draw(st.integers(0, len(earlier) - 1))] + 1, row + 1])
    lineage = Lineage.of(made, links)
    assert lineage.links().tolist() == links
    assert (np.diff(np.unique(lineage.track)) == 1).all()
    first, last = lineage.frames()
    born = np.flatnonzero(lineage.parent)
    assert (last[lineage.parent[born] - 1] < first[born]).all()
