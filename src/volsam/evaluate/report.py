"""Report and plots of an evaluation of models: one HTML file, and the same plots as PNG beside it."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from volsam import __version__
from volsam.evaluate.figures import grid_figure, interactive_figure, scores_figure
from volsam.evaluate.grid import MEANS
from volsam.paths import replace
from volsam.report.facts import Number, duration
from volsam.report.page import template

Models = Mapping[str, Mapping[str, Any]]

NEURITES = ("vi_split", "vi_merge", "vi", "rand_error", "rand_precision", "rand_recall")
LISTED = 200  # images of which single scores are shown
_AXES = {
    "ais": ("center_threshold", "boundary_threshold"),
    "amg": ("pred_iou_thresh", "stability_score_thresh"),
}  # of the heat map of a search
_OURS = ("scores.png", "interactive-*.png", "grid-*.png")


class Plot(NamedTuple):
    """A plot within the page."""

    file: str
    title: str
    uri: str


class Difference(NamedTuple):
    """A model against the first one, image by image."""

    name: str
    mean: str
    error: str
    better: int
    worse: int
    sign: int


class Curve(NamedTuple):
    """A row of interactive scores."""

    model: str
    start: str
    objects: int
    values: list[str]


class Search(NamedTuple):
    """What a grid search found for a model."""

    model: str
    on: str
    tried: int
    own: str
    best: str
    parameters: list[tuple[str, str, str]]
    plot: Plot


def write_report(folder: Path, scores: Mapping[str, Any]) -> None:
    """Write ``report.html`` and the plots; plots of earlier settings are removed.

    Parameters
    ----------
    folder : Path
        Where to.
    scores : mapping
        As `volsam.evaluate.run.evaluate_models` returns them.
    """
    plots = _plots(folder, scores["models"])
    page = render(scores, plots).encode("utf-8", "backslashreplace")
    replace(folder / "report.html", lambda partial: partial.write_bytes(page))
    for pattern in _OURS:
        for path in folder.glob(pattern):
            if path.name not in plots:
                path.unlink(missing_ok=True)


def render(scores: Mapping[str, Any], plots: Mapping[str, Plot]) -> str:
    """The report as HTML; `plots` by file name."""
    models: Models = scores["models"]
    settings = scores["settings"]["evaluate"]
    return template("evaluation.html").render(
        name=settings["name"],
        version=scores.get("version", __version__),
        images=len(scores["images"]),
        tuned=any(_tuned(model) for model in models.values()),
        headline=_headline(models),
        gaps=[gap for model in models.values() for gap in model["gaps"]],
        automatic=_rows(models, "automatic", MEANS),
        differences=_differences(models),
        plots=plots,
        interactive=_curves(models),
        rounds=settings["rounds"],
        searches=_searches(models, plots),
        neurites=_rows(models, "neurites", NEURITES),
        per_image=_per_image(models),
        listed=LISTED,
        models=_models(models),
        facts=_facts(settings),
        inputs=sorted(scores["inputs"].items()),
    )


def _plots(folder: Path, models: Models) -> dict[str, Plot]:
    """Draw all plots that the scores allow."""
    prompted = {name: model for name, model in models.items() if "interactive" in model}
    wanted: list[tuple[str, str, Callable[[Path], None]]] = [
        ("scores.png", "Automatic segmentation", lambda path: scores_figure(models, path, MEANS))
    ]
    if any(_objects(model) for model in prompted.values()):
        wanted += [
            ("interactive-iou.png", "Mean IoU of the objects",
             lambda path: interactive_figure(prompted, path)),
            ("interactive-msa.png", "Mean segmentation accuracy",
             lambda path: interactive_figure(prompted, path, "mSA")),
        ]  # fmt: skip
    for number, (name, model) in enumerate(models.items(), start=1):
        if "grid" in model:
            draw_grid = partial(grid_figure, model["grid"])
            x, y = _AXES[_method(model)]
            wanted.append((f"grid-{number}.png", name, partial(draw_grid, x=x, y=y)))
    plots = {}
    for file, title, draw in wanted:
        draw(folder / file)
        data = base64.b64encode((folder / file).read_bytes()).decode()
        plots[file] = Plot(file, title, f"data:image/png;base64,{data}")
    return plots


def _headline(models: Models) -> list[Number]:
    """The best model of each kind of score."""
    found = []
    best = max(models, key=lambda name: models[name]["automatic"]["mean"]["mSA"])
    value = models[best]["automatic"]["mean"]["mSA"]
    found.append(Number(f"{value:.3f}", "mSA, automatic", _of(best, models)))
    for start in ("point", "box"):
        values = {name: _first(model, start) for name, model in models.items()}
        known = {name: value for name, value in values.items() if value is not None}
        if known:
            best = max(known, key=lambda name: known[name])
            found.append(
                Number(f"{known[best]:.3f}", f"mean IoU from one {start}", _of(best, models))
            )
    return found


def _of(name: str, models: Models) -> str:
    return f"{name}, the best of {len(models)}" if len(models) > 1 else name


def _first(model: Mapping[str, Any], start: str) -> float | None:
    for curve in model.get("interactive", {}).get("curves", ()):
        if curve["start"] == start:
            value: float | None = curve["iou"][0]
            return value
    return None


def _objects(model: Mapping[str, Any]) -> int:
    return sum(curve["objects"] for curve in model["interactive"]["curves"])


def _rows(models: Models, part: str, names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Name, and mean ± deviation of each score."""
    rows = []
    for name, model in models.items():
        if part in model:
            mean, spread = model[part]["mean"], model[part]["deviation"]
            rows.append((name, [f"{mean[n]:.3f} ± {spread[n]:.3f}" for n in names]))
    return rows


