"""Segment, correct what is suggested, train, promote, segment again: the rest gets better."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_three_suggested_corrections_make_the_rest_better(tmp_path: Path) -> None:
    """The benchmark `loop` with one seed, without the comparison with crops at random."""
    command = [sys.executable, "-m", "benchmarks.loop", str(tmp_path), "--arms", "suggested"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=1100)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name in ("mSA", "SA50"):
        assert found["suggested"][name] > found["before"][name], found
    home = tmp_path / "suggested"
    assert len([*(home / "annotations").glob("*.ome.zarr")]) == 3
    promoted = json.loads((home / "models" / "mine" / "promoted.json").read_text())
    assert promoted["version"] == 1
    assert (home / "models" / "mine" / "1" / "report.html").is_file()
