"""What the markers say, in the words of the report. Every value may be missing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from volsam.geometry import Box
from volsam.report.collect import Run

_SHORT_UNITS = {
    "angstrom": "Å",
    "nanometer": "nm",
    "micrometer": "µm",
    "millimeter": "mm",
    "centimeter": "cm",
    "meter": "m",
}


class Number(NamedTuple):
    """A figure of the headline."""

    value: str
    name: str
    note: str


class SeamRow(NamedTuple):
    """Borders of one kind."""

    name: str
    pairs: int
    merged: int
    cut: int


class ScoreRow(NamedTuple):
    """Scores of one result."""

    name: str
    values: list[str]


def voxel_size(run: Run) -> tuple[tuple[float, float, float], str]:
    """Edge lengths zyx and the short name of their unit; voxels where nothing is known."""
    for known in (run.outputs("plan").get("plan") or {}, run.outputs("ingest")):
        if known.get("voxel_size"):
            z, y, x = (float(edge) for edge in known["voxel_size"])
            unit = str(known.get("unit") or "")
            return (z, y, x), _SHORT_UNITS.get(unit, unit)
    return (1.0, 1.0, 1.0), "voxels"


def region(plan: Mapping[str, Any], run: Run) -> Box | None:
    """Part of the volume that was segmented."""
    if plan.get("region"):
        start, stop = plan["region"]
        return Box(tuple(start), tuple(stop))
    shape = plan.get("shape") or run.outputs("ingest").get("shape")
    return Box.of(shape) if shape else None


def headline(
    count: int | None,
    metrics: Mapping[str, Any] | None,
    diameters: NDArray[np.float64],
    unit: str,
    run: Run,
) -> list[Number]:
    """The figures at the top of the page."""
    numbers = []
    if count is not None:
        numbers.append(Number(f"{count:,}", "objects", ""))
    if metrics and metrics.get("SA50") is not None:
        baseline = metrics.get("baseline") or {}
        beside = f"classical baseline {baseline['SA50']:.2f}" if "SA50" in baseline else ""
        numbers.append(Number(f"{metrics['SA50']:.2f}", "SA50 against the truth", beside))
    if metrics and metrics.get("mSA") is not None:
        numbers.append(Number(f"{metrics['mSA']:.2f}", "mSA, mean over IoU", ""))
    if diameters.size:
        numbers.append(Number(f"{np.median(diameters):.3g} {unit}", "median diameter", ""))
    wall = sum(stage.wall or 0 for stage in run.stages)
    if wall:
        retries = sum(stage.retries for stage in run.stages)
        note = f"{retries} block{'' if retries == 1 else 's'} tried again" if retries else ""
        numbers.append(Number(duration(wall), "computing time", note))
    return numbers


def duration(seconds: float) -> str:
    """Seconds in the unit a reader wants."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def size_summary(diameters: NDArray[np.float64], unit: str) -> str:
    """One sentence on the sizes."""
    if not diameters.size:
        return ""
    low, middle, high = np.percentile(diameters, [5, 50, 95])
    return (
        f"Half of the objects are smaller than {middle:.3g} {unit}; nine in ten lie between "
        f"{low:.3g} and {high:.3g} {unit}."
    )


def score_table(metrics: Mapping[str, Any] | None) -> tuple[list[str], list[ScoreRow]] | None:
    """Header and rows: this result, and the baseline if there is one."""
    if not metrics or "mSA" not in metrics:
        return None
    keys = ["mSA", "SA50", "SA75", "precision", "recall", "f1"]
    counts = {"tp": "matched", "fp": "not in the truth", "fn": "missed"}
    rows = [ScoreRow("this run", _score_values(metrics, keys, counts))]
    baseline = metrics.get("baseline")
    if isinstance(baseline, Mapping):
        name = str(baseline.get("name") or "classical baseline")
        rows.append(ScoreRow(name, _score_values(baseline, keys, counts)))
    return [*keys, *counts.values()], rows


def _score_values(
    scores: Mapping[str, Any], keys: Sequence[str], counts: Mapping[str, str]
) -> list[str]:
    values = [f"{scores[k]:.3f}" if scores.get(k) is not None else "–" for k in keys]
    return values + [f"{scores[k]:,}" if scores.get(k) is not None else "–" for k in counts]


def statistics(run: Run) -> dict[str, Any]:
    """What the stitcher counted."""
    found = run.outputs("partition").get("statistics")
    return found if isinstance(found, dict) else {}