def _differences(models: Models) -> list[Difference]:
    """Paired differences of mSA from the first model, with the standard error of their mean."""
    (_, first), *others = models.items()
    own = np.array([row["mSA"] for row in first["automatic"]["per_image"]])
    found = []
    for name, model in others:
        change = np.array([row["mSA"] for row in model["automatic"]["per_image"]]) - own
        mean = float(change.mean())
        error = float(change.std(ddof=1) / math.sqrt(change.size)) if change.size > 1 else None
        clear = error is not None and abs(mean) > 2 * error
        found.append(
            Difference(
                name,
                f"{round(mean, 3) + 0.0:+.3f}",  # no "-0.000"
                "–" if error is None else f"± {error:.3f}",
                int((change > 0).sum()),
                int((change < 0).sum()),
                int(np.sign(mean)) if clear else 0,
            )
        )
    return found


def _curves(models: Models) -> list[Curve]:
    rows = []
    for name, model in models.items():
        part = model.get("interactive")
        for curve in part["curves"] if part else ():
            last = part["rounds"] if part else 0
            steps = (0, min(1, last), last)
            values = [*(curve["iou"][k] for k in steps), *(curve["mSA"][k] for k in steps)]
            shown = ["–" if value is None else f"{value:.3f}" for value in values]
            rows.append(Curve(name, curve["name"], curve["objects"], shown))
    return rows


def _method(model: Mapping[str, Any]) -> str:
    return str(model["automatic"].get("method", "ais"))


def _tuned(model: Mapping[str, Any]) -> bool:
    return bool(model.get("grid", {}).get("on") == "tuning")


def _searches(models: Models, plots: Mapping[str, Plot]) -> list[Search]:
    found = []
    for number, (name, model) in enumerate(models.items(), start=1):
        grid = model.get("grid")
        if not grid:
            continue
        start = grid["table"][0]  # a search begins with the model's own parameters
        found.append(
            Search(
                name,
                "tuning images" if _tuned(model) else "the scored images themselves",
                len(grid["table"]),
                f"{start[grid['metric']]:.3f}",
                f"{grid['scores'][grid['metric']]:.3f}",
                [
                    (key.replace("_", " "), f"{start[key]:g}", f"{value:g}")
                    for key, value in grid["best"].items()
                ],
                plots[f"grid-{number}.png"],
            )
        )
    return found


def _per_image(models: Models) -> list[tuple[str, list[str]]]:
    """Image, and mSA of each model."""
    columns = [model["automatic"]["per_image"] for model in models.values()]
    rows = zip(*columns, strict=True)
    return [(row[0]["name"], [f"{cell['mSA']:.3f}" for cell in row]) for row in rows][:LISTED]


def _models(models: Models) -> list[tuple[str, str, str, str, str]]:
    """Name, path, hash, seconds, and the parameters that were used."""
    rows = []
    for name, model in models.items():
        seconds = model["seconds"]
        time = ", ".join(f"{part} {duration(float(s))}" for part, s in seconds.items())
        used = model["automatic"]["parameters"].items()
        parameters = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in used)
        parameters = f"{_method(model).upper()}: {parameters}"
        rows.append((name, str(model["path"]), str(model["hash"]), time, parameters))
    return rows


def _facts(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    def named(data: Any) -> str:
        if isinstance(data, list):
            return ", ".join(str(entry["labels"]) for entry in data)
        return str(data)

    entries: Iterable[tuple[str, Any]] = settings.items()
    return [
        (key.replace("_", " "), named(value) if key in ("data", "tuning") else f"{value}")
        for key, value in entries
        if value is not None and key not in ("name", "models")
    ]
