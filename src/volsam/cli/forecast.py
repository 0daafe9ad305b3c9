"""`volsam plan`: the forecast of a sample, from metadata and one timed tile."""

from __future__ import annotations

from dataclasses import replace

from volsam.blocks.stage import Job
from volsam.config import Config
from volsam.errors import VolsamError
from volsam.stages.evaluate import open_truth
from volsam.stages.forecast import size_text
from volsam.stages.ingest import Ingest
from volsam.stages.plan import Plan


def print_forecast(config: Config, sample: str, workers: int) -> None:
    """Print what the run would cost.

    Raises
    ------
    VolsamError
        If the run cannot work.
    """
    job = Job(config, sample)
    ingest, stage = Ingest(job), Plan(job)
    ingest.check_output()
    chosen = stage.sample
    image = {"path": chosen.image, "key": chosen.key, "axes": chosen.axes}
    plan, expected = stage.resolve(image, sample_voxels=False)
    if chosen.truth is not None:
        open_truth(chosen, plan.shape, plan.frames)
    for warning in stage.warnings:
        print(f"warning: {warning}")
    print(f"sample      {sample}: {chosen.image}")
    if not ingest.in_place:
        if _copied(ingest):
            expected = replace(expected, copy_bytes=0)
        size = (
            f" ({size_text(expected.copy_bytes)} before compression)" if expected.copy_bytes else ""
        )
        print(f"ingest      {ingest.volume.info.format} is copied to {job.paths.store}{size}")
    print(expected.text(plan, max(1, workers // plan.threads)))
    expected.check(job.paths.folder, stage.config.compute)


def _copied(ingest: Ingest) -> bool:
    """Whether the copy is on disk already."""
    try:
        return bool(ingest.job.marker("ingest")["digest"] == ingest.digest())
    except (VolsamError, KeyError):
        return False
