"""Points that move, divide and die."""

import numpy as np

from volsam.demo.cloud import Swarm, swarm


def test_truth_fits_the_detections() -> None:
    cloud = swarm(Swarm(points=300, rate=0.02), 20, seed=2)
    assert (np.diff(cloud.frame) >= 0).all()
    source, target = cloud.links.T
    gap = cloud.frame[target] - cloud.frame[source]
    assert gap.min() == 1
    assert gap.max() > 1  # what is missed is bridged
    assert (np.bincount(target) <= 1).all()
    several = np.bincount(source)
    assert several.max() == 2
    assert (several == 2).sum() > 50
    moved = np.linalg.norm(cloud.position[target] - cloud.position[source], axis=1)
    assert np.median(moved) < 0.2


def test_planes_and_seeds() -> None:
    one, again, other = (swarm(Swarm(points=50, planar=True), 5, s) for s in (1, 1, 2))
    assert not one.position[:, 0].any()
    assert np.array_equal(one.position, again.position)
    assert len(one.position) != len(other.position) or (one.position != other.position).any()