def seams(run: Run) -> tuple[list[SeamRow], list[tuple[str, str]]] | None:
    """Borders by kind, and further counts with their names."""
    counted = statistics(run)
    if not counted:
        return None
    rows = []
    edges: Mapping[str, int] = counted.get("edges") or {}
    for kind, pairs in edges.items():
        merged = (counted.get("merged") or {}).get(kind, 0)
        cut = (counted.get("cut") or {}).get(kind, 0)
        rows.append(SeamRow(_border(kind), int(pairs), int(merged), int(cut)))
    names = {
        "objects_across_tiles": "objects that span several tiles",
        "objects_across_slices": "objects that span several slices",
        "fragments_cut": "fragments with an attractive neighbour that was cut off",
        "dropped_small": "dropped: smaller than objects.min_size",
        "dropped_large": "dropped: larger than objects.max_size",
        "dropped_thin": "dropped: in fewer slices than stitch.min_extent",
    }
    further = [(text, f"{counted[key]:,}") for key, text in names.items() if key in counted]
    return rows, further


def _border(kind: str) -> str:
    if kind == "tiles":
        return "neighbouring tiles"
    if kind == "slices+1":
        return "neighbouring slices"
    distance = kind.removeprefix("slices+")
    return f"slices {distance} apart" if distance != kind else kind


def remarks(run: Run, count: int | None) -> list[str]:
    """What the reader should look into."""
    found = []
    if count == 0:
        found.append(
            "No object was found: look at the pictures, and check the channel, the object "
            "scale and the thresholds of ais."
        )
    for stage in run.stages:
        if not stage.finished:
            found.append(
                f"Stage {stage.name} is not finished: this report is of an incomplete run."
            )
        for reason, times in stage.reasons:
            found.append(f"Stage {stage.name} tried a block again after {reason} ({times}×).")
    return found


def provenance(plan: Mapping[str, Any], run: Run) -> list[tuple[str, str]]:
    """What ran on what, as pairs of a name and a text; missing facts are left out."""
    ingest = run.outputs("ingest")
    marker = run.markers.get("ingest", {})
    image = (marker.get("settings") or {}).get("sample.image")
    stored = (ingest.get("image") or {}).get("path")
    stamp = (marker.get("inputs") or {}).get("image")
    size, unit = voxel_size(run)
    shape = plan.get("shape") or ingest.get("shape")
    entries: list[tuple[str, Any]] = [
        ("Input", image or stored),
        ("Read from", stored if stored and stored != image else None),
        ("Format", ingest.get("format")),
        ("Fingerprint", stamp[1] if stamp else None),
        ("Shape", _axes(shape) if shape else None),
        ("Voxel size", _axes([f"{edge:g}" for edge in size], unit) if plan else None),
        ("Intensities", plan.get("dtype") or ingest.get("dtype")),
        ("Region", _region_text(plan)),
        ("Model", plan.get("model")),
        ("Model hash", plan.get("model_hash")),
        ("Object scale", _scale(plan)),
        ("Tiles", _tiles(plan)),
        ("Device", _joined(plan, ("device", "precision"), " · ")),
        ("Compatibility", plan["compat"] if plan.get("compat", "none") != "none" else None),
        ("Workers", _workers(run)),
        ("Dashboard while it ran", _dashboard(run)),
        ("volsam", ", ".join(_versions(run)) or None),
    ]
    return [(name, str(value)) for name, value in entries if value not in (None, "")]


def settings(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """Settings of each stage, as the configuration spells them."""
    found = []
    for stage, marker in run.markers.items():
        pairs = [
            (key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
            for key, value in (marker.get("settings") or {}).items()
        ]
        if pairs:
            found.append((stage, pairs))
    return found


def _axes(values: Sequence[Any], unit: str = "voxels") -> str:
    return " × ".join(str(v) for v in values) + f" {unit} (z × y × x)"


def _region_text(plan: Mapping[str, Any]) -> str | None:
    if not plan.get("region") or not plan.get("shape"):
        return None
    start, stop = plan["region"]
    if list(start) == [0, 0, 0] and list(stop) == list(plan["shape"]):
        return None
    ranges = zip("zyx", start, stop, strict=True)
    return ", ".join(f"{axis} {a}–{b - 1}" for axis, a, b in ranges)


def _scale(plan: Mapping[str, Any]) -> str | None:
    scale = plan.get("scale")
    if scale is None:
        return None
    return "as is" if scale == 1 else f"resampled by {scale:.3g} for the network"


def _tiles(plan: Mapping[str, Any]) -> str | None:
    if plan.get("tile") is None:
        return None
    return f"{plan['tile']} px with a halo of {plan.get('halo', 0)} px"


def _joined(plan: Mapping[str, Any], keys: Sequence[str], between: str) -> str | None:
    return between.join(str(plan[k]) for k in keys if plan.get(k)) or None


def _workers(run: Run) -> str | None:
    kinds = {str(state["cluster"]) for state in run.states.values() if state.get("cluster")}
    return ", ".join(sorted(kinds)) or None


def _dashboard(run: Run) -> str | None:
    """Of the stage that takes longest; its port changes with every stage."""
    state = run.states.get("segment", {})
    parts = [state.get("dashboard"), state.get("tunnel")]
    return ", from outside ".join(str(part) for part in parts if part) or None


def _versions(run: Run) -> list[str]:
    return sorted({str(m["version"]) for m in run.markers.values() if m.get("version")})
