"""Links that a user made or cut, kept so that they hold when the sequence is linked again.

They stand in a table (`volsam.track.correction_table`) and name objects by the places of their centroids.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy.spatial import KDTree

from volsam.errors import VolsamError
from volsam.track.correction_table import OF_LINKS, Place, Row, read_rows, write_rows
from volsam.track.lineage import Ids, Lineage, Objects
from volsam.track.scene import Scene

Pair = tuple[int, int]


def corrections_between(before: Lineage, after: Lineage) -> tuple[Ids, Ids]:
    """Links that were added and links that were cut, both (m, 2) ids of the same objects."""
    old, new = ({(int(a), int(b)) for a, b in lineage.links()} for lineage in (before, after))
    added, cut = sorted(new - old), sorted(old - new)
    return _pairs(added), _pairs(cut)


def write_corrections(path: Path, objects: Objects, link: Ids, cut: Ids) -> None:
    """Add corrections to a table, which need not exist; earlier ones that they contradict go.

    An earlier row goes if it speaks of the same two objects, or links another object to the successor in
    a new link. Which objects it speaks of is decided by where they are, as when it is read.
    """
    new = {
        name: [(int(a), int(b)) for a, b in pairs] for name, pairs in (("link", link), ("cut", cut))
    }
    spoken = {pair for pairs in new.values() for pair in pairs}
    born = {target for _, target in new["link"]}
    finder = _Finder(objects, Scene(objects).units.diameter / 2)

    def stays(row: Row) -> bool:
        if row.action not in OF_LINKS:
            return True
        source, target = finder(row.first), finder(row.second)
        if source is None or target is None:
            return True
        return (source, target) not in spoken and not (row.action == "link" and target in born)

    rows = [row for row in read_rows(path) if stays(row)] if path.exists() else []
    for action, pairs in new.items():
        for pair in pairs:
            first, second = (
                Place(int(objects.frame[row]), *map(float, objects.position[row]))
                for row in objects.rows(np.asarray(pair, np.uint64))
            )
            rows.append(Row(action, first, second))
    write_rows(path, rows)


def read_corrections(path: str | Path | None, objects: Objects, reach: float) -> tuple[Ids, Ids]:
    """Pairs of ids that must be linked, and pairs that must not.

    Parameters
    ----------
    path : path or None
        Table of corrections; without one there are none.
    objects : Objects
    reach : float
        Greatest distance between a position and the centroid of the object that it names.

    Raises
    ------
    VolsamError
        If the table cannot be read, there is no object where it says, or two of its rows contradict each
        other.
    """
    found: dict[str, dict[Pair, int]] = {action: {} for action in OF_LINKS}
    finder = _Finder(objects, reach)
    for row in [] if path is None else read_rows(path, OF_LINKS):
        ids = []
        for place in (row.first, row.second):
            number = finder(place)
            if number is None:
                raise VolsamError(
                    f"Line {row.line} of {path} names an object {place}, where there is none; remove the "
                    "line or correct it."
                )
            ids.append(number)
        found[row.action].setdefault((ids[0], ids[1]), row.line)
    must, never = (found[action] for action in OF_LINKS)
    for pair in must.keys() & never.keys():
        lines = sorted((must[pair], never[pair]))
        raise VolsamError(
            f"Lines {lines[0]} and {lines[1]} of {path} link and cut the same two objects; remove one of "
            "them."
        )
    return _pairs(must), _pairs(never)


class _Finder:
    """The object whose centroid is nearest to a place, if it is no farther than `reach`."""

    def __init__(self, objects: Objects, reach: float) -> None:
        self.objects, self.reach = objects, reach
        self._trees: dict[int, tuple[int, KDTree]] = {}

    def __call__(self, place: Place) -> int | None:
        if place.frame not in self._trees:
            first, last = np.searchsorted(self.objects.frame, [place.frame, place.frame + 1])
            if first == last:
                return None
            self._trees[place.frame] = int(first), KDTree(self.objects.position[first:last])
        first, tree = self._trees[place.frame]
        apart, near = tree.query(place[1:])
        return int(self.objects.id[first + near]) if apart <= self.reach else None


def _pairs(pairs: Iterable[Pair]) -> Ids:
    return np.asarray(list(pairs), np.uint64).reshape(-1, 2)
