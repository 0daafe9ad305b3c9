"""The table of what a user corrected, by frame and position, since ids change when the segmentation does.

A table (CSV) has the columns ``action``, ``frame``, ``z``, ``y``, ``x`` of one place and ``next_frame``,
``next_z``, ``next_y``, ``next_x`` of another, positions in units of length within the frame.

==========  ==================================  =====================================================
action      places                              meaning
==========  ==================================  =====================================================
``link``    centroids, in two frames            the second object is the successor of the first
``cut``     centroids, in two frames            it is not
``merge``   points in objects, in one frame     they are in one object
``split``   points in objects, in one frame     they are in two objects
==========  ==================================  =====================================================

Nothing but the standard library is used, since Snakemake asks while it builds its graph.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from volsam.errors import VolsamError
from volsam.paths import replace

PLACE = ("frame", "z", "y", "x")
COLUMNS = ("action", *PLACE, *(f"next_{name}" for name in PLACE))
OF_LINKS = ("link", "cut")
OF_OBJECTS = ("merge", "split")


class Place(NamedTuple):
    """A position in a frame, zyx in units of length."""

    frame: int
    z: float
    y: float
    x: float

    @classmethod
    def of(cls, frame: int, voxel: Sequence[int], spacing: Sequence[float]) -> Place:
        """Centre of a voxel of a frame."""
        z, y, x = (int(v) * s for v, s in zip(voxel, spacing, strict=True))
        return cls(frame, z, y, x)

    def voxel(self, spacing: Sequence[float]) -> tuple[int, int, int]:
        """Voxel of the frame, zyx; beyond the frame's bounds if the place is."""
        z, y, x = (math.floor(v / s + 0.5) for v, s in zip(self[1:], spacing, strict=True))
        return z, y, x

    def __str__(self) -> str:
        return f"in frame {self.frame} at z {self.z:g}, y {self.y:g}, x {self.x:g}"


class Row(NamedTuple):
    """A correction.

    Attributes
    ----------
    action : str
        One of `OF_LINKS` and `OF_OBJECTS`.
    first, second : Place
    line : int
        Where it stands in its file, for messages; 0 if it does not.
    """

    action: str
    first: Place
    second: Place
    line: int = 0


def read_rows(path: str | Path, actions: Iterable[str] = OF_LINKS + OF_OBJECTS) -> list[Row]:
    """Rows of a table with one of some actions, in order.

    Raises
    ------
    VolsamError
        If any row of the table cannot be understood.
    """
    rows = [_row(path, line, fields) for line, fields in _read(path)]
    wanted = set(actions)
    return [row for row in rows if row.action in wanted]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a table, complete or not at all."""
    lines = []
    for row in rows:
        fields = [row.action]
        for place in (row.first, row.second):
            fields += [str(place.frame), *(f"{value:.9g}" for value in place[1:])]
        lines.append(fields)

    def save(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(lines)

    replace(path, save)


def corrects_objects(path: str | Path | None) -> bool:
    """Whether a table merges or splits objects; true of one that cannot be understood, for who needs it
    to say so."""
    try:
        return path is not None and bool(read_rows(path, OF_OBJECTS))
    except VolsamError:
        return True


def digest_of_objects(path: str | Path) -> str:
    """Digest of the rows that merge or split objects: all else of the table does not change it."""
    rows = [row._replace(line=0) for row in read_rows(path, OF_OBJECTS)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:32]


def _read(path: str | Path) -> list[tuple[int, list[str]]]:
    """Line numbers and fields of all rows, the header left out."""
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, fields) for fields in reader if any(fields)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "it is no text file"
        raise VolsamError(f"Cannot read the corrections {path}: {reason}.") from None
    header = rows.pop(0)[1] if rows else []
    if tuple(header) != COLUMNS or any(len(fields) != len(COLUMNS) for _, fields in rows):
        raise VolsamError(
            f"{path} is no table of corrections; its columns must be {', '.join(COLUMNS)}."
        )
    return rows


def _row(path: Any, line: int, fields: list[str]) -> Row:
    action, *texts = fields
    if action not in OF_LINKS + OF_OBJECTS:
        raise VolsamError(
            f"Line {line} of {path} says {action!r}; use {', '.join(OF_LINKS)}, "
            f"{' or '.join(OF_OBJECTS)}."
        )
    try:
        values = [float(text) for text in texts]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)) or values[0] % 1 or values[4] % 1:
        raise VolsamError(
            f"Line {line} of {path} holds something else than numbers, whole ones for frames; correct it."
        )
    first, second = (Place(int(v[0]), *v[1:]) for v in (values[:4], values[4:]))
    if action in OF_OBJECTS and first.frame != second.frame:
        raise VolsamError(
            f"Line {line} of {path} is a {action} of objects in frames {first.frame} and "
            f"{second.frame}; both points must be in one frame."
        )
    return Row(action, first, second, line)
