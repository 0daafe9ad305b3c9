"""What of the configuration each stage, training, and an evaluation of models depend on.

Invariants
----------
- The result of a stage depends on the part of the configuration that `STAGE_SECTIONS` names and on
  nothing else, so a changed key reruns exactly the stages that read it and what follows.
- What `STAGE_LIMITS` names changes no result: by it a stage refuses in time what cannot work, or knows
  where to look for what its inputs identify. A stage is handed it, and no digest has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from volsam.config import Config
from volsam.evaluate.settings import HELD_OUT
from volsam.models.names import kept_in_models
from volsam.track.correction_table import corrects_objects
from volsam.volume.read_zarr import is_ome_zarr

# The table of corrections, for stages that read of it what it merges and splits: named if it does.
OBJECT_CORRECTIONS = "corrections of objects"
# The OME-Zarr version of a copy of the image: what stays in place has its own.
COPY_VERSION = "version of a copy"
# The folder of trained models, where the model comes from it, and what stands in for one not yet trained.
TRAINED_MODELS = "trained models"

# The sections each stage reads; `sample:<field>` names a field of the sample.
STAGE_SECTIONS: dict[str, tuple[str, ...]] = {
    "ingest": ("task", "sample:image", "sample:axes", "sample:key", "sample:voxel_size", "sample:unit",
               "sample:timepoint", COPY_VERSION),
    "plan": ("task", "sample:level", "sample:channel", "sample:timepoint", "sample:voxel_size",
             "sample:unit", "sample:region", "sample:mask", "sample:mask_key",
             "sample:segmentation", "sample:segmentation_key",
             "sample:prompts",
             "model", TRAINED_MODELS,
             "normalise", "scale", "tiles", "foreground",
             "compute.device", "compute.precision", "compute.batch", "compute.threads",
             "compute.compat", "compute.compile", "compute.allow_pickle",
             "compute.block_slices", "compute.block_tiles"),
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

# What a stage reads without its result depending on it.
STAGE_LIMITS: dict[str, tuple[str, ...]] = {
    "ingest": ("output.labels_into",),
    "plan": (
        "models",
        "output",
        "compute.store_embeddings",
        "compute.max_memory_gb",
        "compute.max_files",
    ),
}


def stage_settings(config: Config, sample: str, stage: str) -> dict[str, Any]:
    """The part of the configuration that `stage` depends on, plain and in a fixed order."""
    return _part(config, sample, STAGE_SECTIONS[stage])


def _part(config: Config, sample: str, entries: Iterable[str]) -> dict[str, Any]:
    chosen = config.of_sample(sample)
    own = chosen.samples[sample]
    whole = chosen.model_dump(mode="json")
    settings: dict[str, Any] = {}
    for entry in entries:
        if entry == OBJECT_CORRECTIONS:
            if corrects_objects(own.corrections):
                settings["sample.corrections"] = own.corrections
        elif entry == COPY_VERSION:
            if not is_ome_zarr(own.image, own.key):
                settings["output.ome_zarr"] = chosen.output.ome_zarr
        elif entry == TRAINED_MODELS:
            settings |= _trained_models(chosen)
        elif entry.startswith("sample:"):
            field = entry.removeprefix("sample:")
            settings[f"sample.{field}"] = whole["samples"][sample][field]
        else:
            value: Any = whole
            for part in entry.split("."):
                value = value[part]
            settings[entry] = value
    return settings


def _trained_models(config: Config) -> dict[str, Any]:
    train = config.train
    if train is not None and train.name == config.model:
        # Until a version is in use the name of the model means its parent.
        return {"models": config.models, "train.name": train.name, "train.parent": train.parent}
    return {"models": config.models} if kept_in_models(config) else {}


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


def stage_config(config: Config, sample: str, stage: str, *, limits: bool = False) -> str:
    """A complete configuration, as JSON, that keeps only what `stage` depends on.

    Snakemake hands this text to the stage's command and compares it with the last run's, so a key
    that the stage does not read cannot rerun it.

    Parameters
    ----------
    limits : bool
        Keep what the stage reads besides (`STAGE_LIMITS`) too: to be handed over, not to be compared.
    """
    data: dict[str, Any] = {
        "results": config.results,
        "samples": {sample: {"image": config.samples[sample].image}},
    }
    entries = (*STAGE_SECTIONS[stage], *(STAGE_LIMITS.get(stage, ()) if limits else ()))
    for key, value in _part(config, sample, entries).items():
        if key.startswith("sample."):
            data["samples"][sample][key.removeprefix("sample.")] = value
            continue
        *parents, last = key.split(".")
        target = data
        for part in parents:
            target = target.setdefault(part, {})
        target[last] = value
    return json.dumps(data, sort_keys=True, separators=(",", ":"))
