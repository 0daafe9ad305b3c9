"""Corrections of objects from the labels of a finished sample that a user edited."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import fastremap
import numpy as np

from volsam.blocks.stage import Job
from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.stages.found import FoundObjects, finder
from volsam.stages.frames import ObjectFrames
from volsam.stages.runplan import RunPlan
from volsam.track.correction_table import OF_OBJECTS, Row
from volsam.track.edited_labels import Frame, edits
from volsam.track.edited_over import Likeness, likeness
from volsam.volume.checks import open_fitting
from volsam.volume.source import labels_arguments


class Edited(NamedTuple):
    """What a table of corrections becomes by an edit.

    Attributes
    ----------
    rows : list of Row
        All rows of the table from now on.
    untold : int
        Objects that were erased, or drawn where nothing was, which no row can say.
    undone : int
        Merges and splits that the table had, and that the edit took back.
    doubt : str or None
        What makes one think that labels of an earlier result were edited.
    """

    rows: list[Row]
    untold: int
    undone: int
    doubt: str | None


def edited_objects(job: Job, path: Path, rows: Sequence[Row]) -> Edited:
    """Rows of a table of corrections after an edit; a frame at a time is held.

    Parameters
    ----------
    job : Job
        Whose labels are written.
    path : Path
        Labels as edited, of the same shape.
    rows : sequence of Row
        All rows of the table before.

    Raises
    ------
    VolsamError
        If there are no such labels, they do not fit, or an earlier result was edited.
    """
    plan = RunPlan.of(job)
    made = job.marker("label")
    arguments = labels_arguments(str(path), None, plan.shape, plan.frames)
    edited = open_fitting("edited label image", arguments, plan.shape)
    before = ObjectFrames(job, plan)
    found = None
    if "sample.corrections" in made["settings"]:
        # What was found can be had only as long as the intermediates are there.
        job.marker(finder(plan))
        gap = job.config.of_sample(job.sample).stitch.max_gap
        found = FoundObjects(job.paths, plan, gap)
    kept, untold, undone, like = list(rows), 0, 0, Likeness()
    for number in range(plan.frames or 1):
        box = Box.of((plan.depth, *plan.shape[1:])).shift((number * plan.depth, 0, 0))
        objects = before(number).reshape(box.shape).astype(np.uint64)
        after = edited.read(box).astype(np.uint64)
        if np.array_equal(objects, after):
            like = like.plus(Likeness(int(np.count_nonzero(fastremap.unique(objects)))))
            continue
        original = objects if found is None else found.read(box)
        frame = Frame(number, original, objects, after, plan.voxel_size)
        like = like.plus(likeness(frame))
        of_frame = [row for row in kept if _is_of(row, number)]
        new, more = edits(frame, of_frame)
        undone += len(set(of_frame) - set(new))
        kept = [row for row in kept if not _is_of(row, number)] + new
        untold += more
    if earlier := like.earlier(undone):
        raise VolsamError(
            f"The labels {path} are no edit of the present result of sample {job.sample} ({earlier}); "
            "edit its labels/objects as they are now."
        )
    return Edited(kept, untold, undone, like.doubt)


def _is_of(row: Row, frame: int) -> bool:
    return row.action in OF_OBJECTS and row.first.frame == frame
