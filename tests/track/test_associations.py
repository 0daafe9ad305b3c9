"""What becomes of scores that a model of association gives."""

from __future__ import annotations

import numpy as np
import pytest
from associators import Stub

from volsam.track import associate as associate_module
from volsam.track.associate import Descriptions, associate, pieces
from volsam.track.associations import SUREST, Associations, Pasts
from volsam.track.candidates import candidates
from volsam.track.lineage import Ids, Lineage, Objects
from volsam.track.link import link
from volsam.track.observe import Frame
from volsam.track.scene import Scene
from volsam.track.settings import Track

FRAMES, ROW = 6, 8


def rows() -> tuple[Objects, list[tuple[int, int]], list[tuple[int, int]]]:
    """Cells in a row that move by more than half their distance, and one aside that divides in frame 3.

    Returns objects, true links, and the links of the row to what is nearest where it should not be.
    """
    ids: dict[tuple[int, str], int] = {}
    frames, position = [], []
    for frame in range(FRAMES):
        places = {str(n): (0.0, 10 * n + 5.5 * frame) for n in range(ROW)}
        places |= {"c": (60, 5)} if frame < 3 else {"d": (57, 2), "e": (63, 8)}
        for name, place in places.items():
            ids[frame, name] = len(ids) + 1
            frames.append(frame)
            position.append((0, *place))
    true, near = [], []
    for (frame, name), number in ids.items():
        if (frame + 1, name) in ids:
            true.append((number, ids[frame + 1, name]))
        if name.isdigit() and name != "0" and frame + 1 < FRAMES:
            near.append((number, ids[frame + 1, str(int(name) - 1)]))
    true += [(ids[2, "c"], ids[3, x]) for x in "de"]
    objects = Objects.sort(list(ids.values()), frames, np.array(position), np.full(len(ids), 30.0))
    return objects, true, near


def scored(pairs: list[tuple[int, int]], score: float = 0.97) -> Associations:
    source, target = np.asarray(pairs, np.uint64).reshape(-1, 2).T
    return Associations(source, target, np.full(len(source), score))


@pytest.mark.parametrize("solver", ["global", "fast"])
@pytest.mark.parametrize("window", [50, 2])
def test_lineages_follow_the_scores(solver: str, window: int) -> None:
    objects, true, near = rows()
    settings = Track(solver=solver, window=window, kind="points")
    alone = link(objects, settings=settings)
    assert set(near) <= set(map(tuple, alone.tolist()))
    found = link(objects, settings=settings, associations=scored(true))
    assert set(map(tuple, found.tolist())) == set(true)
    assert [len(x) for x in Lineage.of(objects, found).divisions().values()] == [2]


@pytest.mark.parametrize("solver", ["global", "fast"])
def test_corrections_hold_against_scores(solver: str) -> None:
    objects, true, near = rows()
    settings = Track(solver=solver, kind="points")
    found = link(
        objects, settings=settings, must=near[:2], never=[true[-1]], associations=scored(true)
    )
    found = set(map(tuple, found.tolist()))
    assert set(near[:2]) <= found
    assert true[-1] not in found
    # What rivals the corrections is in the first two frames; the rest is as scored.
    assert {pair for pair in set(true) - found if pair[0] > 2 * (ROW + 1)} == {true[-1]}


def test_pairs_out_of_reach_are_candidates_if_scored() -> None:
    objects = Objects.sort([1, 2], [0, 1], [[0, 0, 0], [0, 90, 0]], np.full(2, 30.0))
    settings = Track(radius=1)
    assert not len(candidates(Scene(objects), range(2), settings)[0])
    found, _ = candidates(Scene(objects, None, scored([(1, 2)])), range(2), settings)
    assert (found.source.tolist(), found.target.tolist()) == ([0], [1])


