"""Linking from end to end, on synthetic colonies."""

from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from volsam.demo.colony import BACTERIA, NUCLEI, Sequence, grow
from volsam.errors import VolsamError
from volsam.track.candidates import candidates
from volsam.track.defaults import DEFAULTS
from volsam.track.fit import Example, fit
from volsam.track.lineage import Ids, Lineage, Objects
from volsam.track.link import Constraints, choose, gained, join, link, link_window
from volsam.track.observe import observe
from volsam.track.scene import Overlaps, Scene
from volsam.track.settings import Track
from volsam.track.solve import Problem
from volsam.track.tables import candidate_table, read_candidates
from volsam.track.weights import Weights, gains
from volsam.track.windows import Window, windows

ROD = replace(BACTERIA, cells=3, cycle=8)


@cache
def grown(bacteria: bool = True) -> Sequence:
    if bacteria:
        return grow(ROD, 26, (160, 160), 11)
    return grow(replace(NUCLEI, cells=15, cycle=14, missed=0.02), 14, (160, 160), 12)


@cache
def seen(bacteria: bool = True) -> tuple[Objects, Overlaps]:
    sequence = grown(bacteria)
    return observe(sequence.labels, sequence.image)


def true_links(objects: Objects, parent: dict[int, int]) -> Ids:
    label, links = objects.values["label"], []
    for track in np.unique(label):
        rows = np.flatnonzero(label == track)
        links += list(pairwise(rows))
        before = np.flatnonzero(label == parent[int(track)])
        if len(before):
            links.append((before[-1], rows[0]))
    return objects.id[np.asarray(links)]


def errors(objects: Objects, found: Ids, true: Ids) -> int:
    one, other = (set(map(tuple, links.tolist())) for links in (found, true))
    return len(one ^ other)


@pytest.mark.parametrize("solver", ["global", "fast"])
@pytest.mark.parametrize("frames", [0, 3])
def test_nothing_is_linked_to_nothing(frames: int, solver: str) -> None:
    labels = np.zeros((frames, 9, 9), np.uint8)
    for images in (None, labels):
        objects, overlaps = observe(labels, images)
        assert len(objects) == len(overlaps.size) == Scene(objects, overlaps).frames == 0
        found = link(objects, overlaps, Track(solver=solver))
        assert found.shape == (0, 2)
        assert len(Lineage.of(objects, found)) == 0
    assert len(observe([])[0]) == 0


@pytest.mark.parametrize("solver", ["global", "fast"])
@pytest.mark.parametrize("bacteria", [True, False])
def test_families_are_found(bacteria: bool, solver: str) -> None:
    objects, overlaps = seen(bacteria)
    true = true_links(objects, grown(bacteria).parent)
    found = link(objects, overlaps, Track(solver=solver))
    assert errors(objects, found, true) <= (0.01 if bacteria else 0.05) * len(true)
    lineage = Lineage.of(objects, found)
    wanted = Lineage.of(objects, true).divisions()
    assert abs(len(lineage.divisions()) - len(wanted)) <= (1 if bacteria else 6)
    assert len(wanted) >= 4


def test_positions_alone() -> None:
    objects, _ = seen(False)
    true = true_links(objects, grown(False).parent)
    found = link(Objects(objects.id, objects.frame, objects.position, np.ones(len(objects))))
    assert errors(objects, found, true) <= 0.15 * len(true)


def test_divisions_go_over_gaps() -> None:
    objects, overlaps = seen()
    true = true_links(objects, grown().parent)
    mother, daughter = objects.rows(true[np.isin(true[:, 0], repeated(true[:, 0]))]).T
    kept = np.setdiff1d(np.arange(len(objects)), mother[objects.frame[mother] > 0])
    some = Objects(
        *(x[kept] for x in (objects.id, objects.frame, objects.position, objects.size)),
        {name: value[kept] for name, value in objects.values.items()},
    )
    both = np.isin([overlaps.source, overlaps.target], some.id).all(axis=0)
    left = Overlaps(overlaps.source[both], overlaps.target[both], overlaps.size[both])
    lineage = Lineage.of(some, link(some, left))
    assert len(lineage.divisions()) >= 0.7 * len(set(mother.tolist()))
    assert not set(objects.id[daughter]) & set(repeated(lineage.links()[:, 1]))


