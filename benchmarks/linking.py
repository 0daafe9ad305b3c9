"""Linking alone: true masks without ids, ours beside laptrack on centroids.

Silver masks of sequences of the Cell Tracking Challenge, their ids shuffled in every frame, and
synthetic colonies. Edges between neighbouring frames and divisions (mother and both daughters right)
are compared with the truth. Limits: a third fewer edge errors than laptrack on every sequence, division
F1 of at least 0.85, 0.6 and 0.5.

``default`` are the weights that come with volsam, fitted to synthetic sequences only (`cultures`, seeds
0 to 39). ``fitted`` were fitted to the other half of the sequence in time: each half is linked with
weights that never saw it. laptrack's radius is stated; on colonies it is the best of three.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from benchmarks.by_laptrack import laptrack_links
from benchmarks.common import Unavailable, data, table
from volsam.demo.cloud import Swarm, swarm
from volsam.demo.colony import BACTERIA, Culture, grow
from volsam.evaluate.edges import edge_scores
from volsam.track.candidates import candidates
from volsam.track.fit import Example, fit
from volsam.track.lineage import Ids, Objects
from volsam.track.link import choose_weights, link
from volsam.track.observe import observe
from volsam.track.scene import Overlaps, Scene
from volsam.track.settings import Track
from volsam.track.weights import Weights, gains

REAL = {"ctc_fluo_hela": 25.0, "ctc_phc_psc": 20.0, "ctc_dic_hela": 40.0, "ctc_fluo_sim": 40.0}
"""Sequences and laptrack's radius, pixels."""
COLONIES = {
    "bacteria": (BACTERIA, 80, 1001),
    "bacteria that drift, 2 % missed": (
        Culture(cells=4, drift=(1.5, -2.0), missed=0.02, false=0.01, flicker=0.1, ragged=0.1),
        60,
        1002,
    ),
    "bacteria, fast": (Culture(cells=3, cycle=7, step=0.12, flicker=0.1, ragged=0.1), 35, 1003),
}
SEED = 0


@dataclass(frozen=True)
class Case:
    """A sequence and its truth."""

    name: str
    objects: Objects
    overlaps: Overlaps
    links: Ids
    seconds: float
    radii: tuple[float, ...]


def main(folder: Path) -> str:
    """Measure, and return the tables."""
    try:
        import laptrack  # noqa: F401
    except ImportError:
        raise Unavailable("laptrack is not installed") from None
    rows, agreement = [], []
    for case in cases():
        rows += _compare(case, folder / "weights.json")
        agreement.append(_windows(case))
    header = (
        "sequence",
        "linked by",
        "edges wrong + missing",
        "of",
        "division P",
        "R",
        "F1",
        "CPU s",
    )
    return (
        table(header, rows)
        + "\n\nWindows of 10 frames that see 3 more, beside the whole sequence at once:\n\n"
        + table(
            ("sequence", "links", "agree", "objective", "CPU s", "CPU s of measuring"), agreement
        )
    )


def cases() -> Iterator[Case]:
    """All sequences; measured in pixels."""
    for name, radius in REAL.items():
        root = data(name)
        images = np.stack([tifffile.imread(p) for p in sorted((root / "01").glob("*.tif"))])
        masks = sorted((root / "01_ST" / "SEG").glob("*.tif"))
        masks = masks or sorted((root / "01_GT" / "TRA").glob("*.tif"))
        labels = np.stack([tifffile.imread(p) for p in masks]).astype(np.uint32)
        lines = np.loadtxt(root / "01_GT" / "TRA" / "man_track.txt", dtype=int).reshape(-1, 4)
        parent = {int(line[0]): int(line[3]) for line in lines}
        yield case_of(name, labels, images, parent, (radius,))
    for name, (culture, frames, seed) in COLONIES.items():
        grown = grow(culture, frames, (384, 384), seed)
        width = culture.width * culture.aspect
        radii = tuple(width * x for x in (0.5, 1.0, 1.5))
        yield case_of(name, grown.labels, grown.image, grown.parent, radii)