def test_odds() -> None:
    objects = Objects.sort(np.arange(1, 10), np.arange(9) // 3, np.zeros((9, 3)), np.ones(9))
    ids = np.array([[1, 4], [2, 4], [3, 6]], np.uint64)
    score = np.array([0.6, 0.3, 1.0])
    pasts = Pasts(objects, Associations(*ids.T, score, seen=objects.id[objects.id != 5]))
    source, target = objects.rows(ids).T
    assert np.allclose(pasts.odds(source, target), np.log([6, 3, SUREST / (1 - SUREST)]))
    assert np.allclose(pasts.odds(*objects.rows([[3], [4]])), np.log(0.1))
    assert pasts.pairs(0, 2).tolist() == [[0, 3], [1, 3]]
    known = pasts.known(*objects.rows([[1, 1, 1, 4], [4, 5, 7, 6]]))
    assert known.tolist() == [True, False, False, False]
    none = Pasts(objects, scored([]))
    assert np.allclose(none.odds(source, target), np.log(1 - SUREST))


def sequence(count: int = 12, frames: int = 9) -> list[Frame]:
    rng = np.random.default_rng(0)
    place, found = rng.permutation(30 * 30)[:count], []
    for frame in range(frames):
        labels = np.zeros((1, 30, 30), np.uint32)
        labels.ravel()[place] = 100 * frame + 1 + np.arange(count)
        found.append(Frame(labels if frame != 6 else 0 * labels))
        place = np.unique((place + rng.integers(-1, 2, len(place))) % 900)
        count = len(place)
    return found


@pytest.mark.parametrize("run", [1, 2, 5])
def test_scores_depend_on_the_sequence_only(run: int) -> None:
    frames, model, read = sequence(), Stub(), []

    def reader(number: int) -> Frame:
        read.append(number)
        return frames[number]

    everything = range(len(frames))
    whole = associate(Descriptions(reader, model), everything, everything, model)
    assert read == list(everything)
    parts = []
    for start in range(0, len(frames), run):
        described = Descriptions(reader, model)
        run_ = range(start, min(start + run, len(frames)))
        parts.append(associate(described, run_, everything, model))
    for name, column in whole.items():
        assert np.array_equal(column, np.concatenate([part[name] for part in parts]))
    assert len(whole["score"]) > 30
    assert whole["source"].dtype == whole["target"].dtype == np.uint64


def test_the_mean_is_of_windows_that_say_something() -> None:
    frames, model = sequence()[:5], Stub()
    found = associate(Descriptions(frames.__getitem__, model), range(5), range(5), model)
    one = model.describe(frames[1]), model.describe(frames[2])
    apart = np.abs(one[0].position[:, None] - one[1].position[None]).sum(axis=2)
    near = np.exp(-apart.astype(np.float64)) * 0.96
    score = np.stack(
        [near * 0.8, near]
    )  # the pair is second in the first window, first in the second
    says = score >= associate_module.THRESHOLD
    expected = np.where(says, score, 0).sum(axis=0) / np.maximum(says.sum(axis=0), 1)
    here = np.isin(found["source"], one[0].id)
    assert np.allclose(found["score"][here], expected[expected > 0])


@pytest.mark.parametrize("frames", [0, 1])
def test_sequences_without_pairs(frames: int) -> None:
    model = Stub()
    described = Descriptions(sequence(frames=1).__getitem__, model)
    found = associate(described, range(1), range(frames), model)
    assert [len(column) for column in found.values()] == [0, 0, 0]


def test_large_windows_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, model = sequence(60, 5), Stub()
    model.reach = 4.0

    def scored_with(most: int) -> dict[str, Ids]:
        monkeypatch.setattr(associate_module, "MOST", most)
        described = Descriptions(frames.__getitem__, model)
        return associate(described, range(5), range(5), model)

    whole = scored_with(1000)
    assert model.most > 200
    model.most = 0
    parts = scored_with(120)
    assert model.most <= 120
    assert all(np.allclose(whole[name], parts[name]) for name in whole)


def test_pieces_cover_every_row_once_and_never_hold_more() -> None:
    rng = np.random.default_rng(1)
    position = np.concatenate([rng.normal(0, 30, (300, 2)), np.zeros((90, 2))]).astype(np.float32)
    for most in (20, 64, 1000):
        found = list(pieces(position, 10.0, most))
        assert np.array_equal(np.sort(np.concatenate([own for own, _ in found])), np.arange(390))
        assert all(len(near) <= most and np.isin(own, near).all() for own, near in found)
        assert all((np.diff(near) > 0).all() for _, near in found)
    assert len(found) == 1
    assert not list(pieces(position[:0], 10.0, 5))
