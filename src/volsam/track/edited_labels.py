"""Corrections of objects from labels that a user edited over those of a result, frame by frame.

Edited labels say which voxels of a frame are one object; their numbers mean nothing. They are compared
with the objects as they were found, before any correction, so that a second edit of a corrected frame, or
an undone one, leaves rows that say what is wanted now.

A label of the user counts for an object, or for what a correction left of it, if it covers a fifth of it
or more, or if most of the label lies there: brush strokes that go astray say nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi

from volsam.track.correction_table import Place, Row

Labels = npt.NDArray[np.unsignedinteger[Any]]
Voxel = tuple[int, int, int]
Part = tuple[int, int]
"""An object as it was found, and a label of the user that counts for it."""
SHARE = 0.2
SPECK = 0.02
"""What covers less of an object is a stray stroke, whatever its label."""


class Frame(NamedTuple):
    """A frame before and after it was edited.

    Attributes
    ----------
    number : int
    found : (z, y, x) unsigned
        Objects before any correction.
    before : (z, y, x) unsigned
        Objects of the result that was edited.
    after : (z, y, x) unsigned
        Edited.
    spacing : (z, y, x)
        Edge lengths of a voxel.
    """

    number: int
    found: Labels
    before: Labels
    after: Labels
    spacing: tuple[float, float, float]


def edits(frame: Frame, rows: Sequence[Row]) -> tuple[list[Row], int]:
    """Merges and splits that an edited frame asks for.

    Parameters
    ----------
    frame : Frame
    rows : sequence of Row
        Merges and splits of the frame that were known. They stay, unless they held in the result and
        the user undid them.

    Returns
    -------
    rows : list of Row
        Merges and splits of the frame from now on.
    untold : int
        Objects that were erased, or drawn where nothing was, which no row can say.
    """
    parts, untold = _parts(frame)
    kept = [row for row in rows if not _undone(row, frame, parts)]
    points: dict[Part, list[Voxel]] = defaultdict(list)
    for row in kept:
        for place in (row.first, row.second):
            part = _part_at(place, frame, parts)
            if part and place.voxel(frame.spacing) not in points[part]:
                points[part].append(place.voxel(frame.spacing))
    labels = Counter(number for number, _ in parts)
    objects = Counter(label for _, label in parts)
    wanted = [part for part in sorted(parts) if labels[part[0]] > 1 or objects[part[1]] > 1]
    for part, voxel in _inner(frame, [part for part in wanted if not points.get(part)]):
        points[part].append(voxel)
    known = {action: _pairs(kept, action, frame) for action in ("merge", "split")}
    new = [("split", pair) for pair in _splits(wanted, points, known["split"])]
    new += [("merge", pair) for pair in _merges(points, known["merge"], known["split"])]
    for action, pair in new:
        first, second = (Place.of(frame.number, voxel, frame.spacing) for voxel in pair)
        kept.append(Row(action, first, second))
    return kept, untold


def _parts(frame: Frame) -> tuple[set[Part], int]:
    """Parts of the objects that were touched, and how many edits make none."""
    differs = frame.before != frame.after
    touched = np.isin(frame.before, np.unique(frame.before[differs]))
    touched |= np.isin(frame.after, np.unique(frame.after[differs]))
    numbers = np.unique(frame.found[touched & (frame.found > 0)])
    inside = np.isin(frame.found, numbers) & (frame.found > 0)
    triples = [image[inside] for image in (frame.found, frame.before, frame.after)]
    (number, object_, label), count = _count(triples)
    _, piece = np.unique(np.stack([number, object_]), axis=1, return_inverse=True)
    size = np.bincount(piece.ravel(), weights=count)[piece.ravel()]
    values, voxels = np.unique(frame.after, return_counts=True)
    mostly = 2 * count > voxels[np.searchsorted(values, label)]
    counts = (label > 0) & (count >= np.where(mostly, SPECK, SHARE) * size)
    parts = set(zip(number[counts].tolist(), label[counts].tolist(), strict=True))
    erased = np.setdiff1d(object_, object_[counts])
    drawn = np.setdiff1d(frame.after[differs], np.append(label[counts], np.zeros(1, label.dtype)))
    return parts, len(erased) + len(drawn)


def _count(columns: list[Labels]) -> tuple[list[npt.NDArray[Any]], npt.NDArray[np.int64]]:
    """Distinct rows of columns, and how often each occurs."""
    code = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        value, index = np.unique(column, return_inverse=True)
        # Numbered anew with each column, codes stay below the square of the number of rows.
        code = np.unique(code * len(value) + index, return_inverse=True)[1]
    _, first, count = np.unique(code, return_index=True, return_counts=True)
    return [column[first] for column in columns], count


def _undone(row: Row, frame: Frame, parts: set[Part]) -> bool:
    """Whether a row held in the result and does not hold in what the user made of it."""
    ends = [_part_at(place, frame, parts) for place in (row.first, row.second)]
    if ends[0] is None or ends[1] is None:
        return False
    first, second = (frame.before[place.voxel(frame.spacing)] for place in (row.first, row.second))
    held, holds = first == second, ends[0][1] == ends[1][1]
    return bool(held and not holds) if row.action == "merge" else bool(holds and not held)


def _part_at(place: Place, frame: Frame, parts: set[Part]) -> Part | None:
    voxel = place.voxel(frame.spacing)
    if not all(0 <= v < n for v, n in zip(voxel, frame.found.shape, strict=True)):
        return None
    part = int(frame.found[voxel]), int(frame.after[voxel])
    return part if part in parts else None


def _inner(frame: Frame, parts: Sequence[Part]) -> Iterator[tuple[Part, Voxel]]:
    """Of the voxels of each part that are far from its edge the one nearest to its centre.

    So it lies in the part for certain, and halfway between two of them is about where their border is.
    """
    number = {part: n for n, part in enumerate(parts, start=1)}
    inside = np.isin(frame.found, np.array([n for n, _ in parts], np.uint64))
    found, of = np.unique(frame.found[inside], return_inverse=True)
    label, to = np.unique(frame.after[inside], return_inverse=True)
    table = np.zeros((len(found), len(label)), np.int32)
    for (one, other), n in number.items():
        row, column = (
            np.searchsorted(found, np.uint64(one)),
            np.searchsorted(label, np.uint64(other)),
        )
        table[row, column] = n
    painted = np.zeros(frame.found.shape, np.int32)
    painted[inside] = table[of, to]
    # The frame's edge is an edge too, but a plane has none above and below.
    pad = [(1, 1) if size > 1 else (0, 0) for size in frame.found.shape]
    for part, place in zip(parts, ndi.find_objects(painted), strict=True):
        mask = np.pad(painted[place] == number[part], pad)
        depth = ndi.distance_transform_edt(mask, sampling=frame.spacing)
        deep = np.argwhere(2 * depth >= depth.max())
        centre = np.argwhere(mask).mean(axis=0)
        apart = np.linalg.norm((deep - centre) * frame.spacing, axis=1)
        z, y, x = (
            int(v) - low + s.start
            for v, (low, _), s in zip(deep[np.argmin(apart)], pad, place, strict=True)
        )
        yield part, (z, y, x)


def _pairs(rows: Iterable[Row], action: str, frame: Frame) -> set[frozenset[Voxel]]:
    return {
        frozenset((row.first.voxel(frame.spacing), row.second.voxel(frame.spacing)))
        for row in rows
        if row.action == action
    }


def _splits(
    wanted: Sequence[Part], points: dict[Part, list[Voxel]], known: set[frozenset[Voxel]]
) -> Iterator[tuple[Voxel, Voxel]]:
    """A pair of points for each two parts of an object that no row tells apart."""
    for one, other in combinations(wanted, 2):
        if one[0] == other[0] and not any(
            frozenset((a, b)) in known for a in points[one] for b in points[other]
        ):
            yield points[one][0], points[other][0]


def _merges(
    points: dict[Part, list[Voxel]],
    known: set[frozenset[Voxel]],
    apart: set[frozenset[Voxel]],
) -> Iterator[tuple[Voxel, Voxel]]:
    """Pairs that join all points of a label, but for those that rows tell apart."""
    of_label: dict[int, list[Voxel]] = defaultdict(list)
    for (_, label), voxels in sorted(points.items()):
        of_label[label] += voxels
    for voxels in of_label.values():
        groups: list[list[Voxel]] = []
        for voxel in voxels:
            joined = [g for g in groups if any(frozenset((voxel, v)) in known for v in g)]
            rest = [g for g in groups if g not in joined]
            groups = [*rest, [v for g in joined for v in g] + [voxel]]
        done: list[list[Voxel]] = []
        for group in groups:
            for other in done:
                if not any(frozenset((a, b)) in apart for a in other for b in group):
                    yield other[0], group[0]
                    other += group
                    break
            else:
                done.append(group)
