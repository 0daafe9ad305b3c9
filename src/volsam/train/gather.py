"""From annotations or files to examples, and their split into three parts.

Invariants
----------
- Intensities are scaled as in prediction: by the limits of the volume a crop came from, else by its
  own percentiles, once per volume.
- What is held out, and what validates, is never learnt from: whole slices where there are many, tiles
  of slices where there are few, whose objects the rest of the slice does not show.
- The split depends on names and seed only.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volsam.annotate.store import AnnotationStore
from volsam.errors import VolsamError
from volsam.evaluate.suite import Pair
from volsam.geometry import Box
from volsam.train.crops import UNKNOWN, UNLABELLED, reserve
from volsam.train.data import Example, normalise
from volsam.train.settings import Train, TrainData
from volsam.train.sources import pairs
from volsam.volume.checks import check_finite
from volsam.volume.source import open_volume

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
    return Pair(example.name, example.image, np.maximum(example.labels, 0), ignore)


def split(
    groups: Sequence[tuple[float, Sequence[Example]]], validation: float, held_out: float, seed: int
) -> Parts:
    """Reserve shares of the slices, or of tiles of the slices where there are few of them.

    A hash of their names places them between 0 and 1, the lowest are reserved: more annotations move
    hardly any from one part to another. Each share that is not 0 reserves at least one.
    """
    count = sum(len(examples) for _, examples in groups)
    side = 1 if count >= ENOUGH else int(np.ceil(np.sqrt(ENOUGH / count)))
    units = [
        (_place(seed, example.name, box), group, number, box)
        for group, (_, examples) in enumerate(groups)
        for number, example in enumerate(examples)
        for box in _tiles(example, side)
    ]
    units.sort(key=lambda unit: unit[0])
    rest = [list(examples) for _, examples in groups]
    wanted = [
        0 if not share else max(1, sum(low <= unit[0] < low + share for unit in units))
        for low, share in ((0.0, validation), (validation, held_out))
    ]
    if sum(wanted) >= len(units):
        raise VolsamError(
            f"{len(units)} parts of slices are too few to reserve {sum(wanted)} of them; annotate "
            "more, or lower train.validation and train.held_out."
        )
    reserved: list[list[Example]] = [[], []]
    gone = set()
    for _, group, number, box in units[: sum(wanted)]:
        part = reserved[len(reserved[0]) >= wanted[0]]
        if side == 1:
            part.append(rest[group][number])
            gone.add((group, number))
        else:
            whole = groups[group][1][number]
            rest[group][number], cut = reserve(whole, box, rest[group][number])
            part.append(cut)
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


def _place(seed: int, name: str, box: tuple[slice, slice]) -> float:
    """Where a part of a slice lies between 0 and 1."""
    return zlib.crc32(f"{seed} {name} {box}".encode()) / 2**32


def _tiles(example: Example, side: int) -> list[tuple[slice, slice]]:
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
        image = annotation.image()
        labels = _instances(annotation.labels(), annotation.ignore(), str(annotation.path))
        if not annotation.provenance.complete:
            labels[(labels == UNKNOWN) & (annotation.labels() == 0)] = UNLABELLED
        scaled = normalise(image, annotation.provenance.limits)
        examples += [
            Example(f"{annotation.id}/{z}", scaled[z], labels[z]) for z in range(len(labels))
        ]
    return examples


def _files(data: TrainData) -> list[Example]:
    examples = []
    for image_path, labels_path in pairs(data):
        image = open_volume(image_path, axes=data.axes, key=data.key, channel=data.channel)
        truth = open_volume(labels_path, axes=_without_channels(data.axes), key=data.labels_key)
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
        scaled, labels = normalise(pixels), _instances(stored, unknown, labels_path)
        if data.sparse:
            labels[labels == 0] = UNLABELLED
        for z in range(len(labels)) if data.slices is None else data.slices:
            if z >= len(labels):
                raise VolsamError(f"{image_path} has {len(labels)} slices and no slice {z}.")
            examples.append(Example(f"{image_path}/{z}", scaled[z], labels[z]))
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
