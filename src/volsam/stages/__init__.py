"""The stages of a run, in order. Each is a small class with the same four steps; see `blocks.stage`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from volsam.blocks.stage import Stage

STAGES = {
    "ingest": "Ingest",
    "plan": "Plan",
    "encode": "Encode",
    "segment": "Segment",
    "overlap": "Overlap",
    "partition": "PartitionStage",
    "propagate": "Propagate",
    "number": "Number",
    "regroup": "Regroup",
    "label": "Label",
    "measure": "Measure",
    "observe": "Observe",
    "link": "Link",
    "tracks": "Tracks",
    "export": "Export",
    "compare": "Compare",
    "evaluate": "Evaluate",
    "report": "Report",
}

SEGMENTATION = ("ingest", "plan", "segment", "overlap", "partition", "label", "measure")
"""Stages from an image to objects and their table, where embeddings are not kept."""


def stage_class(name: str) -> type[Stage[Any]]:
    """Class of a stage; imported only when asked for, so that the command line starts at once."""
    cls: type[Stage[Any]] = getattr(import_module(f"volsam.stages.{name}"), STAGES[name])
    return cls
