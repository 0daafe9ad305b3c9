"""A driver whose blocks write down the environment of their worker; the test sets PYTHONPATH."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from toy import Toy

from volsam.blocks.runner import run_stage
from volsam.blocks.stage import Block


class Environments(Toy):
    """Its ledger lines hold the environment of the worker."""

    def write(self, block: Block, result: str) -> dict[str, Any]:
        names = ("SLURM", "CUDA", "OMP")
        return {"environment": {k: v for k, v in os.environ.items() if k.startswith(names)}}

    def finalize(self, records: Any) -> dict[str, Any]:
        return {"environments": [record["environment"] for record in records]}


def main() -> None:
    """Run twelve blocks and write what driver and workers see."""
    folder, site = Path(sys.argv[1]), sys.argv[2]
    mine = {k: v for k, v in os.environ.items() if k.startswith(("SLURM", "CUDA"))}
    stage = Environments(folder / "results", 12, seconds=0.5)
    marker = run_stage(stage, cluster=site)
    found = marker["outputs"]["environments"]
    (folder / "environments.json").write_text(json.dumps([mine, *found]))


if __name__ == "__main__":
    from environment_driver import main as imported  # blocks must come from an importable module

    imported()
