"""A seeded time-lapse of dividing cells with exact truth: bacteria that fill a field, or nuclei.

A cell is a capsule: a rod for bacteria, a short one for nuclei. It grows, wanders with a drift that
all share, is pushed away by its neighbours, and divides; nuclei condense before they divide: they
round up, shrink and brighten. A camera adds blur, noise and bleaching, and a segmentation of the cells
may miss some or see what is not there.

The same seed gives the same sequence on the same versions of numpy and scipy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi
from scipy.spatial import KDTree

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Culture:
    """What grows and how it is seen; lengths in pixels, times in frames.

    Attributes
    ----------
    width : float
        Diameter of a cell across its axis when it is born.
    aspect : float
        Length over width of a newborn cell; 1 is a disc.
    cycle : float
        Mean time from birth to division.
    cells : int
        Cells at the start, anywhere in the field; 1 is in its middle.
    step : float
        Standard deviation of a cell's own displacement per frame, in widths.
    drift : (float, float)
        Displacement of all per frame, yx, in pixels.
    apart : float
        Distance of newborn sisters, in widths beyond touching.
    condensed : float
        Median size of cells just before division and of newborn ones, by what it would be; 1 does not
        condense.
    flash : float
        Brightness of a condensed cell by that of others.
    missed, false : float
        Share of the cells of a frame that the segmentation misses, and of objects that are none.
    bleaching : float
        Loss of brightness per frame.
    uneven : float
        Standard deviation of log brightness, and half that of log size, between sisters.
    flicker : float
        Standard deviation of a cell's log brightness from one frame to the next.
    ragged : float
        The same of the log size of what the segmentation sees of a cell.
    """

    width: float = 10
    aspect: float = 1.8
    cycle: float = 12
    cells: int = 1
    step: float = 0.05
    drift: tuple[float, float] = (0.0, 0.0)
    apart: float = 0.0
    condensed: float = 1.0
    flash: float = 1.0
    missed: float = 0.0
    false: float = 0.0
    bleaching: float = 0.0
    uneven: float = 0.05
    flicker: float = 0.0
    ragged: float = 0.0


BACTERIA = Culture()
"""Rods that grow from one to a touching colony."""
NUCLEI = Culture(
    width=24, aspect=1.2, cycle=30, cells=40, step=0.12, apart=0.2, condensed=0.6, flash=1.6
)
"""Fluorescent nuclei that wander and condense when they divide."""


@dataclass
class _Cell:
    """A cell in one frame.

    `track` is its number, `due` its age at division, `size` its size by that of others of its age,
    `newborn` and `dividing` how far it is condensed then: a frame meets mitosis sooner or later.
    """

    track: int
    parent: int
    place: Floats
    angle: float
    age: float
    due: float
    light: float
    size: float = 1.0
    newborn: float = 1.0
    dividing: float = 1.0
    width: float = 0.0
    length: float = 0.0

    @property
    def axis(self) -> Floats:
        """Unit vector along the cell, yx."""
        return np.array([np.sin(self.angle), np.cos(self.angle)])


@dataclass(frozen=True)
class Sequence:
    """A time-lapse and its truth.

    Attributes
    ----------
    image : (t, y, x) float32
    labels : (t, y, x) uint32
        Track of each pixel's cell, 0 for background; objects that are no cell have numbers of their own.
    parent : dict of int to int
        Parent of each track, 0 where it has none.
    """

    image: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint32]
    parent: dict[int, int]


def grow(
    culture: Culture = BACTERIA,
    frames: int = 40,
    shape: tuple[int, int] = (256, 256),
    seed: int = 0,
) -> Sequence:
    """Grow a culture and look at it."""
    random = np.random.default_rng(seed)
    alive = [_newborn(culture, shape, random, track) for track in range(1, culture.cells + 1)]
    tracks = len(alive)
    parent = dict.fromkeys(range(1, tracks + 1), 0)
    images, labels = [], []
    for frame in range(frames):
        seen, light = _draw(alive, shape, culture, random)
        false = _false(culture, seen, random, tracks)
        tracks += false
        parent |= dict.fromkeys(range(tracks - false + 1, tracks + 1), 0)
        light *= (1 - culture.bleaching) ** frame
        images.append(_look(light, random))
        labels.append(seen)
        after: list[_Cell] = []
        for cell in alive:
            cell.age += 1
            if cell.age < cell.due:
                after.append(cell)
                continue
            after += _divide(cell, culture, random, tracks)
            parent |= {tracks + 1: cell.track, tracks + 2: cell.track}
            tracks += 2
        for cell in after:
            _live(cell, culture, random)
        _relax(after)
        alive = [cell for cell in after if _inside(cell.place, shape, cell.length)]
    stack = np.stack(labels)
    kept = set(np.unique(stack).tolist())
    return Sequence(
        np.stack(images), stack, {k: p if p in kept else 0 for k, p in parent.items() if k in kept}
    )


def _newborn(
    culture: Culture, shape: tuple[int, int], random: np.random.Generator, track: int
) -> _Cell:
    place = np.asarray(shape) / 2 if culture.cells == 1 else random.uniform(0, shape)
    due = culture.cycle * random.uniform(0.8, 1.2)
    age = random.uniform(0, due)
    angle, light = random.uniform(0, np.pi), random.lognormal(0, 0.25)
    cell = _Cell(track, 0, place, angle, age, due, light)
    _shape(cell, culture)
    return cell


def _shape(cell: _Cell, culture: Culture) -> None:
    """Size of a cell at its age: rods grow longer, rounder cells grow all over; some condense."""
    grown = 1 + min(1.0, cell.age / cell.due)
    if culture.aspect > 1.5:
        cell.width, cell.length = culture.width, culture.width * culture.aspect * grown
        return
    loose = min(1.0, cell.age / (0.3 * cell.due))  # daughters decondense soon
    quick = loose + (1 - loose) * culture.condensed**cell.newborn
    dense = culture.condensed**cell.dividing if cell.due - cell.age <= 1.5 else 1.0
    aspect = 1 + (culture.aspect - 1) * (dense == 1.0)
    cell.width = culture.width * np.sqrt(cell.size * quick * dense * grown / aspect)
    cell.length = cell.width * aspect


def _live(cell: _Cell, culture: Culture, random: np.random.Generator) -> None:
    """One frame of growth and wandering; now and then a cell runs."""
    _shape(cell, culture)
    run = 2 if random.random() < 0.03 else 1
    cell.place = (
        cell.place + random.normal(0, run * culture.step * culture.width, 2) + culture.drift
    )
    cell.angle += random.normal(0, 0.08)


def _divide(cell: _Cell, culture: Culture, random: np.random.Generator, tracks: int) -> list[_Cell]:
    """Two daughters in place of a cell."""
    newborn = random.uniform(0, 2)
    share = float(np.clip(random.normal(0.5, culture.uneven / 4), 0.3, 0.7))
    angle = cell.angle if culture.aspect > 1.5 else random.uniform(0, np.pi)
    axis = np.array([np.sin(angle), np.cos(angle)])
    born: list[_Cell] = []
    for side, part in ((-1, share), (1, 1 - share)):
        due = culture.cycle * random.uniform(0.8, 1.2)
        daughter = replace(cell, track=tracks + len(born) + 1, parent=cell.track, age=0.0, due=due)
        daughter.angle = angle + random.normal(0, 0.1)
        daughter.newborn, daughter.dividing = newborn, random.uniform(0, 2)
        daughter.light = cell.light * random.lognormal(0, culture.uneven)
        daughter.size = cell.size * 2 * part if culture.aspect <= 1.5 else cell.size
        _shape(daughter, culture)
        off = daughter.length / 2 + culture.apart * culture.width / 2
        daughter.place = cell.place + side * axis * off * 2 * (1 - part)
        born.append(daughter)
    return born


def _discs(cells: list[_Cell]) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Discs that make up the cells: centres, radii and whose they are."""
    centres, radii, owner = [], [], []
    for number, cell in enumerate(cells):
        free = max(0.0, cell.length - cell.width) / 2
        many = 1 + 2 * int(np.ceil(free / cell.width))
        for along in np.linspace(-free, free, many):
            centres.append(cell.place + along * cell.axis)
            radii.append(cell.width / 2)
            owner.append(number)
    return np.asarray(centres).reshape(-1, 2), np.asarray(radii), np.asarray(owner, np.int64)


