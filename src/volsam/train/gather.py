"""From annotations or files to examples, and their split into three parts.

Invariants
----------
- Intensities are scaled as in prediction: by the limits of the volume a crop came from, else by its
  own percentiles, once per volume.
- What is held out, and what validates, is never learnt from: whole slices where there are many, tiles
  of slices where there are few, whose objects the rest of the slice does not show. The same pixels in
  another annotation, which overlaps, are no more learnt from, and the two do not overlap each other.
- The split depends on names, places and seed only.
"""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volsam.annotate.pictures import open_labels
from volsam.annotate.store import PERCENTILES, AnnotationStore
from volsam.errors import VolsamError
from volsam.evaluate.suite import Pair
from volsam.geometry import Box
from volsam.train.crops import UNKNOWN, UNLABELLED, reserve
from volsam.train.data import Example, Place, normalise
from volsam.train.settings import Train, TrainData
from volsam.train.sources import pairs
from volsam.volume.checks import check_finite
from volsam.volume.source import open_volume

Area = tuple[slice, slice]
ENOUGH = 10  # slices from which on whole slices are reserved
SMALLEST = 64  # side of the smallest reserved tile in pixels


@dataclass(frozen=True)
class Parts:
    """Examples by purpose.

    Attributes
    ----------
    train : list of (share, examples)
        Groups to learn from, with their share of the crops.
    validation, held_out : list of Example
        To stop and tune by, and to compare models by.
    """

    train: list[tuple[float, list[Example]]]
    validation: list[Example] = field(default_factory=list)
    held_out: list[Example] = field(default_factory=list)


def gather(settings: Train) -> Parts:
    """Read all examples and split them.

    Raises
    ------
    VolsamError
        If there is nothing to learn from, or images and labels do not fit.
    """
    groups = read(settings.data)
    groups = [(share, [e for e in group if (e.labels > 0).any()]) for share, group in groups]
    groups = [(share, group) for share, group in groups if group]
    if not groups:
        raise VolsamError(
            f"There is no labelled object in {_named(settings)}; annotate something first "
            "(volsam annotate suggest, volsam annotate add)."
        )
    if settings.parts != "prompts" and not any((e.labels == 0).any() for _, g in groups for e in g):
        raise VolsamError(
            f"No pixel of {_named(settings)} is known to be background, and without one everything "
            "would become foreground; label whole crops (volsam annotate add --complete), paint some "
            "background (--background-label), or set train.parts: prompts."
        )
    names = [e.name for _, group in groups for e in group]
    if twice := {name for name in names if names.count(name) > 1}:
        raise VolsamError(
            f"{min(twice)} is given twice in train.data, and could be learnt from and held out at "
            "once; give every slice once."
        )
    return split(groups, settings.validation, settings.held_out, settings.seed)


def read(data: str | Sequence[TrainData]) -> list[tuple[float, list[Example]]]:
    """All slices of a folder of annotations, or of a list of images with labels, with their shares."""
    if isinstance(data, str):
        return [(1.0, _annotations(Path(data)))]
    return [(part.share, _files(part)) for part in data]


def as_pairs(examples: Sequence[Example]) -> list[Pair]:
    """Examples as they are scored."""
    return [_pair(example) for example in examples]


def _pair(example: Example) -> Pair:
    unknown = example.labels < 0
    ignore = unknown if unknown.any() else None
    labels = np.maximum(example.labels, 0)
    return Pair(example.name, example.image, labels, ignore, example.extremes)


