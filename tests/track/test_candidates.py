"""Objects as linking looks at them, and candidates."""

from dataclasses import replace

import numpy as np

from volsam.track.candidates import Links, candidates, divisions, links, near
from volsam.track.defaults import DEFAULTS
from volsam.track.features import (
    DIVISION,
    END,
    LINK,
    division_features,
    end_features,
    link_features,
)
from volsam.track.lineage import Objects
from volsam.track.scene import Overlaps, Scene
from volsam.track.settings import Track
from volsam.track.solve import exact
from volsam.track.weights import Weights, gains


def objects(
    frames: list[int], places: list[tuple[float, float]], size: float | list[float] = 100.0
) -> Objects:
    n = len(frames)
    position = np.column_stack([np.zeros(n), np.asarray(places, float).reshape(n, 2)])
    return Objects.sort(np.arange(1, n + 1), frames, position, np.broadcast_to(size, n))


DIVIDING = objects([0, 1, 1, 1], [(0, 0), (0, 6), (0, -6), (90, 0)], [100, 50, 50, 101])


def test_units_and_frames() -> None:
    scene = Scene(DIVIDING)
    assert scene.frames == 2
    assert scene.rows(1).tolist() == [1, 2, 3]
    assert scene.rows(2).tolist() == scene.rows(-1).tolist() == []
    assert scene.units.planar
    assert scene.span(range(1, 2)) == (1, 4)
    spaced = Scene(objects([0, 0, 0], [(0, 0), (0, 10), (0, 20)]))
    assert spaced.units.diameter == 5  # sizes tell nothing, distances do
    assert Scene(objects([], [])).frames == 0


def test_candidates_of_a_division() -> None:
    scene = Scene(DIVIDING)
    found, divided = candidates(scene, range(2), Track())
    assert (found.source.tolist(), found.target.tolist()) == ([0, 0], [1, 2])
    assert [side.tolist() for side in (divided.mother, divided.first, divided.second)] == [
        [0],
        [1],
        [2],
    ]
    assert not len(candidates(scene, range(2), Track(divisions=False))[1])
    assert len(candidates(scene, range(2), Track(radius=50))[0]) == 3


def test_what_overlaps_is_a_candidate_at_any_distance() -> None:
    overlaps = Overlaps(np.array([1], np.uint64), np.array([4], np.uint64), np.array([20.0]))
    scene = Scene(DIVIDING, overlaps)
    found = links(scene, 0, 1, 0.1)
    assert (found.source.tolist(), found.target.tolist()) == ([0], [3])
    assert scene.overlap(np.array([0, 0]), np.array([1, 3])).tolist() == [0, 20]
    assert not Scene(DIVIDING).covers


def test_gaps() -> None:
    scene = Scene(objects([0, 2, 3], [(0, 0), (0, 1), (0, 2)], [100, 100, 101]))
    for longest, pairs in ((0, [(1, 2)]), (1, [(0, 1), (1, 2)]), (2, [(0, 1), (0, 2), (1, 2)])):
        found, _ = candidates(scene, range(4), Track(max_gap=longest))
        assert sorted(zip(found.source.tolist(), found.target.tolist(), strict=True)) == pairs


def test_a_division_over_a_gap_is_a_candidate() -> None:
    scene = Scene(objects([0, 2, 2, 3], [(0, 0), (0, 6), (0, -6), (90, 0)], [100, 50, 50, 101]))
    for longest, count in ((0, 0), (1, 1)):
        _, divided = candidates(scene, range(4), Track(max_gap=longest))
        assert len(divided) == count
    told = dict(zip(DIVISION, division_features(scene, divided)[0].tolist(), strict=True))
    assert (told["gap"], told["claimed"], told["midpoint"]) == (1, 0, 0)


def test_how_loose_and_how_fast_growing_a_sequence_is() -> None:
    frames = [f for f in range(8) for _ in range(2**f)]
    crowd = Scene(objects(frames, [(0, 500.0 * n) for f in range(8) for n in range(2**f)]))
    assert crowd.units.population > 2  # doubles in every frame
    assert crowd.units.loose == 0  # all go on where they were
    o = crowd.objects
    later = Objects(o.id, o.frame + 40, o.position, o.size)
    assert Scene(later).units == crowd.units  # empty frames before it are no growth
    still = Scene(objects([0, 0, 1], [(0, 0), (0, 100), (0, 0)]))
    assert still.units.population == 0
    assert still.units.loose > 2


