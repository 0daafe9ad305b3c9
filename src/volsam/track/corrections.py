"""What a user corrected in a lineage, kept so that it holds when the sequence is linked again.

A correction links two objects or cuts the link between them. It names objects by frame and position,
since ids change when the segmentation does: a table (CSV) with the columns ``action`` (``link`` or
``cut``), ``frame``, ``z``, ``y``, ``x`` of the object and ``next_frame``, ``next_z``, ``next_y``,
``next_x`` of its successor, positions in units of length.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from volsam.errors import VolsamError
from volsam.paths import replace
from volsam.track.lineage import Ids, Lineage, Objects

PLACE = ("frame", "z", "y", "x")
COLUMNS = ("action", *PLACE, *(f"next_{name}" for name in PLACE))


def corrections_between(before: Lineage, after: Lineage) -> tuple[Ids, Ids]:
    """Links that were added and links that were cut, both (m, 2) ids of the same objects."""
    old, new = ({(int(a), int(b)) for a, b in lineage.links()} for lineage in (before, after))
    added, cut = sorted(new - old), sorted(old - new)
    return tuple(np.asarray(pairs, np.uint64).reshape(-1, 2) for pairs in (added, cut))  # type: ignore[return-value]


def write_corrections(path: Path, objects: Objects, link: Ids, cut: Ids) -> None:
    """Write corrections as a table; earlier ones of the file stay where nothing contradicts them."""
    rows = [_row("link", objects, pair) for pair in link] + [
        _row("cut", objects, pair) for pair in cut
    ]
    if path.exists():
        known = {tuple(row[1:]) for row in rows}
        rows = [row for row in _read(path) if tuple(row[1:]) not in known] + rows

    def save(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(rows)

    replace(path, save)


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
        If the table cannot be read, or there is no object where it says.
    """
    pairs: dict[str, list[tuple[int, int]]] = {"link": [], "cut": []}
    if path is not None:
        rows = _read(Path(path))
        trees: dict[int, KDTree] = {}
        for number, (action, *places) in enumerate(rows, start=2):
            if action not in pairs:
                raise VolsamError(f"Line {number} of {path} says {action!r}; use link or cut.")
            try:
                values = [float(value) for value in places]
            except ValueError:
                values = [np.nan]
            if not np.isfinite(values).all():
                raise VolsamError(
                    f"Line {number} of {path} holds something else than numbers; correct it."
                )
            found = [
                _at(trees, objects, place, reach, f"Line {number} of {path}")
                for place in (values[:4], values[4:])
            ]
            pairs[action].append((found[0], found[1]))
    must, never = (np.asarray(pairs[a], np.uint64).reshape(-1, 2) for a in ("link", "cut"))
    return must, never


def _row(action: str, objects: Objects, pair: npt.NDArray[np.uint64]) -> list[str]:
    row = [action]
    for place in objects.rows(pair):
        row += [str(objects.frame[place]), *(f"{v:.6g}" for v in objects.position[place])]
    return row


def _read(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text file"
        raise VolsamError(f"Cannot read the corrections {path}: {reason}.") from None
    if tuple(header) != COLUMNS or any(len(row) != len(COLUMNS) for row in rows if row):
        raise VolsamError(
            f"{path} is no table of corrections; its columns must be {', '.join(COLUMNS)}."
        )
    return [row for row in rows if row]


def _at(
    trees: dict[int, KDTree],
    objects: Objects,
    place: Sequence[float],
    reach: float,
    where: str,
) -> int:
    """Id of the object whose centroid is nearest to a place."""
    frame = int(place[0])
    first, last = np.searchsorted(objects.frame, [frame, frame + 1])
    if last > first:
        if frame not in trees:
            trees[frame] = KDTree(objects.position[first:last])
        apart, near = trees[frame].query(place[1:])
        if apart <= reach:
            return int(objects.id[first + near])
    raise VolsamError(
        f"{where} names an object in frame {frame} at z {place[1]:g}, y {place[2]:g}, x {place[3]:g}, "
        "where there is none; remove the line or correct it."
    )