def _relax(cells: list[_Cell]) -> None:
    """Push cells apart that overlap."""
    for _ in range(30):
        centres, radii, owner = _discs(cells)
        if not len(radii):
            return
        pairs = KDTree(centres).query_pairs(2 * radii.max(), output_type="ndarray")
        pairs = pairs[owner[pairs[:, 0]] != owner[pairs[:, 1]]]
        a, b = pairs.T
        between = centres[b] - centres[a]
        distance = np.maximum(np.linalg.norm(between, axis=1), 1e-6)
        deep = radii[a] + radii[b] - distance
        hit = deep > 0
        if not hit.any():
            return
        push = (0.5 * deep / distance)[:, None] * between
        a, b, push = a[hit], b[hit], push[hit]
        force = np.zeros_like(centres)
        np.add.at(force, b, push)
        np.add.at(force, a, -push)
        touched = np.bincount(np.concatenate([a, b]), minlength=len(radii)) > 0
        for number, cell in enumerate(cells):
            own = owner == number
            if not touched[own].any():
                continue
            arm = centres[own] - cell.place
            turn = (arm[:, 1] * force[own, 0] - arm[:, 0] * force[own, 1]).sum()
            cell.angle += float(np.clip(0.5 * turn / max((arm**2).sum(), cell.width**2), -0.1, 0.1))
            cell.place = cell.place + force[own].sum(axis=0) / touched[own].sum()


