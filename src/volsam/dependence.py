"""What of the configuration each stage, training, and an evaluation of models depend on.

Invariant: a stage receives the part of the configuration that `STAGE_SECTIONS` names and nothing else,
so a changed key reruns exactly the stages that read it and what follows.
"""

from __future__ import annotations

import json
from typing import Any

from volsam.config import Config
from volsam.evaluate.settings import HELD_OUT
from volsam.track.correction_table import corrects_objects

# The table of corrections, for stages that read of it what it merges and splits: named if it does.
OBJECT_CORRECTIONS = "corrections of objects"

# The sections each stage reads; `sample:<field>` names a field of the sample.
STAGE_SECTIONS: dict[str, tuple[str, ...]] = {
    "ingest": ("task", "sample:image", "sample:axes", "sample:key", "sample:voxel_size", "sample:unit",
               "sample:timepoint", "output.ome_zarr", "output.labels_into"),
    "plan": ("task", "sample:level", "sample:channel", "sample:timepoint", "sample:voxel_size",
             "sample:unit", "sample:region", "sample:truth_tracks", "sample:mask",
             "sample:mask_key", "sample:segmentation", "sample:segmentation_key",
             "sample:prompts",
             "model", "models", "train.name", "train.parent",
             "normalise", "scale", "tiles", "foreground",
             "compute.device", "compute.precision", "compute.batch", "compute.threads",
             "compute.compat", "compute.compile", "compute.allow_pickle",
             "compute.block_slices", "compute.block_tiles",
             "compute.max_memory_gb", "compute.max_files"),
    "encode": ("compute.store_embeddings",),
    "segment": ("ais", "compute.store_embeddings"),
    "overlap": ("stitch.max_gap",),
    "partition": ("stitch", "objects"),
    "propagate": ("sample:prompts", "track.prompted"),
    "number": (),
    "regroup": ("stitch.max_gap", OBJECT_CORRECTIONS),
    "label": ("output", "stitch.max_gap", OBJECT_CORRECTIONS),
    "measure": (),
    "observe": ("track.max_gap", "track.overlap", "track.associations", OBJECT_CORRECTIONS),
    "link": ("track", "sample:corrections", "sample:prompts"),
    "tracks": ("output",),
    "export": ("export", "sample:frame_interval"),
    "evaluate": ("sample:truth", "sample:truth_key", "evaluate.baseline"),
    "compare": ("sample:truth_tracks",),
    "report": ("task", "sample:truth", "sample:truth_tracks"),
}  # fmt: skip


def stage_settings(config: Config, sample: str, stage: str) -> dict[str, Any]:
    """The part of the configuration that `stage` depends on, plain and in a fixed order."""
    whole = config.of_sample(sample).model_dump(mode="json")
    settings: dict[str, Any] = {}
    for entry in STAGE_SECTIONS[stage]:
        if entry == OBJECT_CORRECTIONS:
            path = whole["samples"][sample]["corrections"]
            if corrects_objects(path):
                settings["sample.corrections"] = path
        elif entry.startswith("sample:"):
            field = entry.removeprefix("sample:")
            settings[f"sample.{field}"] = whole["samples"][sample][field]
        else:
            value: Any = whole
            for part in entry.split("."):
                value = None if value is None else value[part]
            if value is not None or not entry.startswith("train."):
                settings[entry] = value
    return settings


def train_config(config: Config) -> str:
    """A complete configuration, as JSON, that keeps only what training depends on."""
    data = config.model_dump(mode="json", include={"models", "train"})
    keep = {"allow_pickle", "threads"}
    data["compute"] = config.compute.model_dump(mode="json", include=keep)
    return json.dumps({"task": "train", **data}, sort_keys=True, separators=(",", ":"))


def evaluate_config(config: Config) -> str:
    """A complete configuration, as JSON, that keeps only what an evaluation of models depends on."""
    keep = {"results", "models"} | ({"model"} if config.evaluate.models is None else set())
    data = config.model_dump(mode="json", include=keep)
    data["evaluate"] = config.evaluate.model_dump(mode="json", exclude={"baseline"})
    data["compute"] = config.compute.model_dump(
        mode="json", include={"allow_pickle", "device", "precision"}
    )
    if config.train is not None:
        # Until a version is in use the name of the model means its parent.
        include = {"name", "parent"}
        if config.evaluate.data == HELD_OUT:
            include |= {"data", "validation", "held_out", "promotion", "seed"}
        data["train"] = config.train.model_dump(mode="json", include=include)
    return json.dumps({"task": "evaluate", **data}, sort_keys=True, separators=(",", ":"))


def stage_config(config: Config, sample: str, stage: str) -> str:
    """A complete configuration, as JSON, that keeps only what `stage` depends on.

    Snakemake hands this text to the stage's command and compares it with the last run's, so a key
    that the stage does not read cannot rerun it.
    """
    data: dict[str, Any] = {
        "results": config.results,
        "samples": {sample: {"image": config.samples[sample].image}},
    }
    for key, value in stage_settings(config, sample, stage).items():
        if key.startswith("sample."):
            data["samples"][sample][key.removeprefix("sample.")] = value
            continue
        *parents, last = key.split(".")
        target = data
        for part in parents:
            target = target.setdefault(part, {})
        target[last] = value
    return json.dumps(data, sort_keys=True, separators=(",", ":"))
