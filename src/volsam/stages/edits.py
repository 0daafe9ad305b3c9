"""Corrections of objects from the labels of a finished sample that a user edited."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from volsam.blocks.stage import Job
from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.stages.found import FoundObjects, finder
from volsam.stages.frames import ObjectFrames
from volsam.stages.runplan import RunPlan
from volsam.track.correction_table import OF_OBJECTS, Row
from volsam.track.edited_labels import Frame, edits
from volsam.volume.source import Volume, labels_arguments, open_volume


def edited_objects(job: Job, path: Path, rows: Sequence[Row]) -> tuple[list[Row], int]:
    """Rows of a table of corrections after an edit; a frame at a time is held.

    Parameters
    ----------
    job : Job
        Whose labels are written.
    path : Path
        Labels as edited, of the same shape.
    rows : sequence of Row
        All rows of the table before.

    Returns
    -------
    rows : list of Row
        All rows of the table from now on.
    untold : int
        Objects that were erased, or drawn where nothing was, which no row can say.

    Raises
    ------
    VolsamError
        If there are no such labels, or they do not fit.
    """
    plan = RunPlan.of(job)
    made = job.marker("label")
    edited = _open(path, plan)
    before = ObjectFrames(job, plan)
    found = None
    if "sample.corrections" in made["settings"]:
        # What was found can be had only as long as the intermediates are there.
        job.marker(finder(plan))
        gap = job.config.of_sample(job.sample).stitch.max_gap
        found = FoundObjects(job.paths, plan, gap)
    kept, untold = list(rows), 0
    for number in range(plan.frames or 1):
        box = Box.of((plan.depth, *plan.shape[1:])).shift((number * plan.depth, 0, 0))
        objects = before(number).reshape(box.shape).astype(np.uint64)
        after = edited.read(box).astype(np.uint64)
        if np.array_equal(objects, after):
            continue
        original = objects if found is None else found.read(box)
        of_frame = [row for row in kept if _is_of(row, number)]
        new, more = edits(Frame(number, original, objects, after, plan.voxel_size), of_frame)
        kept = [row for row in kept if not _is_of(row, number)] + new
        untold += more
    return kept, untold


def _is_of(row: Row, frame: int) -> bool:
    return row.action in OF_OBJECTS and row.first.frame == frame


def _open(path: Path, plan: RunPlan) -> Volume:
    edited = open_volume(**labels_arguments(str(path), None, plan.shape, plan.frames))
    if edited.info.shape != plan.shape:
        raise VolsamError(
            f"The edited labels {path} have shape {edited.info.shape} and the image {plan.shape}; save "
            "all frames of the labels that were edited."
        )
    if edited.info.dtype.startswith("float"):
        raise VolsamError(
            f"The edited labels {path} hold {edited.info.dtype}; save them as labels, whose numbers are "
            "whole."
        )
    return edited
