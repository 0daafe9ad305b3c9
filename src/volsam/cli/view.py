"""`volsam view`: image, labels and tracks in napari, lazily, in physical units."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from volsam.errors import VolsamError


def layers(folder: Path) -> list[tuple[Any, dict[str, Any], str]]:
    """Layers as napari's OME-Zarr reader makes them: the image, then the labels over it.

    Of a tracked sequence the labels are those of the tracks, and the tracks lie over them.

    Parameters
    ----------
    folder : Path
        ``<results>/<sample>``.
    """
    try:
        outputs = {
            stage: json.loads((folder / ".volsam" / f"{stage}.json").read_text())["outputs"]
            for stage in ("ingest", "plan", "label")
        }
    except (OSError, ValueError, KeyError):
        raise VolsamError(
            f"{folder} holds no finished labels; give the folder <results>/<sample> of a finished run."
        ) from None
    try:
        from napari_ome_zarr import napari_get_reader
    except ImportError:
        raise VolsamError(
            "napari is not installed; install the viewer with: pip install 'volsam[view]'."
        ) from None
    from volsam.stages.ingest import image_path

    # What the network saw as black and white; the type's whole range would show microscopy as black.
    limits = outputs["plan"]["plan"]["normalisation"]
    contrast = [min(limits["low"]), max(limits["high"])]
    labels = Path(outputs["label"]["store"]) / outputs["label"]["labels"]
    tracked = (folder / ".volsam" / "export.json").is_file()
    if tracked:
        labels = labels.with_name("tracks")
    found = []
    for kind, path in (
        ("image", image_path(outputs["ingest"]["image"])),
        ("labels", labels),
    ):
        reader = napari_get_reader(str(path))
        for data, options, shown_as in reader(str(path)) if reader else []:
            if shown_as == kind:
                options = {**options, "visible": True}
                if kind == "image" and contrast[0] < contrast[1]:
                    several = options.get("channel_axis") is not None
                    channels = data[0].shape[options["channel_axis"]] if several else 0
                    options["contrast_limits"] = [contrast] * channels if several else contrast
                found.append((data, options, shown_as))
    if tracked:
        found.append(_tracks(folder, outputs["plan"]["plan"], found[-1][1].get("units")))
    return found


def _tracks(folder: Path, plan: dict[str, Any], units: Any) -> tuple[Any, dict[str, Any], str]:
    """Tracks of the lineage with their divisions, where the reader puts the image."""
    from volsam.exchange.tracks_table import tracks_layer
    from volsam.track.tables import read_lineage
    from volsam.volume.source import open_volume

    data, graph = tracks_layer(read_lineage(folder / "lineage.parquet"))
    dimensions = data.shape[1] - 1
    options = {
        "graph": graph,
        "name": "tracks",
        "scale": (open_volume(**plan["image"]).info.time.step, *[1.0] * (dimensions - 1)),
        "translate": (0.0, *plan["translation"][4 - dimensions :]),
        "units": units,
        "tail_length": 10,
        "head_length": 0,
    }
    return data, options, "tracks"


def open_viewer(folder: Path, screenshot: Path | None) -> None:
    """Show the layers; with `screenshot`, save the canvas at the middle slice and close."""
    shown = layers(folder)
    if not any(find_spec(name) for name in ("PyQt6", "PySide6", "PyQt5")):
        raise VolsamError("napari has no Qt here; run make viewer, or pip install 'volsam[view]'.")
    import napari

    viewer = napari.Viewer(title=f"volsam {folder.name}")
    for data, options, kind in shown:
        getattr(viewer, f"add_{kind}")(data, **options)
    if screenshot is not None:
        viewer.screenshot(str(screenshot), canvas_only=False, flash=False)
        viewer.close()
        return
    napari.run()
