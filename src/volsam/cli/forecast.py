"""`volsam plan`: the forecast of a sample, from metadata and one timed tile."""

from __future__ import annotations

from volsam.blocks.stage import Job
from volsam.config import Config
from volsam.stages.evaluate import open_truth
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
        print(f"ingest      {ingest.volume.info.format} is copied to {job.paths.store}")
    print(expected.text(plan, max(1, workers // plan.threads)))
    compute = stage.config.compute
    expected.check(job.paths.folder, compute, compute.store_embeddings)