def test_nearest_of_either() -> None:
    before = np.array([[0.0, 0, x] for x in range(20)])
    one, other = near(before, np.array([[0.0, 0, 3.0]]), 10, 2)
    assert set(one.tolist()) == set(range(13))  # each has but this one
    assert set(other.tolist()) == {0}
    assert near(before[:0], before, 10, 2)[0].tolist() == []


def test_pairs_of_daughters_are_told_apart_by_distance() -> None:
    scene = Scene(objects([0, 1, 1, 1], [(0, 0), (0, 3), (0, 1), (0, 2)], [100, 99, 98, 97]))
    zero = np.zeros(3, np.int64)
    found = divisions(scene, Links(zero, np.array([1, 2, 3])), 50)
    assert [side.tolist() for side in (found.mother, found.first, found.second)] == [
        [0, 0, 0],
        [2, 2, 3],
        [1, 3, 1],
    ]


def test_features_are_finite_and_named() -> None:
    scene = Scene(DIVIDING)
    found, divided = candidates(scene, range(2), Track(radius=50))
    for names, values, count in (
        (LINK, link_features(scene, found), len(found)),
        (DIVISION, division_features(scene, divided), len(divided)),
        (END, end_features(scene, np.arange(4)), 4),
    ):
        assert values.shape == (count, len(names))
        assert np.isfinite(values).all()
    both = division_features(scene, divided)[0]
    told = dict(zip(DIVISION, both.tolist(), strict=True))
    assert (told["midpoint"], told["ratio"], told["growth"], told["opposite"]) == (0, 0, 0, 1)


def test_units_do_not_matter() -> None:
    scale = 7.0
    big = Objects(DIVIDING.id, DIVIDING.frame, DIVIDING.position * scale, DIVIDING.size * scale**2)
    for scene in (Scene(DIVIDING), Scene(big)):
        found, divided = candidates(scene, range(2), Track(radius=50))
        values = np.concatenate(
            [f.ravel() for f in (link_features(scene, found), division_features(scene, divided))]
        )
        if scene.objects is DIVIDING:
            expected = values
    np.testing.assert_allclose(values, expected)


def test_how_unlike_objects_look() -> None:
    """In usual distances of what follows each other; nothing where it is not known."""
    looks = np.asarray([[0, 0], [9, 0], [3, 0], [9, 3], [np.nan, 0]])
    followed = objects([0, 0, 1, 1, 1], [(0, 0), (0, 50), (0, 1), (0, 51), (90, 0)])
    assert not Scene(followed).unlike(np.array([0]), np.array([3])).any()
    scene = Scene(replace(followed, values={"embedding": looks}))
    one, other = np.array([0, 0, 1, 0]), np.array([2, 3, 3, 4])
    far = np.log1p(10) - np.log(2)
    np.testing.assert_allclose(scene.unlike(one, other), [0, far, 0, 0], atol=1e-9)
    links = link_features(scene, Links(one, other))
    assert np.array_equal(links[:, LINK.index("embedding")], scene.unlike(one, other))


def test_crossing_objects_are_told_apart_by_their_looks() -> None:
    """Two objects meet and part again: their looks say which is which."""
    places = [(-8, 0), (8, 0), (-1, 10), (1, 10), (-8, 20), (8, 20)]
    met = objects([0, 0, 1, 1, 2, 2], places)
    for swapped in (False, True):
        kind = np.asarray([0, 1, 0, 1, *((1, 0) if swapped else (0, 1))], float)
        looks = np.stack([4 * kind, np.tile([0.0, 0.1], 3)], axis=1)
        named = replace(met, values={"embedding": looks})
        weights = DEFAULTS["points"].as_dict()
        weights["link"] = {"bias": 9.0, "distance": -0.1, "embedding": -3.0}
        scene = Scene(named)
        found = gains(scene, *candidates(scene, range(3), Track(max_gap=0)), Weights.of(weights))
        pairs, _ = found.pairs(exact(found))
        assert {tuple(p) for p in pairs[pairs[:, 0] >= 2].tolist()} == (
            {(2, 5), (3, 4)} if swapped else {(2, 4), (3, 5)}
        )
