"""A seeded sequence of points that move, divide and die, with exact truth: tables, no voxels.

Points wander with a drift that all share. Detection has an error, misses some points and sees some that
are none. The number of points stays about the same: as many die as are born.

The same seed gives the same sequence on the same version of numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Swarm:
    """What moves and how it is seen; lengths in mean distances of neighbours (edge of a point's share).

    Attributes
    ----------
    points : int
        About how many there are in a frame.
    planar : bool
        In a plane instead of a volume.
    step : float
        Standard deviation of a point's own displacement per frame and axis.
    drift : float
        Displacement of all per frame and axis.
    rate : float
        Share of the points that divide in a frame, and that die.
    apart : float
        Distance of newborn sisters.
    error : float
        Standard deviation of a detected position.
    missed, false : float
        Share of points that are not detected, and of detections that are no points.
    """

    points: int = 1000
    planar: bool = False
    step: float = 0.05
    drift: float = 0.03
    rate: float = 0.005
    apart: float = 0.25
    error: float = 0.01
    missed: float = 0.02
    false: float = 0.01


@dataclass(frozen=True)
class Cloud:
    """Detections in order of frames, and their truth.

    Attributes
    ----------
    frame : (n,) int64
    position : (n, 3) float64
        zyx.
    links : (m, 2) int64
        Rows of detections of the same point, and of a mother and each daughter; gaps are bridged.
    """

    frame: Ints
    position: Floats
    links: Ints


def swarm(kind: Swarm, frames: int, seed: int = 0) -> Cloud:
    """Let a swarm live for some frames."""
    random = np.random.default_rng(seed)
    axes = np.array([0.0, 1, 1]) if kind.planar else np.ones(3)
    edge = kind.points ** (1 / axes.sum())
    place = random.uniform(0, edge, (kind.points, 3)) * axes
    seen = np.full(kind.points, -1)  # row of the last detection of each point or its mother
    found: list[Floats] = []
    links: list[Ints] = []
    rows = 0
    for _ in range(frames):
        caught = np.flatnonzero(random.random(len(place)) >= kind.missed)
        false = random.uniform(0, edge, (random.binomial(len(place), kind.false), 3)) * axes
        true = place[caught] + random.normal(0, kind.error, (len(caught), 3)) * axes
        found.append(np.concatenate([true, false]))
        here = rows + np.arange(len(caught))
        known = seen[caught] >= 0
        links.append(np.stack([seen[caught][known], here[known]], axis=1))
        seen[caught] = here
        rows += len(found[-1])
        fate = random.random(len(place))
        divides, stays = fate < kind.rate, fate >= 2 * kind.rate
        place = place + (random.normal(0, kind.step, place.shape) + kind.drift) * axes
        # What drifts out comes in at the other side, as somebody else.
        out = ((place < 0) | (place > edge)).any(axis=1)
        place, seen = place % edge, np.where(out, -1, seen)
        way = random.normal(size=(int(divides.sum()), 3)) * axes
        way *= kind.apart / 2 / np.linalg.norm(way, axis=1, keepdims=True)
        place = np.concatenate([place[stays], place[divides] + way, place[divides] - way])
        seen = np.concatenate([seen[stays], seen[divides], seen[divides]])
    return Cloud(
        np.repeat(np.arange(frames), [len(part) for part in found]),
        np.concatenate(found),
        np.concatenate(links),
    )