def split(
    groups: Sequence[tuple[float, Sequence[Example]]], validation: float, held_out: float, seed: int
) -> Parts:
    """Reserve shares of the slices, or of tiles of the slices where there are few of them.

    A hash of their names places them between 0 and 1, the lowest are reserved. With more annotations most
    stay where they are, except where whole slices take the place of tiles. Each share that is not 0
    reserves at least one.
    """
    count = sum(len(examples) for _, examples in groups)
    side = 1 if count >= ENOUGH else int(np.ceil(np.sqrt(ENOUGH / count)))
    units = [
        _Unit(_place(seed, example.name, box), group, number, box, example)
        for group, (_, examples) in enumerate(groups)
        for number, example in enumerate(examples)
        for box in _tiles(example, side)
    ]
    units.sort(key=lambda unit: unit.rank)
    wanted = [
        0 if not share else max(1, sum(low <= unit.rank < low + share for unit in units))
        for low, share in ((0.0, validation), (validation, held_out))
    ]
    first = units[: wanted[0]]
    taken = defaultdict(list)
    for unit in first:
        taken[_plane(unit.example)].append(unit)
    apart = [
        unit
        for unit in units[wanted[0] :]
        if not any(unit.within(v.example, v.box) for v in taken[_plane(unit.example)])
    ]
    second = apart[: wanted[1]]
    if sum(wanted) >= len(units) or len(second) < min(wanted[1], 1):
        raise VolsamError(
            f"{len(units)} parts of slices are too few to reserve {sum(wanted)} of them; annotate "
            "more, or lower train.validation and train.held_out."
        )
    whole = side == 1
    reserved = [
        [unit.example if whole else reserve(unit.example, unit.box)[1] for unit in part]
        for part in (first, second)
    ]
    gone = {(unit.group, unit.number) for unit in (*first, *second) if whole}
    planes = defaultdict(list)
    for g, (_, examples) in enumerate(groups):
        for n, example in enumerate(examples):
            planes[_plane(example)].append((g, n, example))
    rest = [list(examples) for _, examples in groups]
    for unit in (*first, *second):
        for g, n, example in planes[_plane(unit.example)]:
            if (g, n) not in gone and (box := unit.within(example)):
                rest[g][n], _ = reserve(example, box, rest[g][n])
    train = [
        (share, [e for n, e in enumerate(examples) if (g, n) not in gone])
        for g, ((share, _), examples) in enumerate(zip(groups, rest, strict=True))
    ]
    train = [(s, [e for e in group if (e.labels > 0).any()]) for s, group in train]
    train = [(s, group) for s, group in train if group]
    if not train:
        raise VolsamError(
            "Every object reaches into a part that is reserved, so that none is left to learn from; "
            "annotate more, or lower train.validation and train.held_out."
        )
    return Parts(train, *reserved)


@dataclass(frozen=True)
class _Unit:
    """A box of an example that is reserved, or not, as a whole; `rank` says which first."""

    rank: float
    group: int
    number: int
    box: Area
    example: Example

    def within(self, other: Example, part: Area | None = None) -> Area | None:
        """Its pixels as a box of an example of the same plane, or of a part of it, if it has any."""
        mine, its = self.example.place, other.place
        shift = (mine.y - its.y, mine.x - its.x) if mine and its else (0, 0)
        bounds = part or tuple(slice(0, n) for n in other.labels.shape)
        y, x = (
            slice(max(own.start + by, bound.start), min(own.stop + by, bound.stop))
            for own, by, bound in zip(self.box, shift, bounds, strict=True)
        )
        return (y, x) if y.start < y.stop and x.start < x.stop else None


def _plane(example: Example) -> Hashable:
    """Equal for examples that may show the same pixels."""
    place = example.place
    return (place.source, place.z) if place else id(example)


def _place(seed: int, name: str, box: Area) -> float:
    """Where a part of a slice lies between 0 and 1."""
    return zlib.crc32(f"{seed} {name} {box}".encode()) / 2**32


