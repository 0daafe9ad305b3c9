"""What speaks for and against a link, a division, an appearance and a disappearance.

Invariants
----------
- A feature has no unit and is about 0 to 3, so weights can be compared and carried from one kind of data
  to another.
- What was not measured (no image, no labels) is 0 for all candidates and so decides nothing.
- Columns have fixed names; weights go by name.
"""

from __future__ import annotations

import numpy as np

from volsam.track.candidates import Divisions, Links
from volsam.track.lineage import Floats, Ints
from volsam.track.scene import Scene

LINK = (
    *("bias", "gap", "step", "distance", "covered", "uncovered", "iou", "size", "intensity"),
    *("claimed", "border", "squared", "loose", "embedding"),
)
DIVISION = (
    *("bias", "step", "distance", "midpoint", "separation", "balance", "opposite"),
    *("covered", "uncovered", "least", "growth", "loss", "ratio", "large"),
    *("intensity", "bright", "mother_bright", "deviation", "elongation", "claimed"),
    *("squared", "apart", "population", "gap", "loose", "embedding", "sisters"),
)
END = ("bias", "border", "loose")

_MOST = 4.0  # where features end: what is further out is as bad
_TAIL = 6.0  # in usual displacements


def link_features(scene: Scene, found: Links) -> Floats:
    """Features of links, (m, len(LINK))."""
    a, b = found.source, found.target
    o, u = scene.objects, scene.units
    gap = (o.frame[b] - o.frame[a]).astype(np.float64)
    apart = scene.apart(a, b)
    common = scene.overlap(a, b)
    return _columns(
        np.ones(len(a)),
        gap - 1.0,
        _far(apart / u.step / np.sqrt(gap)),
        apart / u.diameter,
        common / o.size[a],
        common / o.size[b],
        common / (o.size[a] + o.size[b] - common),
        np.abs(np.log(o.size[a] / o.size[b])),
        np.abs(scene.rank("intensity")[a] - scene.rank("intensity")[b]),
        np.where(gap == 1, np.exp(-scene.claimed(a, b) / u.diameter), 0),
        _edge(scene, a) + _edge(scene, b),
        _squared(apart / u.step / np.sqrt(gap)),
        (gap - 1) * scene.units.loose,
        scene.unlike(a, b),
    )


def division_features(scene: Scene, found: Divisions) -> Floats:
    """Features of divisions, (m, len(DIVISION))."""
    m, a, b = found.mother, found.first, found.second
    o, u = scene.objects, scene.units
    gap = (o.frame[a] - o.frame[m]).astype(np.float64)
    to_a, to_b = (o.position[x] - scene.expected(m, gap) for x in (a, b))
    step = u.step * np.sqrt(gap)
    near, far = np.linalg.norm(to_a, axis=1), np.linalg.norm(to_b, axis=1)
    between = np.linalg.norm(o.position[a] - o.position[b], axis=1)
    both = o.size[a] + o.size[b]
    middle = (o.size[a, None] * to_a + o.size[b, None] * to_b) / both[:, None]
    in_a, in_b = scene.overlap(m, a), scene.overlap(m, b)
    bright, deviation = scene.rank("intensity"), scene.rank("deviation")
    growth = np.log(both / o.size[m])
    claimed = np.minimum(*(scene.claimed(m, x) for x in (a, b)))
    return _columns(
        np.ones(len(m)),
        (_far(near / step) + _far(far / step)) / 2,
        far / u.diameter,
        np.linalg.norm(middle, axis=1) / u.diameter,
        between / u.diameter,
        (far - near) / u.diameter,
        -(to_a * to_b).sum(axis=1) / np.maximum(near * far, 1e-9),
        (in_a + in_b) / o.size[m],
        (in_a + in_b) / both,
        np.minimum(in_a / o.size[a], in_b / o.size[b]),
        np.maximum(growth, 0),
        np.maximum(-growth, 0),
        np.abs(np.log(o.size[a] / o.size[b])),
        np.maximum(np.log(np.maximum(o.size[a], o.size[b]) / u.size), -2),
        np.abs(bright[a] - bright[b]),
        (bright[a] + bright[b]) / 2,
        bright[m],
        (deviation[a] + deviation[b]) / 2,
        o.values["elongation"][m] - 1 if "elongation" in o.values else np.zeros(len(m)),
        np.where(gap == 1, np.exp(-claimed / u.diameter), 0),
        _squared(np.linalg.norm(middle, axis=1) / step),
        (between / u.diameter) ** 2,  # with `separation`: sisters have a usual distance
        np.full(len(m), u.population),
        gap - 1,
        (gap - 1) * u.loose,
        (scene.unlike(m, a) + scene.unlike(m, b)) / 2,
        scene.unlike(a, b),
    )


def end_features(scene: Scene, rows: Ints) -> Floats:
    """Features of an appearance or a disappearance, (n, len(END))."""
    return _columns(np.ones(len(rows)), _edge(scene, rows), np.full(len(rows), scene.units.loose))


def _edge(scene: Scene, rows: Ints) -> Floats:
    """Nearness to where the field ends: 1 at it, less within."""
    near: Floats = np.exp(-2 * np.maximum(scene.border[rows], 0) / scene.units.diameter)
    return near


def _far(steps: Floats) -> Floats:
    """Log of the odds that Student's distribution gives a displacement: tails are heavy."""
    log: Floats = np.log1p(steps**2)
    return log


def _squared(steps: Floats) -> Floats:
    """The same of the normal distribution, up to where tails begin."""
    log: Floats = np.minimum(steps, _TAIL) ** 2 / _TAIL
    return log


def _columns(*columns: Floats) -> Floats:
    return np.clip(np.stack(columns, axis=1), -_MOST, 2 * _MOST)
