"""Thousands of blocks and dozens of workers: the driver's memory stays, ledger and status stay usable."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_five_thousand_blocks_on_64_workers(tmp_path: Path) -> None:
    """The benchmark `scaling`, shorter; times are not asserted."""
    command = [sys.executable, "-m", "benchmarks.scaling", str(tmp_path), "5000"]
    subprocess.run(command, check=True, cwd=REPOSITORY, timeout=500)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["curve"][-1][0] == 5000
    assert found["last_mb"] < 1.15 * found["first_mb"]
    lines = (tmp_path / "results/a/.volsam/ledger/segment.jsonl").read_text().splitlines()
    assert len({json.loads(line)["block"] for line in lines[1:]}) == 5000
