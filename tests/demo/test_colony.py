"""The synthetic time-lapse."""

from dataclasses import replace

import numpy as np

from volsam.demo.colony import BACTERIA, NUCLEI, grow

SHAPE = (128, 128)


def test_a_colony_grows_and_its_families_are_whole() -> None:
    grown = grow(replace(BACTERIA, cycle=6), 24, SHAPE, seed=1)
    counts = [len(np.unique(frame)) - 1 for frame in grown.labels]
    assert counts[0] == 1
    assert counts[-1] >= 8
    assert set(grown.parent) == set(np.unique(grown.labels)) - {0}
    first = {k: int(np.argmax((grown.labels == k).any(axis=(1, 2)))) for k in grown.parent}
    born = [k for k, p in grown.parent.items() if p]
    assert len(born) >= 8
    for k in born:
        assert (
            grown.labels[first[k] - 1] == grown.parent[k]
        ).any()  # divides from one frame to the next
        assert not (grown.labels[first[k]] == grown.parent[k]).any()
    inside = grown.labels > 0
    assert grown.image[inside].mean() > 1.5 * grown.image[~inside].mean()


def test_same_seed_same_colony() -> None:
    one, again, other = (grow(NUCLEI, 4, SHAPE, seed) for seed in (3, 3, 4))
    assert np.array_equal(one.labels, again.labels)
    assert np.array_equal(one.image, again.image)
    assert not np.array_equal(one.labels, other.labels)


def test_a_poor_segmentation() -> None:
    culture = replace(NUCLEI, missed=0.2, false=0.3, cells=20)
    poor, good = grow(culture, 8, SHAPE, 0), grow(replace(NUCLEI, cells=20), 8, SHAPE, 0)
    lasting = {k: (poor.labels == k).any(axis=(1, 2)).sum() for k in poor.parent}
    assert sum(n == 1 for n in lasting.values()) > 5
    assert max(poor.parent) > max(good.parent)
