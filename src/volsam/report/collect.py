"""What a run left behind: markers and ledgers, summed up per stage.

Everything is optional: a stage that has not run, a missing ledger or a torn file leaves a gap in
the report and never stops it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from volsam.blocks.ledger import lines
from volsam.stages import STAGES

Record = Mapping[str, Any]

_SUMMED = ("seconds", "cpu_seconds", "retries", "tiles", "edges", "objects")


@dataclass(frozen=True)
class StageSummary:
    """One row of the stage table.

    Attributes
    ----------
    name : str
    finished : bool
        Whether the stage left its marker.
    blocks, resumed : int
        Blocks of the stage, and those of them that an earlier run had done already.
    wall : float or None
        Seconds of the (last) run of the stage.
    worker, cpu : float
        Seconds and CPU seconds of all blocks, summed over workers and runs.
    rate : str
        What was done per second of worker time.
    peak_mb : float or None
        Largest resident memory of a worker, MB.
    hosts, workers : int
        Machines and processes that took part.
    retries : int
        Repeated tries of blocks.
    reasons : list of (str, int)
        Why, and how often.
    """

    name: str
    finished: bool
    blocks: int
    resumed: int
    wall: float | None
    worker: float
    cpu: float
    rate: str
    peak_mb: float | None
    hosts: int
    workers: int
    retries: int
    reasons: list[tuple[str, int]]


@dataclass(frozen=True)
class Run:
    """Markers and stage summaries of one sample.

    Attributes
    ----------
    markers : dict
        Marker of each finished stage, by name.
    stages : list of StageSummary
        Stages that ran, in the order of the flow.
    warnings : list of str
        Sentences that the stages left for the user.
    states : dict
        State of each stage, by name: where its blocks ran.
    """

    markers: dict[str, dict[str, Any]] = field(default_factory=dict)
    stages: list[StageSummary] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    states: dict[str, dict[str, Any]] = field(default_factory=dict)

    def outputs(self, stage: str) -> dict[str, Any]:
        """Outputs in a stage's marker; empty where there is none."""
        outputs = self.markers.get(stage, {}).get("outputs")
        return outputs if isinstance(outputs, dict) else {}


def collect(folder: Path) -> Run:
    """Read the work folder of a sample.

    Parameters
    ----------
    folder : Path
        ``<results>/<sample>``.

    Returns
    -------
    Run
        Empty where nothing has run.
    """
    work = folder / ".volsam"
    run = Run()
    for name in STAGES:
        marker = _json(work / f"{name}.json")
        stage = summarise(name, marker, lines(work / "ledger" / f"{name}.jsonl"))
        if marker is not None:
            run.markers[name] = marker
        if state := _json(work / "state" / f"{name}.json"):
            run.states[name] = state
        if marker is not None or stage.blocks:
            run.stages.append(stage)
        for warning in run.outputs(name).get("warnings") or ():
            if str(warning) not in run.warnings:
                run.warnings.append(str(warning))
    return run


def summarise(
    name: str, marker: Mapping[str, Any] | None, records: Iterable[Record]
) -> StageSummary:
    """Sum up one stage from its marker and its ledger lines, of which one at a time is held."""
    total = dict.fromkeys(_SUMMED, 0.0)
    reasons: Counter[str] = Counter()
    hosts: set[Any] = set()
    workers: set[Any] = set()
    blocks, peak = 0, 0.0
    for r in records:
        blocks += 1
        for key in _SUMMED:
            total[key] += _number(r, key)
        peak = max(peak, _number(r, "peak_mb"))
        reasons.update(str(reason) for reason in r.get("reasons") or ())
        if r.get("host"):
            hosts.add(r["host"])
        if r.get("pid"):
            workers.add((r.get("host"), r["pid"]))
    of_marker = marker or {}
    return StageSummary(
        name=name,
        finished=marker is not None,
        blocks=int(of_marker.get("blocks") or blocks),
        resumed=int(of_marker.get("resumed_blocks") or 0),
        wall=float(of_marker["seconds"]) if of_marker.get("seconds") is not None else None,
        worker=total["seconds"],
        cpu=total["cpu_seconds"],
        rate=_rate(total, blocks),
        peak_mb=peak or None,
        hosts=len(hosts),
        workers=len(workers),
        retries=int(total["retries"]),
        reasons=reasons.most_common(),
    )


def _rate(total: Mapping[str, float], blocks: int) -> str:
    seconds = total["seconds"]
    if seconds <= 0:
        return ""
    for what in ("tiles", "edges", "objects"):
        if total[what]:
            return f"{_short(total[what] / seconds)} {what}/s"
    return f"{_short(blocks / seconds)} blocks/s" if blocks > 1 else ""


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _number(record: Record, key: str) -> float:
    value = record.get(key)
    return float(value) if isinstance(value, (int, float)) else 0.0


def _json(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None
