"""Slice merging: micro-sam's results reproduced, and what our own does better."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from volsam.errors import VolsamError
from volsam.stitch.slices import merge_slices

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.merging import same_partition

ORACLE = np.load(Path(__file__).with_name("merge_oracle.npz"))


def _same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = len(np.unique(np.stack([a.ravel(), b.ravel()]), axis=1).T)
    return pairs == len(np.unique(a)) == len(np.unique(b)) and bool(((a == 0) == (b == 0)).all())


def test_the_benchmark_tells_partitions_apart() -> None:
    labels = _columns()
    renumbered = np.where(labels, 200 - labels, 0).astype(np.uint64)
    assert same_partition(labels, renumbered)
    merged, split, lost, filled = (renumbered.copy() for _ in range(4))
    merged[merged == 200 - 72] = 200 - 71
    split[7, 4, 4] = 300
    lost[lost == 200 - 1] = 0
    filled[renumbered == 0] = 400
    for other in (merged, split, lost, filled, renumbered[1:]):
        assert not same_partition(labels, other)
        assert not same_partition(other, labels)


@pytest.mark.parametrize("name", [n for n in ORACLE.files if n.startswith("merged-")])
def test_micro_sam_is_reproduced(name: str) -> None:
    _, seed, gap, extent = name.split("-")
    labels = ORACLE[f"labels-{seed}"]
    labels.setflags(write=False)
    merged = merge_slices(
        labels, method="micro-sam", gap_closing=int(gap), min_z_extent=int(extent)
    )
    assert _same_partition(merged, ORACLE[name].astype(np.uint32))


def test_ids_of_each_slice_may_start_anew_and_stores_may_be_zarr() -> None:
    unique = ORACLE["labels-3"].astype(np.uint32)
    anew = np.stack([np.unique(s, return_inverse=True)[1].reshape(s.shape) for s in unique])
    assert (unique == 0).any(axis=(1, 2)).all()
    stored = zarr.array(anew.astype(np.uint8), chunks=(1, 48, 48))
    out = zarr.zeros(unique.shape, chunks=(1, 48, 48), dtype=np.uint32)
    merged = merge_slices(stored, out, method="micro-sam", gap_closing=1, unique_ids=False)
    expected = merge_slices(unique, method="micro-sam", gap_closing=1)
    np.testing.assert_array_equal(merged[:], expected)
    np.testing.assert_array_equal(merge_slices(stored), merge_slices(unique))


def _columns() -> np.ndarray:
    """Two columns of 8 slices side by side; ids unique over slices."""
    labels = np.zeros((8, 20, 40), np.uint32)
    for z in range(8):
        labels[z, 4:16, 4:16] = 10 * z + 1
        labels[z, 4:16, 16:28] = 10 * z + 2
    return labels


def _damaged(kind: str) -> np.ndarray:
    labels = _columns()
    if kind == "missing":
        labels[3, :, :16] = 0
    elif kind == "split":
        labels[3, 10:16, 4:16] = 39
    elif kind == "fused":
        labels[3][labels[3] == 32] = 31
    return labels


@pytest.mark.parametrize("kind", ["clean", "missing", "split", "fused"])
def test_columns_survive_one_bad_slice(kind: str) -> None:
    merged = merge_slices(_damaged(kind))
    others = [0, 1, 2, 4, 5, 6, 7]
    if kind == "fused":  # whichever column takes the fused piece, both must not be broken up
        assert len(np.unique(merged)) <= 3
        return
    assert _same_partition(merged[others], np.sign(_columns()[others]) * (_columns()[others] % 10))


def test_result_is_symmetric_in_z() -> None:
    labels = ORACLE["labels-6"]
    assert _same_partition(merge_slices(labels), merge_slices(labels[::-1])[::-1])


def test_short_objects_are_dropped_and_the_rest_renumbered() -> None:
    labels = _columns()
    labels[0, 0:3, 30:38] = 9
    assert set(np.unique(merge_slices(labels, min_z_extent=1))) == {0, 1, 2, 3}
    assert set(np.unique(merge_slices(labels, min_z_extent=2))) == {0, 1, 2}


@pytest.mark.parametrize("method", ["volsam", "micro-sam"])
def test_empty_volumes(method: str) -> None:
    for depth in (1, 2, 5):
        empty = np.zeros((depth, 6, 7), np.uint32)
        assert not merge_slices(empty, method=method, gap_closing=2).any()  # type: ignore[arg-type]


def test_what_cannot_be_merged_is_refused() -> None:
    with pytest.raises(VolsamError, match="shape"):
        merge_slices(np.zeros((3, 3), np.uint32))
    with pytest.raises(VolsamError, match="unknown"):
        merge_slices(_columns(), method="nifty")  # type: ignore[arg-type]
    with pytest.raises(VolsamError, match="repeat ids"):
        merge_slices(np.ones((3, 4, 4), np.uint32) * np.tri(4, dtype=np.uint32), method="micro-sam")
