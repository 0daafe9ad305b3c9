"""What is measured of objects, and their overlaps."""

import numpy as np
import pytest

from volsam.track.measure import edge_distance, measure, overlaps, radius

SPACING = (1.0, 0.5, 0.5)


def test_a_bar_in_a_plane() -> None:
    labels = np.zeros((1, 20, 40), np.uint32)
    labels[0, 8:12, 10:26] = 7
    image = np.where(labels, 50, 3).astype(np.uint16)
    image[0, 8:12, 10:18] = 30
    found = measure(labels, SPACING, image)
    assert found["label"].tolist() == [7]
    np.testing.assert_allclose(found["position"], [[0, 9.5 * 0.5, 17.5 * 0.5]])
    assert found["size"].tolist() == [4 * 16 * 0.25]
    assert found["elongation"][0] == pytest.approx(4)
    assert (found["intensity"][0], found["deviation"][0]) == (40, 10)


def test_ball_and_border() -> None:
    z, y, x = np.mgrid[:21, :30, :30]
    ball = (z - 10) ** 2 + (y - 12) ** 2 + (x - 15) ** 2 < 64
    found = measure(ball.astype(np.uint16), (1.0, 1.0, 1.0))
    assert found["elongation"][0] == pytest.approx(1, abs=0.01)
    assert radius(found["size"], planar=False)[0] == pytest.approx(8, abs=0.2)
    assert found["border"][0] == pytest.approx(12 - 8, abs=0.3)
    assert "intensity" not in found


def test_nothing_to_measure() -> None:
    found = measure(np.zeros((1, 5, 5), np.uint8), SPACING, np.zeros((1, 5, 5)))
    assert {len(column) for column in found.values()} == {0}
    assert found["position"].shape == (0, 3)


def test_edges_are_within_the_plane() -> None:
    position = np.array([[0.0, 3, 20], [9, 30, 38]])
    assert edge_distance(position, np.array([10.0, 40, 40])).tolist() == [3, 2]


def test_each_object_moves_as_a_whole() -> None:
    before, after = np.zeros((2, 1, 10, 10), np.uint32)
    before[0, 2:4, 2:4], before[0, 7:9, 7:9] = 5, 3
    after[0, 2:4, 4:6], after[0, 7:9, 6:9] = 1, 2
    still = overlaps(before, after, np.zeros((2, 3)))
    assert [side.tolist() for side in still] == [[3], [2], [4]]
    moved = overlaps(before, after, np.array([[0, 2, 0], [0, 0, 2]]))  # 3 goes out, 5 follows
    assert [side.tolist() for side in moved] == [[5], [1], [4]]
