"""Puts the report together and writes it as one HTML file that needs nothing else.

Every part is optional: what is not given is left out of the page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volsam import __version__
from volsam.geometry import Box
from volsam.paths import replace
from volsam.report import facts, lineages
from volsam.report.charts import equivalent_diameters, histogram, size_chart
from volsam.report.collect import Run, collect
from volsam.report.page import template
from volsam.report.pictures import Reader, pictures
from volsam.track.lineage import Lineage
from volsam.track.tables import read_lineage

_CENTROIDS = ("centroid_z", "centroid_y", "centroid_x")


@dataclass(frozen=True)
class ReportInputs:
    """What a report is made of.

    Attributes
    ----------
    sample : str
        Name of the sample.
    run : Run
        Markers and stage summaries, from `volsam.report.collect.collect`.
    objects : mapping of str to array, optional
        Columns of the object table: ``voxels`` and ``centroid_z``, ``_y``, ``_x`` (voxels).
    metrics : mapping, optional
        Scores as `volsam.evaluate.metrics.score` returns them; under ``baseline``,
        optionally, those of the classical baseline with its ``name``.
    image, labels : function of a Box (zyx) to an array, optional
        Read the image and the labels; both are needed for pictures.
    view_command : str
        Command that opens the result in a viewer.
    lineage : Lineage, optional
        Tracks of a sequence.
    """

    sample: str
    run: Run = field(default_factory=Run)
    objects: Mapping[str, NDArray[Any]] | None = None
    metrics: Mapping[str, Any] | None = None
    image: Reader | None = None
    labels: Reader | None = None
    view_command: str = ""
    lineage: Lineage | None = None


def read_inputs(
    folder: Path,
    sample: str,
    *,
    image: Reader | None = None,
    labels: Reader | None = None,
    view_command: str = "",
) -> ReportInputs:
    """Gather the files of a sample: markers, ledgers, tables and ``metrics.json``.

    Parameters
    ----------
    folder : Path
        ``<results>/<sample>``.
    sample : str
    image, labels, view_command
        As in `ReportInputs`.
    """
    objects: dict[str, NDArray[Any]] | None = None
    table = folder / "objects.parquet"
    if table.is_file():
        import pyarrow.parquet as pq

        columns = pq.read_table(table, columns=["voxels", *_CENTROIDS])
        objects = {name: columns[name].to_numpy() for name in columns.column_names}
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        metrics = None
    run = collect(folder)
    lineage = None
    if "export" in run.markers:
        lineage = read_lineage(folder / "lineage.parquet")
    return ReportInputs(sample, run, objects, metrics, image, labels, view_command, lineage)


def write_report(path: Path, inputs: ReportInputs) -> None:
    """Write the report; a file appears under `path` only when it is complete."""
    page = render(inputs)
    replace(path, lambda partial: partial.write_text(page, encoding="utf-8"))


def render(inputs: ReportInputs) -> str:
    """The report as HTML."""
    run = inputs.run
    plan: dict[str, Any] = run.outputs("plan").get("plan") or {}
    voxel_size, unit = facts.voxel_size(run)
    region = facts.region(plan, run)
    depth = None
    if region is not None and plan.get("frames"):
        depth = int(plan["shape"][0]) // int(plan["frames"])
    flat = region is not None and (depth or region.shape[0]) == 1
    diameters = _diameters(inputs.objects, voxel_size, flat)
    count = _object_count(inputs)
    return template("report.html").render(
        sample=inputs.sample,
        version=__version__,
        view_command=inputs.view_command,
        headline=facts.headline(count, inputs.metrics, diameters, unit, run),
        warnings=[*run.warnings, *facts.remarks(run, count)],
        pictures=_pictures(inputs, region, voxel_size, unit, depth),
        sizes=size_chart(diameters, unit, flat),
        size_summary=facts.size_summary(diameters, unit),
        scores=facts.score_table(inputs.metrics),
        metrics=inputs.metrics,
        lineage=None if inputs.lineage is None else _lineage(inputs.lineage),
        seams=facts.seams(run),
        seam_charts=_seam_charts(facts.statistics(run)),
        stages=run.stages,
        longest=max((s.wall or 0 for s in run.stages), default=0),
        provenance=facts.provenance(plan, run),
        settings=facts.settings(run),
    )


def _lineage(lineage: Lineage) -> dict[str, Any]:
    return {
        "numbers": lineages.summary(lineage),
        "trees": lineages.tree_picture(lineage),
        "lengths": lineages.length_chart(lineage),
        "divisions": lineages.division_chart(lineage),
    }


def _diameters(
    objects: Mapping[str, NDArray[Any]] | None,
    voxel_size: tuple[float, float, float],
    flat: bool,
) -> NDArray[np.float64]:
    if objects is None or "voxels" not in objects:
        return np.empty(0)
    return equivalent_diameters(np.asarray(objects["voxels"], np.float64), voxel_size, flat)


def _object_count(inputs: ReportInputs) -> int | None:
    if inputs.objects is not None and "voxels" in inputs.objects:
        return len(inputs.objects["voxels"])
    for stage in ("measure", "label", "partition"):
        count = inputs.run.outputs(stage).get("objects")
        if count is not None:
            return int(count)
    return None


def _pictures(
    inputs: ReportInputs,
    region: Box | None,
    voxel_size: tuple[float, float, float],
    unit: str,
    depth: int | None,
) -> list[Any]:
    if inputs.image is None or inputs.labels is None or region is None:
        return []
    centroids = None
    if inputs.objects is not None and all(name in inputs.objects for name in _CENTROIDS):
        centroids = np.stack([np.asarray(inputs.objects[n], float) for n in _CENTROIDS], axis=1)
    return pictures(inputs.image, inputs.labels, region, voxel_size, unit, centroids, depth)


def _seam_charts(statistics: Mapping[str, Any]) -> list[tuple[str, Any]]:
    charts = []
    for key, title in (
        ("iou_tiles", "Between neighbouring tiles of a slice"),
        ("iou_slices", "Between neighbouring slices"),
    ):
        chart = histogram(statistics.get(key) or [], 0.0, 1.0, "intersection over union")
        if chart is not None:
            charts.append((title, chart))
    return charts
