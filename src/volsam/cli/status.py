"""`volsam status`: how far every sample and stage is, what failed and why, and what it cost so far."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from volsam.blocks.lease import holder
from volsam.blocks.ledger import lines
from volsam.blocks.state import duration, read_state
from volsam.errors import VolsamError
from volsam.paths import SamplePaths
from volsam.stages import STAGES


@dataclass(frozen=True)
class StageStatus:
    """One line of the table.

    Attributes
    ----------
    sample, stage : str
    state : str
        ``done``, ``running``, ``failed`` or ``stopped`` (its driver is gone; the same command goes on).
    blocks, done : int
        Blocks in all, and those in the ledger.
    running : list of str
        Blocks in flight.
    rate : float or None
        Blocks per second of the run that is on.
    left : float or None
        Seconds to the end of the stage at this rate.
    gpu_hours : float
        Time of its blocks on GPUs.
    reasons : list of str
        Why it failed, or why blocks are tried again.
    """

    sample: str
    stage: str
    state: str
    blocks: int
    done: int
    running: list[str]
    rate: float | None
    left: float | None
    gpu_hours: float
    reasons: list[str]


def statuses(results: Path) -> Iterator[StageStatus]:
    """Status of every stage that has begun, sample by sample.

    Raises
    ------
    VolsamError
        If there are no results of volsam.
    """
    samples = sorted(path.parent.name for path in results.glob("*/.volsam"))
    if not samples:
        raise VolsamError(f"There are no samples in {results}; name a results folder.")
    for sample in samples:
        paths = SamplePaths(str(results), sample)
        held = holder(paths.work / "lease.json") is not None
        for stage in STAGES:
            found = _status(paths, stage, held)
            if found:
                yield found


def _status(paths: SamplePaths, stage: str, held: bool) -> StageStatus | None:
    state = read_state(paths, stage)
    done, gpu_seconds = 0, 0.0
    for record in lines(paths.ledger(stage)):
        done += 1
        gpu_seconds += record.get("seconds", 0.0) * record.get("gpus", 0)
    if not state and not done:
        return None
    kind = str(state.get("state", "done"))
    if kind == "running" and not held:
        kind = "stopped"
    blocks = int(state.get("blocks") or done)
    rate = left = None
    if kind == "running":
        now = min(time.time(), float(state.get("updated", 0)) + 60)
        fresh = done - int(state.get("first", 0))
        rate = fresh / max(now - float(state["started"]), 1e-9)
        left = (blocks - done) / rate if rate else None
    reasons = [str(state["error"])] if kind == "failed" and state.get("error") else []
    if kind == "running":
        reasons += [f"block {b}: {r[-1]}" for b, r in state.get("failures", {}).items() if r]
    return StageStatus(
        sample=paths.sample,
        stage=stage,
        state=kind,
        blocks=max(blocks, done),
        done=done,
        running=list(state.get("running", [])) if kind == "running" else [],
        rate=rate,
        left=left,
        gpu_hours=gpu_seconds / 3600,
        reasons=reasons,
    )


def print_status(results: Path, failures_only: bool = False, expected: Iterable[str] = ()) -> int:
    """Print the table, samples that have not begun at its end; returns how many stages failed."""
    failed = 0
    total = 0.0
    header = ("sample", "stage", "state", "blocks", "running", "blocks/s", "left", "GPU-h")
    rows: list[tuple[str, ...]] = [header]
    notes = []
    waiting = set(expected)
    for s in statuses(results):
        waiting.discard(s.sample)
        failed += s.state == "failed"
        total += s.gpu_hours
        notes += [f"{s.sample}, {s.stage} {s.state}: {reason}" for reason in s.reasons]
        if failures_only:
            continue
        rows.append(
            (
                s.sample,
                s.stage,
                s.state,
                f"{s.done}/{s.blocks}",
                str(len(s.running)) if s.running else "",
                f"{s.rate:.2f}" if s.rate else "",
                duration(s.left) if s.left is not None else "",
                f"{s.gpu_hours:.3f}" if s.gpu_hours else "",
            )
        )
    if not failures_only:
        rows += [(sample, "", "waiting", *[""] * 5) for sample in sorted(waiting)]
    if len(rows) > 1:
        widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
        for row in rows:
            print("  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)).rstrip())
        if total:
            print(f"{total:.3f} GPU-hours so far")
    for note in notes:
        print(note)
    return failed
