"""A SLURM for the session, and what the reduced demo gives on this machine alone."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import lsf_on_slurm
import pytest
import scenes
from hpc import REPOSITORY, SHAPE, Run, demo_settings, wait_for
from slurm import Slurm, Unavailable

from profiles import profile
from volsam.demo.generate import write_demo


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """A running SLURM."""
    folder = Path(tempfile.mkdtemp(prefix="volsam-slurm-"))
    folder.chmod(0o755)  # munge wants its socket within everybody's reach
    service = Slurm(folder)
    try:
        service.start()
    except Unavailable as reason:
        pytest.skip(f"no SLURM here: {reason}")
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = service.environment["SLURM_CONF"]
    yield service
    service.stop()
    shutil.rmtree(folder, ignore_errors=True)
    os.environ.pop("SLURM_CONF")
    if before is not None:
        os.environ["SLURM_CONF"] = before


@pytest.fixture
def cluster(slurm: Slurm) -> Iterator[Slurm]:
    """The same, brought back to order and emptied after each test."""
    yield slurm
    slurm.start()
    slurm.call("scancel", "-u", os.environ.get("USER", "root"))
    wait_for(lambda: not slurm.jobs(), 60)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reduced demo."""
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder, 0, SHAPE)
    return folder


@pytest.fixture(scope="session")
def expected(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Bytes of the result with the local profile."""
    folder = tmp_path_factory.mktemp("local")
    run = Run(folder, REPOSITORY / "profiles" / "local", demo_settings(demo, folder / "results"))
    run.start()
    run.finish(starts=1)
    assert len(run.lines()) >= 40
    return scenes.result_digest(run.paths)


@pytest.fixture
def run(tmp_path: Path, demo: Path, cluster: Slurm) -> Iterator[Run]:
    """The reduced demo, ready to start on the cluster."""
    run = Run(
        tmp_path, profile(tmp_path / "slurm", "slurm"), demo_settings(demo, tmp_path / "results")
    )
    yield run
    run.end()


@pytest.fixture
def lsf(tmp_path: Path) -> dict[str, str]:
    """Environment in which LSF's commands speak to the SLURM."""
    return lsf_on_slurm.install(tmp_path / "lsf-home")
