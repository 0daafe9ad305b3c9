"""The repository's own profiles, fitted to the test cluster: queues, memory and times only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]


def profile(
    folder: Path, kind: str, pools: dict[str, dict[str, Any]] | None = None, **keys: Any
) -> Path:
    """A copy of `profiles/<kind>` in `folder`; `pools` and `keys` change its site file."""
    source = REPOSITORY / "profiles" / kind
    folder.mkdir(parents=True, exist_ok=True)
    site = yaml.safe_load((source / "cluster.yaml").read_text())
    site |= {"interface": "lo", "start_seconds": 30, "tls": False} | keys
    for name, pool in site["pools"].items():
        pool |= {"queue": name, "cores": 1, "memory_gb": 1.0, "walltime": "00:10:00", "maximum": 2}
        pool |= (pools or {}).get(name, {})
    (folder / "cluster.yaml").write_text(yaml.safe_dump(site))
    drivers = yaml.safe_load((source / "config.yaml").read_text())
    drivers["default-resources"] = {
        "mem_mb": 900,
        "runtime": 5,
        **(
            {"slurm_partition": "cpu"}
            if kind == "slurm"
            else {"lsf_queue": "cpu", "lsf_project": "t"}
        ),
    }
    del drivers["set-resources"]
    drivers["latency-wait"] = 10
    if kind == "slurm":
        drivers |= {"slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 1}
    drivers["config"] = [f"cluster={folder / 'cluster.yaml'}"]
    (folder / "config.yaml").write_text(yaml.safe_dump(drivers))
    return folder
