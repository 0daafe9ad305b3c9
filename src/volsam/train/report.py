"""The report of a training: from what to what, by how much, and how it went; one HTML file.

Everything but the description is optional: what is missing or cannot be made leaves a gap in the page,
and a sentence where it matters, but never costs the training its result.
"""

from __future__ import annotations

import json
import os
import platform
import resource
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from volsam import __version__
from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.paths import replace
from volsam.report.facts import Number, duration
from volsam.report.page import template
from volsam.train.figures import Comparison, Curves, busiest, compare, curves

if TYPE_CHECKING:
    from volsam.evaluate.suite import Pair
    from volsam.models.model import Model

PICTURES = 4
WINDOW = 448
_CONTEXT = 64  # pixels around a window that are segmented with it
_SCORES = {
    "mSA": "mSA, automatic",
    "SA50": "SA50, automatic",
    "SA75": "SA75, automatic",
    "precision": "precision at IoU 0.5, automatic",
    "recall": "recall at IoU 0.5, automatic",
    "box": "mean IoU from one box",
    "point": "mean IoU from one point",
}


class Score(NamedTuple):
    """A row of the table of scores."""

    name: str
    before: str
    after: str
    change: str
    better: bool | None


class Data(NamedTuple):
    """A row of the table of data."""

    name: str
    licence: str
    more: str


def write_report(
    folder: Path,
    description: Mapping[str, Any],
    before: Model | None,
    after: Model,
    images: Sequence[Pair],
) -> None:
    """Write ``report.html``; it appears under its name only when it is complete.

    Parameters
    ----------
    folder : Path
        Where to; ``progress.json`` of the training is read from it if it is there.
    description : mapping
        Of the new model, from `volsam.models.card.describe`.
    before, after : Model
        The parent, where it can segment automatically, and the new model.
    images : sequence of Pair
        Pictures are of some of these.
    """
    shown, gap = _pictures(description, before, after, images)
    known = {} if before is None else before.ais
    page = render(description, _progress(folder), shown, gap=gap, parent_ais=known)
    # Names of files may hold bytes that are no text, which must not stop the page.
    data = page.encode("utf-8", "backslashreplace")
    replace(folder / "report.html", lambda partial: partial.write_bytes(data))


def render(
    description: Mapping[str, Any],
    progress: Mapping[str, Any],
    pictures: Sequence[Comparison] = (),
    *,
    gap: str = "",
    parent_ais: Mapping[str, float] | None = None,
) -> str:
    """The report as HTML.

    Parameters
    ----------
    description : mapping
        Of the new model.
    progress : mapping
        Content of ``progress.json``; may be empty.
    pictures : sequence of Comparison
        Before and after.
    gap : str
        Why there are no pictures, or fewer.
    parent_ais : mapping, optional
        Parameters of automatic segmentation of the parent.
    """
    metrics = description.get("metrics") or {}
    recipe = description.get("recipe") or {}
    return template("training.html").render(
        name=description.get("name", "unnamed"),
        parent=description.get("parent") or "",
        version=__version__,
        headline=_headline(metrics, progress),
        scores=_scores(metrics),
        scored_on=metrics.get("on") or "",
        data=_data(description),
        charts=_charts(progress),
        ended=str(progress.get("ended") or ""),
        pictures=pictures,
        gap=gap,
        thresholds=_thresholds(description.get("ais") or {}, parent_ais or {}),
        tuning=list(flatten(description.get("tuning") or {})),
        recipe=list(flatten({k: v for k, v in recipe.items() if k != "data"})),
        origin=_origin(description),
        machine=_machine(progress),
    )


