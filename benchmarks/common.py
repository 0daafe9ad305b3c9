"""What the benchmarks share: where data and the peer are, and how a table is printed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = REPOSITORY.parent / "shared" / "data"
SNAKEMAKE = Path(sys.executable).with_name("snakemake")


class Unavailable(Exception):
    """A benchmark cannot run here; the message says why."""


def peer() -> str:
    """Python of an environment with micro-sam, from ``VOLSAM_PEER``."""
    python = os.environ.get("VOLSAM_PEER", "")
    if not Path(python).is_file():
        raise Unavailable(
            "set VOLSAM_PEER to the python of an environment with micro-sam, see docs/results.md"
        )
    return python


def data(name: str) -> Path:
    """A file of the shared data."""
    path = DATA / name
    if not path.exists():
        raise Unavailable(f"no {path}")
    return path


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
