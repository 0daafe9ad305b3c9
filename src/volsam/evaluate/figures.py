"""Plots and tables of evaluations, as `suite.evaluate_model` gives them.

Everything takes results by the name to show, in the order to show, for example
``{"before": …, "after": …}``. Pictures are written as their file's ending says (PNG, SVG or PDF) and
replaced only when complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from volsam.errors import VolsamError
from volsam.paths import replace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Results = Mapping[str, Mapping[str, Any]]

START_COLOURS = {"point": "#2a9d4e", "box": "#d1495b"}  # green and red, as in the paper
SERIES_COLOURS = ("#9aa5b1", "#2f6fab", "#e0a030", "#7a5195", "#2a9d4e", "#d1495b")
SCORES = ("mSA", "SA50", "SA75")
FORMATS = ("png", "svg", "pdf")
_NAMES = {"iou": "mean IoU of the objects", "rand_error": "adapted Rand error"}


def interactive_figure(results: Results, path: Path, metric: str = "iou") -> None:
    """Plot quality against the number of corrections, one panel per model.

    Parameters
    ----------
    results : mapping of name to result
        All with ``interactive``.
    path : Path
        Picture to write.
    metric : {"iou", "mSA", "SA50", "SA75", "precision", "recall"}
        What is plotted.

    Raises
    ------
    VolsamError
        If a result has no such part, or the ending is unknown.
    """
    parts = [_part(name, result, "interactive") for name, result in results.items()]
    figure = _figure(3.6 * len(results) + 0.9, 3.5)
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for axes, name, part in zip(panels, results, parts, strict=True):
        for curve in part["curves"]:
            values = [np.nan if v is None else v for v in curve[metric]]
            axes.plot(
                range(len(values)),
                values,
                color=START_COLOURS[curve["start"]],
                linestyle="-" if curve["with_mask"] else (0, (4, 2)),
                marker="o" if curve["with_mask"] else "s",
                markersize=4,
                linewidth=1.6,
                label=curve["name"],
            )
        _style(axes)
        axes.set_title(name)
        axes.set_xlabel("corrections")
        axes.set_xticks(range(0, part["rounds"] + 1, max(1, part["rounds"] // 8)))
        axes.set_ylim(0, 1.02)
    panels[0].set_ylabel(_NAMES.get(metric, metric))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    _write(figure, path)


def scores_figure(results: Results, path: Path, scores: tuple[str, ...] = SCORES) -> None:
    """Plot bars of the automatic scores, a colour per model; whiskers are standard errors.

    Parameters
    ----------
    results : mapping of name to result
        All with ``automatic``.
    path : Path
        Picture to write.
    scores : tuple of str
        Groups of bars.
    """
    parts = [_part(name, result, "automatic") for name, result in results.items()]
    width = 0.8 / len(parts)
    figure = _figure(max(4.0, 1.2 + 0.55 * len(scores) * (len(parts) + 0.6)), 3.4)
    axes = figure.subplots()
    for number, (name, part) in enumerate(zip(results, parts, strict=True)):
        place = np.arange(len(scores)) + (number - (len(parts) - 1) / 2) * width
        heights = [part["mean"][key] for key in scores]
        images = len(part["per_image"])
        errors = [part["deviation"][key] / np.sqrt(images) for key in scores]
        axes.bar(
            place,
            heights,
            width * 0.92,
            color=SERIES_COLOURS[number % len(SERIES_COLOURS)],
            yerr=errors if images > 1 else None,
            error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#444444"},
            label=name,
        )
        for x, height, error in zip(place, heights, errors, strict=True):
            axes.text(x, height + error + 0.015, f"{height:.2f}", ha="center", fontsize=8)
    _style(axes)
    axes.set_xticks(range(len(scores)), scores)
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, 1.1)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_ylabel("score, mean over images")
    figure.legend(loc="outside lower center", ncols=min(3, len(parts)), frameon=False)
    _write(figure, path)


def grid_figure(
    grid: Mapping[str, Any],
    path: Path,
    x: str = "center_threshold",
    y: str = "boundary_threshold",
) -> None:
    """Plot a heat map of two parameters of a grid search, the best of all others at each cell.

    Parameters
    ----------
    grid : mapping
        `GridResult.to_json`, or ``grid`` of a result.
    path : Path
        Picture to write.
    x, y : str
        Parameters of the axes. Cells that the search did not visit stay empty.
    """
    from matplotlib.patches import Rectangle

    table, metric = grid["table"], grid["metric"]
    for name in (x, y):
        if not all(name in row for row in table):
            raise VolsamError(
                f"The grid search has no parameter {name!r}; plot one of {', '.join(grid['best'])}."
            )
    columns, rows = (sorted({row[name] for row in table}) for name in (x, y))
    best = np.full((len(rows), len(columns)), np.nan)
    for row in table:
        place = rows.index(row[y]), columns.index(row[x])
        best[place] = np.fmax(best[place], row[metric])
    figure = _figure(1.9 + 0.62 * len(columns), 1.5 + 0.5 * len(rows))
    axes = figure.subplots()
    image = axes.imshow(best, origin="lower", cmap="viridis", aspect="auto")
    low, high = float(np.nanmin(best)), float(np.nanmax(best))
    for (i, j), value in np.ndenumerate(best):
        if np.isfinite(value):
            colour = "white" if value < low + 0.6 * (high - low) else "black"
            axes.text(j, i, f"{value:.3f}", ha="center", va="center", color=colour, fontsize=8)
    column, line = columns.index(grid["best"][x]), rows.index(grid["best"][y])
    frame = Rectangle((column - 0.47, line - 0.47), 0.94, 0.94, fill=False, ec="#d1495b", lw=2.5)
    axes.add_patch(frame)
    axes.set_xticks(range(len(columns)), [f"{v:g}" for v in columns])
    axes.set_yticks(range(len(rows)), [f"{v:g}" for v in rows])
    axes.set_xlabel(x.replace("_", " "))
    axes.set_ylabel(y.replace("_", " "))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(image, label=f"{metric}, best of the other parameters").outline.set_visible(
        False
    )
    _write(figure, path)


def table_markdown(results: Results) -> str:
    """Tables of everything that the results hold, one row per model.

    Returns
    -------
    str
        Markdown: automatic scores (mean ± standard deviation over images), neurite scores, and for
        each interactive setting the mean IoU at the start, after one and after all corrections.
    """
    blocks = []
    for key, names in (
        ("automatic", ("mSA", "SA50", "SA75", "precision", "recall")),
        ("neurites", ("vi_split", "vi_merge", "vi", "rand_error")),
    ):
        rows = [
            [name, str(len(result[key]["per_image"]))]
            + [f"{result[key]['mean'][n]:.3f} ± {result[key]['deviation'][n]:.3f}" for n in names]
            for name, result in results.items()
            if key in result
        ]
        heads = ["model", "images", *(_NAMES.get(n, n.replace("_", " ")) for n in names)]
        blocks += _table(heads, rows)
    rows = []
    for name, result in results.items():
        for curve in result.get("interactive", {}).get("curves", ()):
            last = result["interactive"]["rounds"]
            iou = [curve["iou"][k] for k in (0, min(1, last), last)]
            cells = ["–" if value is None else f"{value:.3f}" for value in iou]
            cells += [f"{curve['mSA'][k]:.3f}" for k in (0, last)]
            rows.append([name, curve["name"], str(curve["objects"]), str(last), *cells])
    heads = ["model", "start", "objects", "corrections"]
    heads += ["IoU at start", "IoU after 1", "IoU after all", "mSA at start", "mSA after all"]
    return "\n\n".join("\n".join(block) for block in [*blocks, *_table(heads, rows)]) + "\n"


def _table(heads: list[str], rows: list[list[str]]) -> list[list[str]]:
    if not rows:
        return []
    lines = [heads, ["---"] * len(heads), *rows]
    # A bar in a name would end its cell.
    return [["| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines]]


def _part(name: str, result: Mapping[str, Any], key: str) -> Any:
    if key not in result:
        raise VolsamError(
            f"The evaluation of {name} has no {key} part to plot; evaluate it with {key}=True."
        )
    return result[key]


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    # Without pyplot there is neither a window nor a figure that stays in memory.
    return Figure(figsize=(width, height), layout="constrained")


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)


def _write(figure: Figure, path: Path) -> None:
    kind = path.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise VolsamError(f"Cannot write a picture to {path}; end its name in .png, .svg or .pdf.")
    replace(path, lambda partial: figure.savefig(partial, format=kind, dpi=160))
