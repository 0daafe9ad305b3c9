import json
import tracemalloc
from pathlib import Path

import pytest

from volsam.report.collect import collect, summarise


def write_stage(folder: Path, name: str, marker: dict | None, records: list[dict]) -> None:
    work = folder / ".volsam"
    (work / "ledger").mkdir(parents=True, exist_ok=True)
    if marker is not None:
        (work / f"{name}.json").write_text(json.dumps(marker))
    lines = [{"digest": "d"}, *records]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (work / "ledger" / f"{name}.jsonl").write_text(text)


def record(number: int, **more: object) -> dict:
    base = {"block": f"0:{number}", "seconds": 2.0, "cpu_seconds": 1.5, "peak_mb": 100.0 + number}
    return {**base, "host": "a", "pid": 7 + number % 2, **more}


def test_nothing_there(tmp_path: Path) -> None:
    run = collect(tmp_path / "none")
    assert (run.markers, run.stages, run.warnings) == ({}, [], [])
    assert run.outputs("plan") == {}


def test_sums_of_a_stage(tmp_path: Path) -> None:
    marker = {
        "blocks": 3,
        "seconds": 4.0,
        "resumed_blocks": 1,
        "outputs": {"warnings": ["odd", "odd"]},
    }
    retried = {"retries": 2, "reasons": ["MemoryError", "MemoryError"]}
    records = [record(0, tiles=4), record(1, tiles=6, **retried), record(2, tiles=2)]
    write_stage(tmp_path, "segment", marker, records)
    run = collect(tmp_path)
    (stage,) = run.stages
    assert (stage.name, stage.finished, stage.blocks, stage.resumed) == ("segment", True, 3, 1)
    assert (stage.wall, stage.worker, stage.cpu) == (4.0, 6.0, 4.5)
    assert (stage.peak_mb, stage.hosts, stage.workers) == (102.0, 1, 2)
    assert (stage.retries, stage.reasons) == (2, [("MemoryError", 2)])
    assert stage.rate == "2 tiles/s"
    assert run.warnings == ["odd"]


def test_torn_files_and_unfinished_stages(tmp_path: Path) -> None:
    write_stage(tmp_path, "overlap", None, [record(0)])
    write_stage(tmp_path, "plan", {}, [])
    work = tmp_path / ".volsam"
    (work / "plan.json").write_text('{"blocks": 1')
    with (work / "ledger" / "overlap.jsonl").open("a") as file:
        file.write('{"block": "0:1", "sec')
    run = collect(tmp_path)
    assert [(s.name, s.finished, s.blocks) for s in run.stages] == [("overlap", False, 1)]


@pytest.mark.parametrize(
    ("records", "rate"),
    [([], ""), ([record(0)], ""), ([record(0), record(1)], "0.5 blocks/s"),
     ([record(0, edges=4000)], "2,000 edges/s")],
)  # fmt: skip
def test_rate(records: list[dict], rate: str) -> None:
    assert summarise("overlap", {}, records).rate == rate


def test_ledger_lines_are_not_held(tmp_path: Path) -> None:
    """There may be a million, each of a kilobyte in memory."""
    write_stage(tmp_path, "segment", None, [record(n, tiles=1) for n in range(10_000)])
    tracemalloc.start()
    (stage,) = collect(tmp_path).stages
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (stage.blocks, stage.rate) == (10_000, "0.5 tiles/s")
    assert held < 2**20
