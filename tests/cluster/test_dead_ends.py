"""What can never work ends with a sentence instead of being tried for ever."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hpc import wait_for
from slurm import Slurm

from profiles import profile
from volsam.blocks.runner import run_stage
from volsam.errors import VolsamError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "blocks"))

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


@pytest.mark.parametrize(
    ("pool", "says"),
    [
        ({"queue": "nowhere"}, "refuses worker jobs .*nvalid partition"),
        ({"memory_gb": 900.0}, "refuses worker jobs .*onfiguration"),
        ({"python": "/bin/false"}, "worker jobs ended without reaching the driver"),
    ],
    ids=["no such queue", "no such node", "no such python"],
)
def test_workers_that_cannot_be(
    cluster: Slurm, tmp_path: Path, pool: dict[str, Any], says: str
) -> None:
    from toy import Toy

    site = profile(tmp_path / "slurm", "slurm", {"cpu": pool}, stages={}) / "cluster.yaml"
    with pytest.raises(VolsamError, match=says) as caught:
        run_stage(Toy(tmp_path / "results"), cluster=str(site))
    assert "\n" not in str(caught.value)
    wait_for(lambda: not cluster.jobs(), 60)


def test_site_file_without_a_network(tmp_path: Path) -> None:
    from toy import Toy

    path = tmp_path / "cluster.yaml"
    path.write_text("kind: slurm\n")
    with pytest.raises(VolsamError, match="Key interface of the site file is missing"):
        run_stage(Toy(tmp_path / "results"), cluster=str(path))