def _tiles(example: Example, side: int) -> list[Area]:
    """Boxes of a grid of `side` x `side` that hold an object; fewer where they would be small."""
    bounds = []
    for extent in example.labels.shape:
        parts = max(1, min(side, extent // SMALLEST))
        bounds.append([extent * n // parts for n in range(parts + 1)])
    boxes = [
        (slice(y, y1), slice(x, x1))
        for y, y1 in zip(bounds[0], bounds[0][1:], strict=False)
        for x, x1 in zip(bounds[1], bounds[1][1:], strict=False)
    ]
    return [box for box in boxes if (example.labels[box] > 0).any()]


def _annotations(root: Path) -> list[Example]:
    examples = []
    for annotation in AnnotationStore(root):
        image, known = annotation.image(), annotation.provenance
        labels = _instances(annotation.labels(), annotation.ignore(), str(annotation.path))
        labels[annotation.unlabelled()] = UNLABELLED
        scaled, extremes = _scaled(image, known.limits, known.extremes)
        source = json.dumps([known.source, known.reading], sort_keys=True)
        z0, y0, x0 = known.region.start if known.region else (0, 0, 0)
        for z, plane in enumerate(scaled):
            place = Place(source, z0 + z, y0, x0) if known.source else None
            name = f"{annotation.id}/{z}"
            examples.append(Example(name, plane, labels[z], extremes=extremes, place=place))
    return examples


def _scaled(
    image: NDArray[np.generic],
    limits: tuple[float, float] | None = None,
    extremes: tuple[float, float] | None = None,
) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Intensities by their limits, and on the same scale the least and greatest of the volume."""
    ends = np.array(extremes or (image.min(), image.max()), np.float64)
    low, high = limits or np.percentile(image.astype(np.float32), PERCENTILES)
    scaled = normalise(image, (low, high))
    least, greatest = normalise(ends, (low, high))
    return scaled, (float(least), float(greatest))


def _files(data: TrainData) -> list[Example]:
    examples = []
    for image_path, labels_path in pairs(data):
        image = open_volume(
            image_path,
            axes=data.axes,
            key=data.key,
            level=data.level,
            timepoint=data.timepoint,
            channel=data.channel,
        )
        axes = _without_channels(data.axes)
        truth = open_labels(
            labels_path, data.labels_key, axes, depth=image.info.depth, timepoint=data.timepoint
        )
        if image.info.shape != truth.info.shape:
            raise VolsamError(
                f"Labels {labels_path} have shape {truth.info.shape} and their image {image_path} "
                f"has {image.info.shape}; give labels of the same pixels."
            )
        whole = Box.of(image.info.shape)
        pixels, stored = image.read(whole), truth.read(whole)
        check_finite(pixels, path=image_path)
        unknown = np.zeros(stored.shape, np.bool_)
        if data.ignore is not None:
            unknown |= stored == data.ignore
        (scaled, extremes), labels = _scaled(pixels), _instances(stored, unknown, labels_path)
        if data.sparse:
            labels[labels == 0] = UNLABELLED
        name = image_path if data.timepoint is None else f"{image_path}, t {data.timepoint}"
        for z in range(len(labels)) if data.slices is None else data.slices:
            if z >= len(labels):
                raise VolsamError(f"{image_path} has {len(labels)} slices and no slice {z}.")
            examples.append(Example(f"{name}/{z}", scaled[z], labels[z], extremes=extremes))
    return examples


def _without_channels(axes: str | None) -> str | None:
    return axes and "".join(axis for axis in axes if axis not in "cs")


def _instances(
    stored: NDArray[np.generic], unknown: NDArray[np.bool_], name: str
) -> NDArray[np.int32]:
    """Labels numbered from 1 without gaps, whatever their ids are, and `UNKNOWN`."""
    if stored.dtype.kind not in "iu":
        raise VolsamError(
            f"Labels {name} are {stored.dtype} and no whole numbers; save them as integers."
        )
    values = np.where(unknown, 0, stored)
    if values.min(initial=0) < 0:
        raise VolsamError(
            f"Labels {name} hold {values.min()}, and objects are numbers above 0; state what is "
            "unknown by the key ignore."
        )
    ids, numbers = np.unique(values, return_inverse=True)
    labels = (numbers.reshape(values.shape) + (ids[0] > 0)).astype(np.int32)
    labels[unknown] = UNKNOWN
    return labels


def _named(settings: Train) -> str:
    if isinstance(settings.data, str):
        return settings.data
    return ", ".join(data.labels for data in settings.data)