def case_of(
    name: str,
    labels: np.ndarray,
    images: np.ndarray,
    parent: dict[int, int],
    radii: tuple[float, ...],
) -> Case:
    """Shuffle the ids in every frame, measure, and keep the truth aside."""
    random = np.random.default_rng(SEED)
    shuffled, track = np.zeros_like(labels), []
    for frame, plane in enumerate(labels):
        known = np.unique(plane[plane > 0])
        order = random.permutation(len(known))
        new = np.zeros(int(plane.max()) + 1, labels.dtype)
        new[known[order]] = np.arange(1, len(known) + 1)
        shuffled[frame] = new[plane]
        track.append(known[order])
    started = time.process_time()
    objects, overlaps = observe(shuffled, images)
    seconds = time.process_time() - started
    return Case(
        name, objects, overlaps, true_links(np.concatenate(track), objects, parent), seconds, radii
    )


def true_links(track: np.ndarray, objects: Objects, parent: dict[int, int]) -> Ids:
    """Links between the objects that have a mask: each track's, and from parents to their children."""
    rows = {int(t): np.flatnonzero(track == t) for t in np.unique(track)}
    pairs = [pair for own in rows.values() for pair in pairwise(own)]
    for child, mother in parent.items():
        if child in rows and mother in rows:
            pair = (rows[mother][-1], rows[child][0])
            if objects.frame[pair[0]] < objects.frame[pair[1]]:
                pairs.append(pair)
    return objects.id[np.asarray(pairs)]


def _compare(case: Case, path: Path) -> list[tuple[object, ...]]:
    objects, overlaps, rows = case.objects, case.overlaps, []
    best: tuple[int, Ids, float, float] | None = None
    for radius in case.radii:
        started = time.process_time()
        links = laptrack_links(objects.id, objects.frame, objects.position, radius, gaps=0)
        seconds = time.process_time() - started
        errors = score(objects, case.links, links)["edge_errors"]
        if best is None or errors < best[0]:
            best = (errors, links, seconds, radius)
    assert best is not None
    rows.append(_row(case, f"laptrack, {best[3]:.0f} px", best[1], best[2]))
    for name, settings in (("default", Track()), ("default, fast", Track(solver="fast"))):
        started = time.process_time()
        links = link(objects, overlaps, settings)
        rows.append(_row(case, name, links, time.process_time() - started))
    started = time.process_time()
    scene = Scene(objects, overlaps)
    early = objects.frame < scene.frames // 2
    parts = []
    for seen in (early, ~early):
        fitted = fit([Example(scene, case.links, seen)], choose_weights(Track(), scene))
        fitted.write(path)
        links = link(objects, overlaps, Track(weights=str(path)))
        parts.append(links[~seen[objects.rows(links[:, 0])]])
    rows.append(_row(case, "fitted", np.concatenate(parts), time.process_time() - started))
    return rows


def _row(case: Case, name: str, links: Ids, seconds: float) -> tuple[object, ...]:
    found = score(case.objects, case.links, links)
    false, missed = found["false_edges"], found["missed_edges"]
    return (
        case.name,
        name,
        f"{false} + {missed} = {false + missed}",
        found["true_edges"],
        *(f"{found[f'division_{x}']:.3f}" for x in ("precision", "recall", "f1")),
        f"{seconds:.2f}",
    )


def score(objects: Objects, true: Ids, found: Ids) -> dict[str, Any]:
    """Scores of the edges between neighbouring frames, as in `volsam.evaluate.edges`."""
    return edge_scores(_near(objects, true), _near(objects, found))


def _near(objects: Objects, links: Ids) -> Ids:
    frame = objects.frame[objects.rows(links)]
    return links[frame[:, 1] - frame[:, 0] == 1]


def _windows(case: Case) -> tuple[object, ...]:
    """How links by windows agree with those of the whole sequence."""
    objects, overlaps = case.objects, case.overlaps
    scene = Scene(objects, overlaps)
    whole = Track(window=scene.frames)
    small = Track(window=10, overlap=3)
    problem = gains(
        scene, *candidates(scene, range(scene.frames), whole), choose_weights(whole, scene)
    )
    results = []
    for settings in (whole, small):
        started = time.process_time()
        rows = objects.rows(link(objects, overlaps, settings))
        seconds = time.process_time() - started
        results.append((set(map(tuple, rows.tolist())), problem.total(rows), seconds))
    (a, best, _), (b, other, seconds) = results
    return (
        case.name,
        len(a),
        f"{len(a & b) / max(1, len(a | b)):.5f}",
        f"{other / best:.6f}",
        f"{seconds:.2f}",
        f"{case.seconds:.1f}",
    )


