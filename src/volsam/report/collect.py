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

from volsam.blocks.ledger import read as read_ledger
from volsam.stages import STAGES

Record = Mapping[str, Any]


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
        _, records = read_ledger(work / "ledger" / f"{name}.jsonl")
        if marker is not None:
            run.markers[name] = marker
        if state := _json(work / "state" / f"{name}.json"):
            run.states[name] = state
        if marker is not None or records:
            run.stages.append(summarise(name, marker, records.values()))
        for warning in run.outputs(name).get("warnings") or ():
            if str(warning) not in run.warnings:
                run.warnings.append(str(warning))
    return run


def summarise(
    name: str, marker: Mapping[str, Any] | None, records: Iterable[Record]
) -> StageSummary:
    """Sum up one stage from its marker and its ledger lines."""
    lines = list(records)
    worker = sum(_number(r, "seconds") for r in lines)
    peaks = [_number(r, "peak_mb") for r in lines if r.get("peak_mb")]
    reasons = Counter(str(reason) for r in lines for reason in r.get("reasons") or ())
    of_marker = marker or {}
    return StageSummary(
        name=name,
        finished=marker is not None,
        blocks=int(of_marker.get("blocks") or len(lines)),
        resumed=int(of_marker.get("resumed_blocks") or 0),
        wall=float(of_marker["seconds"]) if of_marker.get("seconds") is not None else None,
        worker=worker,
        cpu=sum(_number(r, "cpu_seconds") for r in lines),
        rate=_rate(lines, worker),
        peak_mb=max(peaks) if peaks else None,
        hosts=len({r["host"] for r in lines if r.get("host")}),
        workers=len({(r.get("host"), r["pid"]) for r in lines if r.get("pid")}),
        retries=sum(int(_number(r, "retries")) for r in lines),
        reasons=reasons.most_common(),
    )


def _rate(records: list[Record], seconds: float) -> str:
    if seconds <= 0:
        return ""
    for key, what in (("tiles", "tiles"), ("edges", "edges"), ("objects", "objects")):
        total = sum(_number(r, key) for r in records)
        if total:
            return f"{_short(total / seconds)} {what}/s"
    return f"{_short(len(records) / seconds)} blocks/s" if len(records) > 1 else ""


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
