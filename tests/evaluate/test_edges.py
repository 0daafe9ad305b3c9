"""Scores of linking alone on lineages whose errors are known."""

from __future__ import annotations

import numpy as np
import pytest

from volsam.errors import VolsamError
from volsam.evaluate.edges import edge_scores

# 1 → 2 → (3, 4), 3 → 5
TRUTH = np.array([[1, 2], [2, 3], [2, 4], [3, 5]])


def test_the_truth_is_perfect():
    scores = edge_scores(TRUTH, TRUTH[::-1])
    assert scores["edge_errors"] == 0
    assert scores["edge_f1"] == scores["division_f1"] == 1
    assert (scores["true_edges"], scores["true_divisions"]) == (4, 1)


def test_a_missed_daughter_costs_a_link_and_the_division():
    scores = edge_scores(TRUTH, TRUTH[[0, 1, 3]])
    assert (scores["missed_edges"], scores["false_edges"]) == (1, 0)
    assert scores["edge_recall"] == 0.75
    assert (scores["divisions"], scores["division_f1"]) == (0, 0)


def test_a_division_with_a_wrong_daughter_is_wrong():
    scores = edge_scores(TRUTH, [[1, 2], [2, 3], [2, 9], [3, 5]])
    assert (scores["missed_edges"], scores["false_edges"], scores["edge_errors"]) == (1, 1, 2)
    assert (scores["divisions"], scores["right_divisions"]) == (1, 0)


def test_half_of_the_divisions():
    truth = [[1, 2], [1, 3], [4, 5], [4, 6]]
    scores = edge_scores(truth, [[1, 2], [1, 3], [4, 5], [7, 8], [7, 9]])
    assert scores["division_precision"] == scores["division_recall"] == 0.5


def test_a_matching_translates_ids_and_leaves_out_objects_without_a_partner():
    ids = np.array([[1, 2**40], [2, 7], [4, 8], [5, 9]])  # 3 has no mask
    scores = edge_scores(TRUTH, [[2**40, 7], [7, 8], [8, 9], [8, 77]], ids)
    assert (scores["true_edges"], scores["edges"]) == (2, 3)
    assert (scores["missed_edges"], scores["false_edges"]) == (0, 1)


def test_a_matching_is_one_to_one():
    with pytest.raises(VolsamError, match="several partners"):
        edge_scores(TRUTH, TRUTH, [[1, 1], [2, 1]])


def test_nothing_to_find():
    scores = edge_scores([], np.zeros((0, 2)))
    assert scores["edge_f1"] == scores["division_precision"] == scores["edge_recall"] == 1
    assert edge_scores([], TRUTH)["edge_f1"] == 0
