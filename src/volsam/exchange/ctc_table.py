"""Tables of tracks of the Cell Tracking Challenge.

A row is L B E P: label, first frame, last frame, and label of the parent or 0.

Invariants
----------
- Labels are positive and unique. A parent is in the table and ends before its child begins, so there
  is no cycle.
- A track is there in all frames from its first to its last.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from volsam.errors import VolsamError
from volsam.track.lineage import Ints, Lineage


def ctc_tracks(lineage: Lineage) -> tuple[Ints, Ints]:
    """Tracks without gaps.

    Returns
    -------
    (n, 4) int64
        L B E P, numbered from 1 in the order of first objects: where no track has a gap, L is the track.
    (objects,) int64
        Label of each object.
    """
    objects, track = lineage.objects, lineage.track
    order = np.argsort(track, kind="stable")  # by track, then by frame
    frame = objects.frame[order]
    new_track = np.diff(track[order], prepend=0) != 0
    starts = np.flatnonzero(new_track | (np.diff(frame, prepend=0) != 1))
    number = np.argsort(np.argsort(order[starts])) + 1
    labels = np.zeros(len(objects), np.int64)
    labels[order] = np.repeat(number, np.diff(starts, append=len(order)))
    ends = np.append(starts, len(order))[1:] - 1
    last = lineage.ends()[1]
    parent_track = lineage.parent[track[order[starts]] - 1]
    parent = np.where(parent_track > 0, labels[last[parent_track - 1]] if len(last) else 0, 0)
    goes_on = ~new_track[starts]
    parent[goes_on] = number[np.flatnonzero(goes_on) - 1]
    table = np.stack([number, frame[starts], frame[ends], parent], axis=1)
    return table[np.argsort(number)], labels


def read_table(path: Path) -> Ints:
    """Read a table.

    Returns
    -------
    (n, 4) int64
        L B E P, sorted by label.

    Raises
    ------
    VolsamError
        If it cannot be read, or is not a forest that goes forward in time.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise VolsamError(f"{path} cannot be read ({error}); it is the table of tracks.") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not (parts := line.split()):
            continue
        if len(parts) != 4 or not all(re.fullmatch(r"\d{1,18}", part) for part in parts):
            raise VolsamError(
                f"Line {number} of {path} is {line.strip()[:60]!r}, not four whole numbers from 0 "
                f"(label, first frame, last frame, parent); correct it."
            )
        rows.append([int(part) for part in parts])
    table = np.asarray(rows, np.int64).reshape(-1, 4)
    table = table[np.argsort(table[:, 0], kind="stable")]
    _check_table(path, table)
    return table


def _check_table(path: Path, table: Ints) -> None:
    label, begin, end, parent = table.T
    faults = {
        "has label 0, which is background": label == 0,
        "stands there twice": np.diff(label, prepend=-1) == 0,
        "ends before it begins": end < begin,
        "has a parent that is not there": (parent > 0) & ~np.isin(parent, label),
    }
    for fault, rows in faults.items():
        if rows.any():
            raise VolsamError(f"Track {label[rows][0]} in {path} {fault}; correct the table.")
    born = np.flatnonzero(parent)
    early = born[end[np.searchsorted(label, parent[born])] >= begin[born]]  # cycles too
    if len(early):
        row = early[0]
        raise VolsamError(
            f"Track {label[row]} in {path} begins before its parent {parent[row]} has ended; correct "
            f"the table."
        )
