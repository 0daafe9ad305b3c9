"""The demo at reduced size through real sbatch: the same bytes as on one machine, an empty queue."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import scenes
from hpc import Run, wait_for
from slurm import Slurm

from profiles import profile

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def test_same_bytes_as_local_and_nothing_left(
    run: Run, cluster: Slurm, expected: dict[str, str]
) -> None:
    # GPU workers on two pretend GPUs, TLS between driver and workers.
    run.profile = profile(run.profile, "slurm", tls=True)
    run.start()
    run.reach(3)
    assert {job["partition"] for job in cluster.workers()} == {"gpu"}
    assert len(cluster.workers()) == 2
    assert {job["partition"] for job in cluster.drivers()} == {"cpu"}
    state = run.state()
    assert state["dashboard"].startswith("http://127.0.0.1:")
    assert state["tunnel"].startswith("ssh -N -L ")
    assert state["state"] == "running"
    wait_for(lambda: run.state()["running"], 30)
    assert run.finish(starts=1) == 1
    wait_for(lambda: not cluster.jobs(), 60)
    assert scenes.result_digest(run.paths) == expected
    assert {line["gpus"] for line in run.lines().values()} == {1}
    assert not any("gpus" in line for line in run.lines("label").values())
    log = (run.paths.work / "logs" / "segment.log").read_text()
    assert "dashboard: http://127.0.0.1:" in log
    assert "ssh -N -L" in log
    assert "voxels/s" in log
    report = run.paths.report.read_text()
    assert "ssh -N -L" in report


def test_workers_see_nothing_of_the_job_around_them(cluster: Slurm, tmp_path: Path) -> None:
    """A driver on the GPU partition starts CPU workers: no GPU and no job variables leak."""
    site = profile(tmp_path / "slurm", "slurm", stages={}) / "cluster.yaml"
    here = Path(__file__).resolve().parent
    script = here / "environment_driver.py"
    cluster.call(
        *("srun", "-p", "gpu", "--gres=gpu:1", "--mem=800"),
        *("env", f"PYTHONPATH={here}:{here.parent / 'blocks'}"),
        *(sys.executable, str(script), str(tmp_path), str(site)),
        timeout=120,
    )
    driver, *workers = json.loads((tmp_path / "environments.json").read_text())
    assert driver["CUDA_VISIBLE_DEVICES"] == "0"
    assert len({worker["SLURM_JOB_ID"] for worker in workers}) == 2
    for worker in workers:
        assert worker["SLURM_JOB_ID"] != driver["SLURM_JOB_ID"]
        assert worker["SLURM_JOB_PARTITION"] == "cpu"
        assert "CUDA_VISIBLE_DEVICES" not in worker
        assert "SLURM_STEP_GPUS" not in worker
        assert worker["OMP_NUM_THREADS"] == "1"
        leaked = {
            k
            for k, v in worker.items()
            if k.startswith("SLURM_SRUN")
            or ("JOB" in k and k.endswith("ID") and v == driver["SLURM_JOB_ID"])
        }
        assert not leaked


def test_lsf_stand_in(
    run: Run, cluster: Slurm, expected: dict[str, str], lsf: dict[str, str]
) -> None:
    """Snakemake's LSF plugin and Dask's LSF cluster, on commands that speak to that SLURM."""
    run.profile = profile(run.folder / "lsf", "lsf")
    run.start(lsf)
    assert run.finish(starts=1) == 1
    wait_for(lambda: not cluster.jobs(), 60)
    assert scenes.result_digest(run.paths) == expected
    assert {line["gpus"] for line in run.lines().values()} == {1}
