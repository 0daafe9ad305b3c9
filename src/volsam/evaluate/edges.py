"""Scores of linking alone: links of a lineage against true links of the same objects.

Links are rows (object, successor). Both lineages name an object by the same id, or a one-to-one
matching translates; a link of an object that has no partner is left out on either side, so that
only linking is scored. A division is right if the same object divides into the same objects, as in
traccuracy (frame buffer 0). Where there is nothing to find and nothing was found, scores are 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from volsam.errors import VolsamError

Pairs = npt.NDArray[np.uint64]


def edge_scores(
    truth: npt.ArrayLike, result: npt.ArrayLike, matching: npt.ArrayLike | None = None
) -> dict[str, Any]:
    """Wrong links, and precision, recall and F1 of links and of divisions.

    Parameters
    ----------
    truth : (m, 2) ids
        True links, object and successor.
    result : (k, 2) ids
        Links found.
    matching : (n, 2) ids, optional
        True object and object of the result. Without it, ids mean the same object in both.

    Returns
    -------
    dict
        ``true_edges``, ``edges``, ``missed_edges`` (FN), ``false_edges`` (FP), ``edge_errors`` (their
        sum), ``edge_precision``, ``edge_recall``, ``edge_f1``; ``true_divisions``, ``divisions``,
        ``right_divisions``, ``division_precision``, ``division_recall``, ``division_f1``.

    Raises
    ------
    VolsamError
        If an object has two partners in the matching.
    """
    true, found = _links(truth), _links(result)
    if matching is not None:
        pairs = _links(matching)
        for side in pairs.T:
            if len(np.unique(side)) < len(side):
                raise VolsamError("An object has several partners; match objects one to one.")
        true = true[np.isin(true, pairs[:, 0]).all(axis=1)]
        found = _translate(found[np.isin(found, pairs[:, 1]).all(axis=1)], pairs)
    both = np.concatenate([true, found])
    ids, rows = np.unique(both, return_inverse=True)
    rows = rows.reshape(-1, 2)
    key = rows[:, 0] * len(ids) + rows[:, 1]
    right = rows[: len(true)][np.isin(key[: len(true)], key[len(true) :])]
    n_true, n_found, n_right = (
        np.bincount(sources, minlength=len(ids))
        for sources in (rows[: len(true), 0], rows[len(true) :, 0], right[:, 0])
    )
    divides, divides_here = n_true > 1, n_found > 1
    same = divides & (n_true == n_found) & (n_true == n_right)
    missed, false = len(true) - len(right), len(found) - len(right)
    return {
        "true_edges": len(true),
        "edges": len(found),
        "missed_edges": missed,
        "false_edges": false,
        "edge_errors": missed + false,
        **f1_scores("edge", len(right), len(true), len(found)),
        "true_divisions": int(divides.sum()),
        "divisions": int(divides_here.sum()),
        "right_divisions": int(same.sum()),
        **f1_scores("division", int(same.sum()), int(divides.sum()), int(divides_here.sum())),
    }


def f1_scores(name: str, right: int, true: int, found: int) -> dict[str, float]:
    """Precision, recall and F1 from counts, under keys that start with a name."""
    return {
        f"{name}_precision": right / found if found else float(not true),
        f"{name}_recall": right / true if true else float(not found),
        f"{name}_f1": 2 * right / (true + found) if true + found else 1.0,
    }


def _links(links: npt.ArrayLike) -> Pairs:
    """Links without repetition."""
    return np.unique(np.asarray(links, np.uint64).reshape(-1, 2), axis=0)


def _translate(links: Pairs, pairs: Pairs) -> Pairs:
    """Links of the result in ids of the truth; every object is in the matching."""
    pairs = pairs[np.argsort(pairs[:, 1])]
    return pairs[np.searchsorted(pairs[:, 1], links), 0]
