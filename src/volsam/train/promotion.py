"""Which new version is put to use, and what it can be compared by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from volsam.errors import VolsamError
from volsam.models.store import ModelStore
from volsam.models.version import Version
from volsam.train.joint import JointNetwork
from volsam.train.settings import Train

AUTOMATIC = ("mSA", "SA50", "SA75", "precision", "recall")


def check_metric(settings: Train) -> None:
    """Refuse what cannot be compared before anything is computed."""
    promotion = settings.promotion
    prompts = promotion.metric in ("box", "point")
    if promotion.when == "better" and prompts and settings.parts == "automatic":
        raise VolsamError(
            f"Key train.promotion.metric is {promotion.metric}, and train.parts is automatic, where "
            "prompts are not scored; use mSA, or train prompts."
        )


def check_measurable(network: JointNetwork, settings: Train) -> None:
    """Refuse to compare by what the new model will not have."""
    metric, when = settings.promotion.metric, settings.promotion.when
    if when == "better" and metric in AUTOMATIC and "decoder" in untrained(network, settings):
        raise VolsamError(
            f"Key train.promotion.metric is {metric}, which the new model will not have: its parent "
            "has no decoder and train.parts is prompts; use box or point."
        )


def untrained(network: JointNetwork, settings: Train) -> tuple[str, ...]:
    """Parts with random weights that the training does not reach: no part of the new model."""
    reached = {
        "prompts": {"prompt_encoder", "mask_decoder"},
        "automatic": {"decoder"},
        "joint": {"prompt_encoder", "mask_decoder", "decoder"},
    }
    return tuple(sorted(network.missing - reached[settings.parts]))


def better(settings: Train, before: dict[str, float], after: dict[str, float]) -> tuple[bool, str]:
    """Whether a version is to be promoted, and why."""
    promotion = settings.promotion
    if promotion.when != "better":
        return promotion.when == "always", f"promotion.when is {promotion.when}"
    metric = promotion.metric
    if metric not in after:
        raise VolsamError(
            f"Key train.promotion.metric is {metric}, which was not measured; use mSA, or train prompts."
        )
    if metric not in before:
        return True, f"its parent has no {metric}"
    text = f"{metric} on held-out images {after[metric]:.3f}, of its parent {before[metric]:.3f}"
    return after[metric] > before[metric] + promotion.margin, text


def promote(
    store: ModelStore, version: Version, settings: Train, say: Callable[[str], None]
) -> dict[str, Any]:
    """Put a version to use if it is to be; returns what a training says of itself."""
    used, why = _decide(store, version, settings)
    say(f"version {version.number} of {version.name}: {'in use' if used else 'not in use'}, {why}")
    metrics = version.description().get("metrics") or {}
    return {
        "name": version.name,
        "version": version.number,
        "hash": version.hash,
        "promoted": used,
        "why": why,
        "before": metrics.get("before") or {},
        "after": metrics.get("after") or {},
    }


def _decide(store: ModelStore, version: Version, settings: Train) -> tuple[bool, str]:
    """Put a version to use if it is to be; returns whether it is in use now, and why.

    A repeated training asks again of a version that was there when somebody decided by hand, which
    overrules the training's rule.
    """
    name, number = version.name, version.number
    history = store.history(name)
    last = history[-1] if history else None
    if last and last["version"] == number:
        return True, str(last.get("why"))
    if last and last.get("by") == "hand" and number <= last.get("newest", 0):
        return False, f"version {last['version']} was put to use by hand since then"
    metrics = version.description().get("metrics") or {}
    good, why = better(settings, metrics.get("before") or {}, metrics.get("after") or {})
    if good:
        store.promote(name, number, why, by="training")
    elif last:
        why = f"{why}; version {last['version']} stays in use"
    return good, why