def repeated(ids: Ids) -> Ids:
    known, count = np.unique(ids, return_counts=True)
    return known[count > 1]


def test_order_within_a_frame_does_not_matter() -> None:
    objects, overlaps = seen()
    random = np.random.default_rng(0)
    new = np.zeros(len(objects) + 1, np.uint64)
    for frame in np.unique(objects.frame):
        ids = objects.id[objects.frame == frame]
        new[ids] = random.permutation(ids)
    shuffled = Objects.sort(
        new[objects.id], objects.frame, objects.position, objects.size, objects.values
    )
    moved = Overlaps(new[overlaps.source], new[overlaps.target], overlaps.size)
    assert errors(objects, new[link(objects, overlaps)], link(shuffled, moved)) == 0


def test_windows_agree_with_the_whole() -> None:
    objects, overlaps = seen()
    scene = Scene(objects, overlaps)
    whole = link(objects, overlaps, Track(window=1000))
    small = link(objects, overlaps, Track(window=4, overlap=3))
    assert errors(objects, small, whole) <= 0.002 * len(whole)
    problem = gains(scene, *candidates(scene, range(scene.frames), Track()), DEFAULTS["general"])
    best, other = (problem.total(objects.rows(links)) for links in (whole, small))
    assert best * 0.999 <= other <= best * (1 + 1e-9)


@pytest.mark.parametrize("solver", ["global", "fast"])
@pytest.mark.parametrize("seed", range(4))
def test_runs_and_shares_are_no_part_of_the_links(solver: str, seed: int, tmp_path: Path) -> None:
    objects, overlaps = seen(bool(seed % 2))
    random = np.random.default_rng(seed)
    track = Track(solver=solver, window=int(random.integers(3, 12)), overlap=4)
    first = link(objects, overlaps, track)
    never = first[random.choice(len(first), 5, replace=False)]
    here, there = (objects.id[objects.frame == frame][:2] for frame in (2, 7))
    must = [[here[0], there[1]]]  # farther than a window sees
    scene, weights = Scene(objects, overlaps), DEFAULTS["general"]
    constraints = Constraints.of(objects, must, never)
    # Runs of frames, through tables, in any order.
    cuts = np.flatnonzero(random.random(scene.frames) < 0.4)
    runs = np.split(np.arange(scene.frames), cuts)
    for number in random.permutation(len(runs)):
        found = [gained(scene, int(t), track, weights, constraints) for t in runs[number]]
        pq.write_table(candidate_table(Problem.join(found)), tmp_path / str(number))
    problem = Problem.join([read_candidates(tmp_path / str(n)) for n in range(len(runs))])
    parts = []
    for window in windows(scene.frames, track.window, track.overlap):
        shares = int(random.integers(1, 9)) if solver == "global" else 1
        parts += [
            choose(problem, objects.frame, window, track, share, shares) for share in range(shares)
        ]
    random.shuffle(parts)
    linked = objects.id[join(parts)]
    assert np.array_equal(linked, link(objects, overlaps, track, must, never))
    assert not np.array_equal(linked, first)


def test_corrections_hold() -> None:
    objects, overlaps = seen()
    links = link(objects, overlaps)
    random = np.random.default_rng(1)
    for solver in ("global", "fast"):
        never = links[random.choice(len(links), 5, replace=False)]
        before = objects.id[objects.frame == 10]
        after = objects.id[objects.frame == 14]
        must = np.array([[before[0], after[-1]], [before[1], objects.id[objects.frame == 11][-1]]])
        found = link(objects, overlaps, Track(solver=solver, window=6), must, never)
        pairs = set(map(tuple, found.tolist()))
        assert set(map(tuple, must.tolist())) <= pairs
        assert not set(map(tuple, never.tolist())) & pairs
        Lineage.of(objects, found)


