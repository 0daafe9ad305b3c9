from collections import Counter

import numpy as np
import pytest

from volsam.errors import VolsamError
from volsam.evaluate.contingency import Contingency, same_partition
from volsam.geometry import Box

BIG = np.uint64(2**33 + 5)


def random_labels(rng: np.random.Generator, shape: tuple[int, ...], n: int = 6) -> np.ndarray:
    coarse = rng.integers(0, n, [(s + 2) // 3 for s in shape])
    for axis in range(len(shape)):
        coarse = np.repeat(coarse, 3, axis)
    return coarse[tuple(slice(s) for s in shape)].astype(np.uint64)


def as_dict(table: Contingency) -> dict[tuple[int, int], int]:
    rows = zip(table.label.tolist(), table.truth.tolist(), table.count.tolist(), strict=True)
    return {(a, b): n for a, b, n in rows}


@pytest.mark.parametrize("shape", [(17, 23), (5, 11, 13)])
def test_counts_every_pair(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    a, b = random_labels(rng, shape) * BIG, random_labels(rng, shape)
    expected = Counter(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    assert as_dict(Contingency.of(a, b)) == expected


def test_blocks_regions_and_masks_add_up() -> None:
    rng = np.random.default_rng(1)
    a, b = random_labels(rng, (7, 20, 19)), random_labels(rng, (7, 20, 19))
    whole = Contingency.of(a, b)
    for block in [(1, 1, 19), (3, 7, 8), (99, 99, 99)]:
        assert as_dict(Contingency.blockwise(a, b, block)) == as_dict(whole)
    region = Box((2, 3, 0), (5, 50, 10))
    part = as_dict(Contingency.blockwise(a, b, (2, 6, 6), region))
    assert part == as_dict(Contingency.of(a[2:5, 3:, :10], b[2:5, 3:, :10]))
    mask = rng.random(a.shape) > 0.5
    masked = Contingency.blockwise(a, b, (4, 4, 4), mask=mask)
    assert as_dict(masked) == as_dict(Contingency.of(a[mask], b[mask]))
    rest = Contingency.of(a, b, ~mask)
    assert as_dict(masked + rest) == as_dict(whole)
    assert as_dict(whole.transposed) == as_dict(Contingency.of(b, a))


def test_empty_tables() -> None:
    nothing = Contingency.of(np.zeros((0, 4), int), np.zeros((0, 4), int))
    assert as_dict(nothing) == as_dict(Contingency.sum([])) == {}
    assert as_dict(nothing + nothing) == {}
    assert (
        Contingency.blockwise(
            np.ones((3, 3), int), np.ones((3, 3), int), (2, 2), Box((5, 5), (9, 9))
        ).count.size
        == 0
    )


def test_refuses_what_is_not_a_label_image() -> None:
    ids = np.ones((3, 3), int)
    with pytest.raises(VolsamError, match="shape"):
        Contingency.of(ids, ids[:2])
    with pytest.raises(VolsamError, match="shape"):
        Contingency.blockwise(ids, ids[:2], (2, 2))
    with pytest.raises(VolsamError, match="float64"):
        Contingency.of(ids.astype(float), ids)
    with pytest.raises(VolsamError, match="negative"):
        Contingency.of(ids, -ids)


def test_same_partition() -> None:
    a = random_labels(np.random.default_rng(2), (6, 15, 15), n=9)
    ids = np.concatenate(([0], np.random.default_rng(3).permutation(8) + int(BIG)))
    b = ids.astype(np.uint64)[a]
    assert same_partition(a, b)
    assert same_partition(Contingency.of(a, b))
    merged, split_, grown = b.copy(), b.copy(), b.copy()
    merged[merged == ids[3]] = ids[4]
    split_[:, :, 7:][split_[:, :, 7:] == ids[2]] = 1
    grown[tuple(np.argwhere(b == 0)[0])] = ids[5]
    for other in (merged, split_, grown, np.where(b == 0, 7, b)):
        assert not same_partition(a, other)
        assert not same_partition(other, a)
    assert same_partition(np.zeros((2, 2), int), np.zeros((2, 2), int))
    assert not same_partition(np.zeros((2, 2), int), np.ones((2, 2), int))


def test_a_sum_costs_no_more_per_table_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are sorted, of tables that hardly share pairs."""
    ones = np.ones(10, np.int64)
    ids = np.arange(10, dtype=np.uint64)
    tables = [Contingency(ids + np.uint64(9 * n), ids, ones) for n in range(2000)]
    expected = Contingency._concatenated(tables)
    reduced, rows = Contingency._reduced, []

    def counted(label: np.ndarray, truth: np.ndarray, count: np.ndarray) -> Contingency:
        rows.append(label.size)
        return reduced(label, truth, count)

    monkeypatch.setattr(Contingency, "_reduced", counted)
    assert as_dict(Contingency.sum(tables)) == as_dict(expected)
    assert sum(rows) < 5 * 20_000
