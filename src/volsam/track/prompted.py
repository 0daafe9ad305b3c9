"""Prompts of single cells: the table that a user writes, and the lineage that it asks for.

A table (CSV) with the columns ``frame``, ``track`` and ``kind``, and of ``y``, ``x``, ``y0``, ``x0``,
``y1``, ``x1``, ``positive`` and ``parent`` those that are needed. Frames count from 0, tracks from 1.

Invariants
----------
- Coordinates are pixels of the level that is segmented, of the whole image: a point (y, x) names a
  pixel, (0, 0) is the upper left one; a box begins with the pixel (y0, x0) and ends before (y1, x1).
- A track starts with a box or a positive point. It ends with the frame of its row ``end`` or
  ``divide``, if there is one, and has no prompt after that.
- A daughter names as ``parent`` a track that divides in an earlier frame than the daughter starts.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field

from volsam.errors import VolsamError
from volsam.section import Fraction, Section

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

PLACES = {"point": ("y", "x"), "box": ("y0", "x0", "y1", "x1"), "divide": (), "end": ()}
NEEDED = ("frame", "track", "kind")
COLUMNS = (*NEEDED, "y", "x", "y0", "x0", "y1", "x1", "positive", "parent")
_MOST = 2**32 - 1  # labels are uint32


class Propagation(Section):
    """How prompted objects are followed, and when they count as lost."""

    backward: bool = False
    """Follow tracks also into the frames before their first prompt."""
    margin: Fraction = 0.1
    """How much of its extent the box around an object is grown by, on every side, in the next frame."""
    mask: bool = False
    """Give the last mask as a prompt too, besides its box and a point in it."""
    min_iou: Fraction = 0.5
    """An object is lost where the model predicts an IoU below this."""
    max_change: float = Field(default=2.0, gt=1)
    """An object is lost where its area grows or shrinks by more than this factor in one frame."""


class Prompt(NamedTuple):
    """A point, or a box.

    Attributes
    ----------
    place : tuple of float
        y, x of a point; y0, x0, y1, x1 of a box.
    positive : bool
        Whether the object is there; False for a point of the background.
    """

    place: tuple[float, ...]
    positive: bool = True

    @property
    def is_box(self) -> bool:
        """Whether it is a box."""
        return len(self.place) == 4


@dataclass(frozen=True)
class PromptTable:
    """What a user says of some tracks.

    Attributes
    ----------
    prompts : mapping of frame to mapping of track to list of Prompt
        Both sorted.
    last : mapping of track to frame
        Last frame of the tracks that end or divide.
    parent : mapping of track to track
        Of daughters.
    path : str
        For messages.
    """

    prompts: Mapping[int, Mapping[int, Sequence[Prompt]]]
    last: Mapping[int, int] = field(default_factory=dict)
    parent: Mapping[int, int] = field(default_factory=dict)
    path: str = "the table of prompts"

    def first(self) -> dict[int, int]:
        """First frame with a prompt of each track."""
        found: dict[int, int] = {}
        for frame, tracks in self.prompts.items():
            for track in tracks:
                found.setdefault(track, frame)
        return found

    def check(self, frames: range, corner: tuple[int, int], shape: tuple[int, int]) -> None:
        """Refuse prompts that no pixel is under.

        Parameters
        ----------
        frames : range
            Frames of the sequence.
        corner, shape : (int, int)
            First pixel (y, x) and extent of what is segmented.

        Raises
        ------
        VolsamError
        """
        inside = [(a, a + n) for a, n in zip(corner, shape, strict=True)]
        for frame, tracks in self.prompts.items():
            for track, prompts in tracks.items():
                if frame not in frames:
                    raise VolsamError(
                        f"{self.path} prompts track {track} in frame {frame}, and the frames are "
                        f"{frames.start} to {frames.stop - 1}; correct the row or the region."
                    )
                for prompt in prompts:
                    ends = [[*prompt.place[axis::2]] for axis in (0, 1)]
                    good = (
                        min(end) < high and max(end) > low
                        if prompt.is_box
                        else low - 0.5 <= end[0] < high - 0.5
                        for end, (low, high) in zip(ends, inside, strict=True)
                    )
                    if not all(good):
                        (y0, y1), (x0, x1) = inside
                        raise VolsamError(
                            f"{self.path} prompts track {track} in frame {frame} outside of the image, "
                            f"whose pixels are y {y0} to {y1 - 1} and x {x0} to {x1 - 1}; correct the "
                            "row or the region."
                        )


def read_prompts(path: str | Path) -> PromptTable:
    """Read a table of prompts.

    Raises
    ------
    VolsamError
        If it cannot be read, or contradicts itself; with the line.
    """
    path = Path(path)
    prompts: dict[int, dict[int, list[Prompt]]] = {}
    last: dict[int, tuple[int, str]] = {}
    parent: dict[int, int] = {}
    for where, row in _rows(path):
        frame, track = _whole(where, row, "frame", 0), _whole(where, row, "track", 1)
        kind = row["kind"]
        if kind not in PLACES:
            raise VolsamError(f"{where} has kind {kind!r}; use one of {', '.join(PLACES)}.")
        stray = [c for c in COLUMNS[3:9] if row.get(c) and c not in PLACES[kind]]
        if stray:
            raise VolsamError(f"{where} has a {stray[0]}, which a {kind} has not; leave it empty.")
        if kind in ("divide", "end"):
            if last.setdefault(track, (frame, kind)) != (frame, kind):
                raise VolsamError(f"{where} ends track {track} again; keep one of the rows.")
            continue
        own = prompts.setdefault(frame, {}).setdefault(track, [])
        prompt = _prompt(where, row)
        if prompt.is_box and any(other.is_box for other in own):
            raise VolsamError(
                f"{where} is a second box of track {track} in frame {frame}; keep one of them."
            )
        own.append(prompt)
        if row.get("parent"):
            mother = _whole(where, row, "parent", 1)
            if parent.setdefault(track, mother) != mother:
                raise VolsamError(f"{where} gives track {track} a second parent; keep one of them.")
    ordered = {f: {t: tuple(prompts[f][t]) for t in sorted(prompts[f])} for f in sorted(prompts)}
    table = PromptTable(ordered, {t: f for t, (f, _) in last.items()}, parent, str(path))
    _check_tracks(table, {track: kind for track, (_, kind) in last.items()})
    return table


def prompted_links(pairs: npt.NDArray[np.uint64], table: PromptTable) -> npt.NDArray[np.uint64]:
    """Links between the objects of prompted tracks.

    Parameters
    ----------
    pairs : (n, 2) uint64
        Frame and track of each object, sorted; the id of an object is its row + 1.
    table : PromptTable
        Says which tracks are daughters.

    Returns
    -------
    (m, 2) uint64
        Ids: an object and the same track's next one, whatever frames lie between them; and the last
        object of a mother with the first of each daughter. Sorted by successors.
    """
    import numpy as np

    tracks: dict[int, list[int]] = {}
    for number, track in enumerate(pairs[:, 1].tolist(), start=1):
        tracks.setdefault(track, []).append(number)
    links = [(a, b) for own in tracks.values() for a, b in pairwise(own)]
    links += [
        (tracks[mother][-1], tracks[track][0])
        for track, mother in table.parent.items()
        if track in tracks and mother in tracks
    ]
    links.sort(key=lambda link: link[::-1])
    return np.asarray(links, np.uint64).reshape(-1, 2)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Where each row stands, and its cells by column."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "it is no text file"
        raise VolsamError(f"Cannot read the prompts {path}: {reason}.") from None
    names = [name.strip() for name in header]
    unknown = [name for name in names if name not in COLUMNS]
    missing = [name for name in NEEDED if name not in names]
    if unknown or missing or len(set(names)) < len(names):
        fault = (
            f"column {unknown[0]!r}" if unknown else f"no column {missing[0]}" if missing else ""
        )
        raise VolsamError(
            f"{path} is no table of prompts ({fault or 'a column stands twice'}); use the columns "
            f"{', '.join(COLUMNS)}."
        )
    for number, cells in enumerate(rows, start=2):
        where = f"Line {number} of {path}"
        if len(cells) > len(names):
            raise VolsamError(f"{where} has more cells than there are columns; mend it.")
        row = dict(zip(names, (cell.strip() for cell in cells), strict=False))
        if any(row.values()):
            yield where, {name: row.get(name, "") for name in names}


def _number(where: str, row: Mapping[str, str], name: str) -> float:
    text = row.get(name, "")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise VolsamError(f"{where} has {text!r} for {name}; give a number.")
    return value


def _whole(where: str, row: Mapping[str, str], name: str, least: int) -> int:
    value = _number(where, row, name)
    if value != int(value) or not least <= value <= _MOST:
        raise VolsamError(
            f"{where} has {row[name]!r} for {name}; give a whole number from {least}."
        )
    return int(value)


def _prompt(where: str, row: Mapping[str, Any]) -> Prompt:
    place = tuple(_number(where, row, name) for name in PLACES[row["kind"]])
    positive = row.get("positive") or "1"
    if positive not in ("0", "1"):
        raise VolsamError(f"{where} has {positive!r} for positive; use 1 or 0.")
    prompt = Prompt(place, positive == "1")
    if prompt.is_box and not prompt.positive:
        raise VolsamError(f"{where} is a box of background; use points with positive 0.")
    if prompt.is_box and not (place[0] < place[2] and place[1] < place[3]):
        raise VolsamError(f"{where} is an empty box; y0 must be below y1 and x0 below x1.")
    return prompt


def _check_tracks(table: PromptTable, ends: Mapping[int, str]) -> None:
    """Refuse tracks that start with nothing, go on after their end, or have no fitting parent."""
    first = table.first()
    if not first:
        raise VolsamError(f"{table.path} has no box and no point; prompt at least one track.")
    for track, frame in first.items():
        if not any(prompt.positive for prompt in table.prompts[frame][track]):
            raise VolsamError(
                f"{table.path} starts track {track} in frame {frame} with points of the background "
                "only; add a box or a point with positive 1."
            )
    for track, frame in table.last.items():
        if track not in first:
            raise VolsamError(
                f"{table.path} ends track {track}, which has no box and no point; add one."
            )
        later = [f for f, tracks in table.prompts.items() if track in tracks and f > frame]
        if later:
            raise VolsamError(
                f"{table.path} prompts track {track} in frame {later[0]}, after its end in frame "
                f"{frame}; give what comes later a track of its own."
            )
    for track, mother in table.parent.items():
        if ends.get(mother) != "divide":
            raise VolsamError(
                f"{table.path} names track {mother} as parent of track {track} and does not say where it "
                f"divides; add a row of kind divide for track {mother}."
            )
        if first[track] <= table.last[mother]:
            raise VolsamError(
                f"{table.path} starts track {track} in frame {first[track]}, and its parent {mother} "
                f"divides in frame {table.last[mother]}; a daughter starts in a later frame."
            )