def cultures(seed: int, kind: str) -> tuple[Culture, int]:
    """A culture at random, bacteria or nuclei, and for how many frames to look at it."""
    random = np.random.default_rng(seed)
    drift = random.normal(0, 1, 2) * random.choice([0, 0.3, 2])
    seen = {
        "drift": (float(drift[0]), float(drift[1])),
        "missed": random.choice([0, 0.02, 0.05, 0.1]),
        "false": random.choice([0, 0.01, 0.02]),
        "bleaching": random.choice([0, 0.01]),
        "uneven": random.uniform(0.03, 0.4),
        "flicker": random.uniform(0, 0.2),
        "ragged": random.uniform(0, 0.3),
    }
    if kind == "bacteria":
        return Culture(
            width=random.uniform(7, 14),
            aspect=random.uniform(1.6, 2.6),
            cycle=random.uniform(8, 30),
            cells=int(random.integers(1, 30)),
            step=10 ** random.uniform(-2, -0.7),
            apart=random.uniform(0, 0.3) * random.integers(0, 2),
            **seen,
        ), int(random.integers(15, 40))
    width = random.uniform(10, 28)
    return Culture(
        width=width,
        aspect=random.uniform(1, 1.45),
        cycle=random.uniform(12, 60),
        cells=int(256**2 / width**2 * random.uniform(0.1, 0.6)),
        step=10 ** random.uniform(-1.7, -0.8),
        apart=random.uniform(0, 2),
        condensed=random.choice([1, random.uniform(0.4, 1)]),
        flash=random.choice([1, random.uniform(0.8, 2.5)]),
        **seen,
    ), int(random.integers(10, 25))


def swarms(seed: int) -> tuple[Swarm, int]:
    """Points at random that move and divide, and for how many frames to look at them."""
    random = np.random.default_rng(seed)
    step = 10 ** random.uniform(-2, -0.8)
    kind = Swarm(
        points=int(random.integers(50, 400)),
        planar=bool(random.integers(2)),
        step=step,
        drift=step * random.choice([0, 0.5, 2]),
        rate=random.uniform(0.002, 0.02),
        apart=min(0.6, step * random.uniform(1, 8)),
        error=step * random.uniform(0, 0.5),
        missed=random.choice([0, 0.01, 0.03]),
        false=random.choice([0, 0.01, 0.03]),
    )
    return kind, 15


def refit() -> None:
    """Fit the default weights to synthetic sequences and print `volsam.track.defaults`' table."""
    made = []
    for seed in range(40):
        kind = ("bacteria", "nuclei")[seed % 2]
        culture, frames = cultures(seed, kind)
        grown = grow(culture, frames, (256, 256), seed)
        made.append((kind, case_of(kind, grown.labels, grown.image, grown.parent, ())))
    clouds = []
    for seed in range(40):
        swarm_, frames = swarms(seed)
        cloud = swarm(swarm_, frames, seed)
        ids = np.arange(1, len(cloud.frame) + 1, dtype=np.uint64)
        objects = Objects(ids, cloud.frame, cloud.position, np.ones(len(ids)))
        clouds.append(Example(Scene(objects), ids[cloud.links]))
    zero = Weights.of({})
    for name in ("general", "bacteria", "points"):
        examples = clouds if name == "points" else []
        for kind, case in made:
            if name in ("general", "points", kind):
                examples.append(Example(_scene(case, name == "points"), case.links))
        rounded = Weights(fit(examples, zero).vector.round(2) + 0.0)  # no -0
        print(f"    {name!r}: Weights.of({rounded.as_dict()}),")


def _scene(case: Case, points: bool) -> Scene:
    """What is known of a sequence: everything, or where objects are."""
    o = case.objects
    if not points:
        return Scene(o, case.overlaps)
    return Scene(Objects(o.id, o.frame, o.position, np.ones(len(o))))


if __name__ == "__main__":
    if sys.argv[1:] == ["refit"]:
        refit()
    else:
        raise SystemExit("python -m benchmarks.run linking, or python -m benchmarks.linking refit")
