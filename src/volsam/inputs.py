"""What a stage reads from outside the results, and the fingerprints that notice a change.

Invariants
----------
- A fingerprint is of metadata and content; dates only say whether it must be computed again.
- Known fingerprints come from the markers of an earlier run; nothing is written here, so Snakemake may
  ask while it builds its graph.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from volsam.blocks.ledger import record_path
from volsam.config import Config
from volsam.errors import VolsamError
from volsam.evaluate.settings import HELD_OUT
from volsam.models.names import described
from volsam.paths import SamplePaths
from volsam.track.correction_table import digest_of_objects
from volsam.track.trackastra_model import check as check_associations
from volsam.volume.fingerprint import fingerprint

Stamp = tuple[str, str]


def external_inputs(config: Config, sample: str, stage: str) -> dict[str, str]:
    """Paths outside the results that `stage` reads, by role."""
    chosen = config.samples[sample]
    found: dict[str, str] = {}
    if stage == "ingest":
        found["image"] = chosen.image
    elif stage == "plan":
        kind = "predictions" if config.model.startswith("predictions:") else "model"
        if chosen.segmentation:
            found["segmentation"] = chosen.segmentation
        else:
            for number, path in enumerate(described(config)):
                found[kind if kind == "predictions" else f"model_{number}"] = str(path)
        if chosen.mask:
            found["mask"] = chosen.mask
    elif stage == "propagate" and chosen.prompts:
        found["prompts"] = chosen.prompts
    elif stage == "regroup" and chosen.corrections:
        found["corrections"] = chosen.corrections
    elif stage == "observe" and config.track.associations and not chosen.prompts:
        found["associations"] = config.track.associations
    elif stage == "link":
        named = {
            "corrections": chosen.corrections,
            "prompts": chosen.prompts,
            "weights": config.track.weights,
        }
        found |= {role: path for role, path in named.items() if path}
    elif stage == "compare" and chosen.truth_tracks:
        found["truth_tracks"] = chosen.truth_tracks
    elif stage == "evaluate" and chosen.truth:
        found["truth"] = chosen.truth
    return found


def check_inputs(config: Config) -> list[str]:
    """Look for the inputs of all samples.

    Returns
    -------
    list of str
        What is missing, for samples that will fail while the others go on.

    Raises
    ------
    VolsamError
        If no sample has all its inputs: the first that is missing.
    """
    if config.task not in ("segment", "track"):
        return []
    missing: dict[str, str] = {}
    for sample in config.samples:
        try:
            chosen = config.of_sample(sample)
            associations = chosen.track.associations
            if config.task == "track" and associations and not config.samples[sample].prompts:
                check_associations(associations)
            for stage in ("ingest", "plan", "link", "compare", "evaluate"):
                for role, path in external_inputs(chosen, sample, stage).items():
                    if not Path(path).exists() and sample not in missing:
                        missing[sample] = (
                            f"There is nothing at {path}, the {role} of sample {sample}; check the "
                            "path."
                        )
        except VolsamError as error:  # a model that cannot be had
            missing.setdefault(sample, str(error))
    if missing and len(missing) == len(config.samples):
        raise VolsamError(next(iter(missing.values())))
    return list(missing.values())


def stamps(config: Config, sample: str, stage: str) -> dict[str, Stamp]:
    """(Stat signature, fingerprint) of a stage's external inputs, by role."""
    config = config.of_sample(sample)
    known = _known(SamplePaths(config.results, sample), stage)
    found: dict[str, Stamp] = {
        role: fingerprint(path, known.get(role))
        for role, path in external_inputs(config, sample, stage).items()
    }
    if stage == "regroup" and "corrections" in found:
        path = str(config.samples[sample].corrections)
        with suppress(VolsamError):  # the stage refuses what cannot be understood
            found["corrections"] = found["corrections"][0], digest_of_objects(path)
    return found


def fingerprints(config: Config, sample: str, stage: str) -> dict[str, str]:
    """Fingerprints alone, by role."""
    return {role: stamp[1] for role, stamp in stamps(config, sample, stage).items()}


def training_inputs(config: Config) -> dict[str, str]:
    """Fingerprints of what a training reads: its data and its parent."""
    from volsam.train.sources import data_digests

    assert config.train is not None
    try:
        parent = {
            str(path): fingerprint(path).content for path in described(config, config.train.parent)
        }
        return parent | data_digests(config.train)
    except VolsamError as error:
        return {"error": str(error)}  # its own job says so and fails


def evaluation_inputs(config: Config) -> dict[str, str]:
    """Fingerprints of what an evaluation of models reads: the models and the images."""
    from volsam.train.sources import data_digests, digests

    settings = config.evaluate
    try:
        found = {
            str(path): fingerprint(path).content
            for model in settings.models or [config.model]
            for path in described(config, model)
        }
        if settings.data == HELD_OUT and config.train is not None:
            found |= data_digests(config.train)
        else:
            found |= digests(settings.data)
        return found | (digests(settings.tuning) if settings.tuning else {})
    except VolsamError as error:
        return {"error": str(error)}  # its own job says so and fails


def _known(paths: SamplePaths, stage: str) -> dict[str, Stamp]:
    try:
        marker = json.loads(record_path(paths, stage).read_text(encoding="utf-8"))
        return {role: (stat, value) for role, (stat, value) in marker["inputs"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
