"""`volsam view`: image and labels in napari, lazily, in physical units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from volsam.blocks.stage import Job
from volsam.config import Config
from volsam.errors import VolsamError
from volsam.stages.label import NAME, label_store
from volsam.stages.runplan import RunPlan
from volsam.volume.labels import label_path


def layers(config: Config, sample: str) -> list[tuple[Any, dict[str, Any], str]]:
    """Layers as napari's OME-Zarr reader makes them: the image, then the labels over it."""
    job = Job(config, sample)
    job.marker("label")
    try:
        from napari_ome_zarr import napari_get_reader
    except ImportError:
        raise VolsamError(
            "napari is not installed; install the viewer with: pip install 'volsam[view]'."
        ) from None
    found = []
    for kind, path in (
        ("image", Path(RunPlan.of(job).image["path"])),
        ("labels", label_path(label_store(job), NAME)),
    ):
        reader = napari_get_reader(str(path))
        for data, options, shown_as in reader(str(path)) if reader else []:
            if shown_as == kind:
                found.append((data, {**options, "visible": True}, shown_as))
    return found


def open_viewer(config: Config, sample: str, screenshot: Path | None) -> None:
    """Show the layers; with `screenshot`, save the canvas at the middle slice and close."""
    shown = layers(config, sample)
    import napari

    viewer = napari.Viewer(title=f"volsam {sample}")
    for data, options, kind in shown:
        getattr(viewer, f"add_{kind}")(data, **options)
    if screenshot is not None:
        viewer.screenshot(str(screenshot), canvas_only=False, flash=False)
        viewer.close()
        return
    napari.run()