def _inside(place: Floats, shape: tuple[int, int], margin: float) -> bool:
    return bool((place > -margin).all() and (place < np.asarray(shape) + margin).all())


def _draw(
    cells: list[_Cell], shape: tuple[int, int], culture: Culture, random: np.random.Generator
) -> tuple[npt.NDArray[np.uint32], Floats]:
    """Labels and light of a frame; a pixel is of the cell whose axis is nearest, by its width."""
    labels, light = np.zeros(shape, np.uint32), np.zeros(shape)
    depth = np.ones(shape)
    lost = set()
    for cell in cells:
        if random.random() < culture.missed:
            lost.add(cell.track)
        swollen = random.lognormal(0, culture.ragged / 2)
        reach = cell.length / 2 * swollen + 1
        low = np.maximum(np.floor(cell.place - reach).astype(int), 0)
        high = np.minimum(np.ceil(cell.place + reach).astype(int) + 1, shape)
        if (low >= high).any():
            continue
        box = tuple(slice(*ends) for ends in zip(low, high, strict=True))
        grid = np.moveaxis(np.mgrid[box], 0, -1) - cell.place
        wide = cell.width * swollen
        free = max(0.0, cell.length - cell.width) / 2 * swollen
        along = np.clip(grid @ cell.axis, -free, free)
        far = np.linalg.norm(grid - along[..., None] * cell.axis, axis=-1) / (wide / 2)
        own = far < depth[box]
        flash = culture.flash if cell.due - cell.age <= 1.5 or cell.age < 1 else 1.0
        labels[box][own] = cell.track
        light[box][own] = cell.light * flash * random.lognormal(0, culture.flicker)
        depth[box][own] = far[own]
    if lost:
        labels[np.isin(labels, list(lost))] = 0
    return labels, light


def _false(
    culture: Culture, labels: npt.NDArray[np.uint32], random: np.random.Generator, tracks: int
) -> int:
    """Draw objects that are no cells into the background; how many there are."""
    count = random.binomial(max(1, len(np.unique(labels)) - 1), culture.false)
    made = 0
    for _ in range(count):
        y, x = random.integers(0, labels.shape)
        r = max(2, int(culture.width * random.uniform(0.15, 0.35)))
        spot = labels[max(0, y - r) : y + r, max(0, x - r) : x + r]
        if not spot.any():
            made += 1
            spot[...] = tracks + made
    return made


def _look(light: Floats, random: np.random.Generator) -> npt.NDArray[np.float32]:
    """What the camera sees."""
    blurred: Any = ndi.gaussian_filter(light, 1.0) * 200 + 100
    return (blurred + random.normal(0, 8, light.shape)).astype(np.float32)