def test_a_demanded_division() -> None:
    objects, overlaps = seen()
    mother = objects.id[objects.frame == 3][0]
    daughters = objects.id[objects.frame == 4][:2]
    must = np.array([[mother, daughters[0]], [mother, daughters[1]]])
    for divisions in (True, False):
        found = link(objects, overlaps, Track(divisions=divisions), must)
        assert set(map(tuple, must.tolist())) <= set(map(tuple, found.tolist()))


@pytest.mark.parametrize(
    ("must", "never", "message"),
    [
        ([[5, 1]], None, "forward"),
        ([[1, 5]], [[1, 5]], "forbidden"),
        ([[1, 7], [2, 7]], None, "two pasts"),
        ([[1, 7], [1, 8], [1, 9]], None, "two daughters"),
        ([[1, 99]], None, "no object 99"),
    ],
)
def test_corrections_that_contradict(must: list, never: list | None, message: str) -> None:
    frame = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    objects = Objects.sort(np.arange(1, 10), frame, np.zeros((9, 3)), np.ones(9))
    with pytest.raises(VolsamError, match=message):
        Constraints.of(objects, must, never)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_next_to_nothing(count: int) -> None:
    objects = Objects.sort(
        np.arange(1, count + 1), np.arange(count), np.zeros((count, 3)), np.ones(count)
    )
    assert link(objects).tolist() == [[1, 2]][: count - 1 if count else 0]


def test_a_window_is_linked_by_itself() -> None:
    objects, overlaps = seen()
    scene = Scene(objects, overlaps)
    found = link_window(
        scene,
        Window(range(8, 12), range(5, 15)),
        Track(),
        DEFAULTS["general"],
        Constraints.of(objects, None, None),
    )
    assert set(objects.frame[found.pairs[:, 0]]) == {8, 9, 10, 11}


def test_fitted_weights_link(tmp_path) -> None:  # type: ignore[no-untyped-def]
    objects, overlaps = seen()
    scene = Scene(objects, overlaps)
    true = true_links(objects, grown().parent)
    early = objects.frame < 18
    weights = fit([Example(scene, true, early)], Weights.of({}))
    weights.write(tmp_path / "w.json")
    found = link(objects, overlaps, Track(weights=str(tmp_path / "w.json")))
    late = ~early[objects.rows(found[:, 0])]
    wanted = true[~early[objects.rows(true[:, 0])]]
    assert errors(objects, found[late], wanted) <= 0.03 * len(wanted)


def test_a_strong_prior_stays() -> None:
    objects, overlaps = seen()
    example = Example(Scene(objects, overlaps), true_links(objects, grown().parent))
    start = DEFAULTS["general"]
    near, far = (fit([example], start, strength=s).vector - start.vector for s in (1e4, 1.0))
    assert np.abs(near).max() < 0.1 < np.abs(far).max()


def test_nothing_to_fit() -> None:
    objects = Objects.sort([1], [0], np.zeros((1, 3)), [1])
    with pytest.raises(VolsamError, match="nothing to fit"):
        fit([Example(Scene(objects), np.zeros((0, 2), np.uint64))], DEFAULTS["general"])


@pytest.mark.parametrize("solver", ["global", "fast"])
@pytest.mark.parametrize("daughters", [(2, 3), (2, 5)])
def test_a_demanded_division_is_made(solver: str, daughters: tuple[int, int]) -> None:
    """Also over a gap; 1 is in frame 0, 2 and 3 in frame 1, 4 and 5 in frame 2."""
    position = [[0, 10, 10], [0, 10, 11], [0, 10, 40], [0, 10, 12], [0, 10, 41]]
    objects = Objects.sort([1, 2, 3, 4, 5], [0, 1, 1, 2, 2], position, np.full(5, 9.0))
    must = [[1, daughter] for daughter in daughters]
    found = link(objects, settings=Track(solver=solver), must=must).tolist()  # type: ignore[arg-type]
    assert all(pair in found for pair in must)