def segment_image(model: Model, image: NDArray[np.floating], scale: float) -> NDArray[np.uint32]:
    """Automatic segmentation of an image with the model's own parameters.

    Parameters
    ----------
    model : Model
        With a decoder.
    image : (h, w) float array
        As of `volsam.evaluate.suite.Pair`.
    scale : float
        Pixels of the network's input per pixel of the image.
    """
    from volsam.evaluate.grid import ais_parameters
    from volsam.evaluate.suite import predict_image
    from volsam.segment.ais import in_pixels, segment_ais

    maps = predict_image(model, image, scale)
    return segment_ais(maps[0], maps[1], maps[2], ais_parameters(in_pixels(model.ais, scale)))


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and texts of nested settings, one per value; a list of mappings is only counted."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}.")
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            yield name, f"{len(value):,} entr{'y' if len(value) == 1 else 'ies'}"
        else:
            yield name, _text(value)


def _pictures(
    description: Mapping[str, Any], before: Model | None, after: Model, images: Sequence[Pair]
) -> tuple[list[Comparison], str]:
    """Comparisons of images spread evenly over what there is, and why there are no more."""
    if not images:
        return [], "No image was set apart, so there are no pictures."
    scale = float((description.get("recipe") or {}).get("scale", 1.0))
    count = min(PICTURES, len(images))
    shown: list[Comparison] = []
    for pair in (images[n * len(images) // count] for n in range(count)):
        try:
            shown.append(_compare(pair, before, after, scale))
        except (VolsamError, MemoryError) as error:
            why = str(error) if isinstance(error, VolsamError) else "memory ran out."
            return shown, f"Pictures of {pair.name} could not be made: {why}"
    return shown, ""


def _compare(pair: Pair, before: Model | None, after: Model, scale: float) -> Comparison:
    from volsam.evaluate.suite import as_trained

    whole = Box.of(pair.labels.shape)
    window = busiest(pair.labels if pair.known is None else pair.labels * pair.known, WINDOW)
    around = window.grow((_CONTEXT, _CONTEXT), whole)
    inner = window.relative_to(around).slices
    models = [("Before, the parent", before), ("After", after)]
    return compare(
        pair.name,
        pair.image[window.slices],
        pair.labels[window.slices],
        [
            (
                title,
                segment_image(model, as_trained([pair], model)[0].image[around.slices], scale)[
                    inner
                ],
            )
            for title, model in models
            if model is not None
        ],
        None if pair.ignore is None else pair.ignore[window.slices],
    )


def _progress(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _headline(metrics: Mapping[str, Any], progress: Mapping[str, Any]) -> list[Number]:
    before, after = metrics.get("before") or {}, metrics.get("after") or {}
    numbers = []
    for key in ("mSA", "box", "point"):
        if _number(after.get(key)) is None:
            continue
        old = _number(before.get(key))
        note = "" if old is None else f"parent {old:.3f}"
        numbers.append(Number(f"{after[key]:.3f}", _SCORES[key], note))
    if progress.get("seconds"):
        steps, epochs = int(progress.get("step") or 0), int(progress.get("epoch") or 0)
        note = f"{steps:,} steps in {epochs:,} epoch{'' if epochs == 1 else 's'}"
        numbers.append(Number(duration(float(progress["seconds"])), "training time", note))
    return numbers


def _scores(metrics: Mapping[str, Any]) -> list[Score]:
    before, after = metrics.get("before") or {}, metrics.get("after") or {}
    rows = []
    for key in [*after, *(key for key in before if key not in after)]:
        old, new = _number(before.get(key)), _number(after.get(key))
        change = None if old is None or new is None else new - old
        rows.append(
            Score(
                _SCORES.get(key, str(key)),
                _signed(old, ""),
                _signed(new, ""),
                _signed(change, "+"),
                None if not change or key not in _SCORES else change > 0,
            )
        )
    return rows


def _charts(progress: Mapping[str, Any]) -> list[Curves]:
    losses, metrics = _columns(progress.get("losses"), 6), _columns(progress.get("metrics"), 6)
    steps, _, rate, dice, iou, automatic = losses
    epochs, _, _, metric, own_dice, own_automatic = metrics
    best = int(np.nanargmin(metric)) if np.isfinite(metric).any() else None
    note = "" if best is None else f"best: {metric[best]:.4g} in epoch {epochs[best]:g}"
    validated = {"prompts (1 – Dice)": own_dice, "automatic": own_automatic}
    # A single part is the metric itself, and without validation the metric is the training's loss.
    parts = validated if all(column.any() for column in validated.values()) else {}
    what = "Validation metric" if own_dice.any() or own_automatic.any() else "Loss of the epoch"
    found = [
        curves(f"{what} (lower is better)", "epoch", epochs, {"metric": metric, **parts},
               mark=best, note=note),
        curves("Loss of prompted masks (1 – Dice)", "step", steps, {"loss": dice}),
        curves("Loss of the predicted IoU (squared error)", "step", steps, {"loss": iou}),
        curves("Loss of automatic segmentation", "step", steps, {"loss": automatic}),
        curves("Learning rate", "step", steps, {"learning rate": rate}, zero=True),
    ]  # fmt: skip
    return [chart for chart in found if chart is not None]


def _columns(rows: Any, width: int) -> list[NDArray[np.float64]]:
    """Columns of a log; rows that are none are left out."""
    whole = [
        row
        for row in rows or ()
        if isinstance(row, list) and len(row) == width and None not in map(_number, row)
    ]
    table = np.array(whole, np.float64).reshape(len(whole), width)
    return list(table.T)


def _thresholds(
    new: Mapping[str, float], old: Mapping[str, float]
) -> list[tuple[str, str, str, bool]]:
    """Name, value before and after, and whether they differ."""
    names = [*new, *(name for name in old if name not in new)]
    return [
        (name.replace("_", " "), _text(old.get(name)), _text(new.get(name)),
         name in old and old[name] != new.get(name))
        for name in names
    ]  # fmt: skip


def _data(description: Mapping[str, Any]) -> list[Data]:
    rows = []
    for entry in description.get("data") or ():
        facts = entry if isinstance(entry, Mapping) else {"name": entry}
        rest = {k: v for k, v in facts.items() if k not in ("name", "licence")}
        more = ", ".join(f"{name}: {text}" for name, text in flatten(rest))
        licence = facts.get("licence") or "not stated"
        rows.append(Data(str(facts.get("name", "unnamed")), str(licence), more))
    return rows


def _origin(description: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = {
        "parent": description.get("parent"),
        "hash of its weights": description.get("parent_hash"),
        "its own parents": ", ".join(
            str(ancestor.get("model")) for ancestor in description.get("ancestors") or ()
        ),
        "licence of the model": description.get("licence"),
        "digest of the training": description.get("training"),
        "median object diameter": _unit(description.get("diameter"), "pixels"),
        "pixel size": _unit(description.get("pixel_size"), "µm"),
    }
    return [(name, str(value)) for name, value in facts.items() if value]


def _machine(progress: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where this process runs and what it used; earlier ones of an interrupted run are unknown."""
    import torch

    used = os.times()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu = sum((used.user, used.system, used.children_user, used.children_system))
    devices = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    seconds = _number(progress.get("seconds"))
    facts = {
        "training time": None if seconds is None else duration(seconds),
        "why it ended": progress.get("ended"),
        "CPU time since the last start": f"{duration(cpu)}, evaluation included",
        "largest memory since the last start": f"{peak / 1024:,.0f} MB",
        "processor": f"{_processor()}, {torch.get_num_threads()} of {os.cpu_count()} threads",
        "GPU": ", ".join(devices) or "none",
        "software": f"volsam {__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}, {platform.system()}",
    }
    return [(name, str(value)) for name, value in facts.items() if value]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _signed(value: float | None, sign: str) -> str:
    return "–" if value is None else f"{value:{sign}.3f}"


def _unit(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:g} {unit}"


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
