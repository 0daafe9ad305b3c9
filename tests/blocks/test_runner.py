"""The runner: retries with their reasons, resumption, and what a dying worker costs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from toy import Toy

from volsam.blocks.ledger import read
from volsam.blocks.runner import run_stage
from volsam.errors import VolsamError


def records(stage: Toy) -> dict[str, dict[str, Any]]:
    return read(stage.paths.ledger(stage.name))[1]


def test_every_block_once_with_a_line(tmp_path: Path) -> None:
    stage = Toy(tmp_path)
    marker = run_stage(stage, cluster="inline")
    assert set(records(stage)) == {block.id for block in stage.blocks()}
    line = records(stage)["0:3"]
    assert {"block", "seconds", "peak_mb", "host", "pid", "bytes"} <= set(line)
    assert "retries" not in line
    assert sorted(marker["outputs"]["blocks"]) == sorted(block.id for block in stage.blocks())
    assert marker["blocks"] == 6
    assert marker["resumed_blocks"] == 0
    assert json.loads(stage.paths.marker("segment").read_text()) == json.loads(json.dumps(marker))
    assert not (stage.paths.work / "lease.json").exists()


def test_second_run_computes_nothing(tmp_path: Path) -> None:
    run_stage(Toy(tmp_path), cluster="inline")
    before = records(Toy(tmp_path))
    marker = run_stage(Toy(tmp_path), cluster="inline")
    assert marker["resumed_blocks"] == 6
    assert records(Toy(tmp_path)) == before
    assert all(len(Toy(tmp_path).tries(block)) == 1 for block in before)


def test_other_settings_start_anew(tmp_path: Path) -> None:
    run_stage(Toy(tmp_path), cluster="inline")
    marker = run_stage(Toy(tmp_path, settings="other"), cluster="inline")
    assert marker["resumed_blocks"] == 0


def test_retries_keep_their_reasons(tmp_path: Path) -> None:
    stage = Toy(tmp_path, faults={"0:2": ["first", "second\nline"]})
    run_stage(stage, cluster="inline")
    line = records(stage)["0:2"]
    assert line["retries"] == 2
    assert line["reasons"] == ["ValueError: first", "ValueError: second line"]
    assert "retries" not in records(stage)["0:1"]


def test_out_of_memory_halves_the_batch(tmp_path: Path) -> None:
    stage = Toy(tmp_path, faults={"0:0": ["memory", "memory"]})
    run_stage(stage, cluster="inline")
    assert [batch for _, _, batch, _ in stage.tries("0:0")] == ["None", "4", "2"]
    assert records(stage)["0:0"]["reasons"] == ["MemoryError: no room"] * 2
    assert stage.tries("0:1")[0][2] == "None"


def test_error_of_the_user_is_not_retried(tmp_path: Path) -> None:
    stage = Toy(tmp_path, faults={"0:3": ["user"]})
    with pytest.raises(VolsamError, match="input is bad"):
        run_stage(stage, cluster="inline")
    assert len(stage.tries("0:3")) == 1


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_permanent_failure_keeps_finished_blocks(tmp_path: Path, cluster: str) -> None:
    stage = Toy(tmp_path, faults={"0:4": ["bad"] * 9})
    with pytest.raises(VolsamError, match=r"Block 0:4 of stage segment.*3 times.*ValueError: bad"):
        run_stage(stage, cluster=cluster)
    done = records(stage)
    assert len(stage.tries("0:4")) == 3
    assert {"0:0", "0:1"} <= set(done)
    assert "0:4" not in done
    assert not stage.paths.marker("segment").exists()
    mended = Toy(tmp_path)
    marker = run_stage(mended, cluster="inline")
    assert marker["resumed_blocks"] == len(done)
    assert all(records(mended)[block] == line for block, line in done.items())


def test_no_retries_wanted(tmp_path: Path) -> None:
    stage = Toy(tmp_path, faults={"0:0": ["bad"]})
    with pytest.raises(VolsamError, match="1 times"):
        run_stage(stage, cluster="inline", retries=0)


def test_single_blocks_need_no_workers(tmp_path: Path) -> None:
    stage = Toy(tmp_path, count=1, phases=3)
    run_stage(stage, cluster="local", workers=2)
    assert {stage.tries(b.id)[0][0] for b in stage.blocks()} == {str(os.getpid())}


def test_phases_are_barriers(tmp_path: Path) -> None:
    stage = Toy(tmp_path, phases=3)
    stage.blocks = lambda: sorted(Toy.blocks(stage), key=lambda b: b.index)  # type: ignore[method-assign]
    run_stage(stage, cluster="inline")
    began = {b.id: float(stage.tries(b.id)[0][3]) for b in stage.blocks()}
    for phase in (1, 2):
        last = max(t for block, t in began.items() if block.startswith(f"{phase - 1}:"))
        assert last <= min(t for block, t in began.items() if block.startswith(f"{phase}:"))


def test_unknown_cluster(tmp_path: Path) -> None:
    with pytest.raises(VolsamError, match="'moon' is unknown"):
        run_stage(Toy(tmp_path), cluster="moon")


@pytest.mark.timeout(200)
def test_dask_blocks_retries_and_killed_workers(tmp_path: Path) -> None:
    """One cluster for all: starting one takes seconds."""
    faults = {"0:3": ["kill"], "0:7": ["odd"], "0:9": ["memory"]}
    stage = Toy(tmp_path, 14, faults, seconds=0.15)
    marker = run_stage(stage, cluster="local", workers=2)
    done = records(stage)
    assert sorted(marker["outputs"]["blocks"]) == sorted(block.id for block in stage.blocks())
    assert len(done) == 14
    assert done["0:3"]["reasons"] == ["its worker was killed"]
    assert done["0:7"]["reasons"] == ["ValueError: odd"]
    assert done["0:9"]["reasons"] == ["MemoryError: no room"]
    assert stage.tries("0:9")[1][2] == "4"
    tries = {block: len(stage.tries(block)) for block in done}
    # With a worker goes at most one block that it has finished and the driver not yet recorded.
    lost = {block for block, n in tries.items() if n > 1} - set(faults)
    assert len(lost) <= 1
    assert tries == {block: 2 if block in lost | set(faults) else 1 for block in done}
    # A block that waited on the killed worker begins elsewhere; it was never lost.
    again = {b for b, line in done.items() if line.get("retries")}
    assert again - lost - set(faults) <= {"0:4", "0:5"}
    assert len({line["pid"] for line in done.values()}) in (2, 3)
    path = stage.paths.ledger("segment")
    assert len(path.read_text().splitlines()) == 15


@pytest.mark.timeout(200)
def test_window_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver asks for a block only when it has room for it."""
    from distributed import Client

    unfinished: list[int] = []
    submit = Client.submit

    def counted(self: Client, *arguments: Any, **options: Any) -> Any:
        future = submit(self, *arguments, **options)
        alive = sum(f.status == "pending" for f in list(self.futures.values()))
        unfinished.append(alive)
        return future

    monkeypatch.setattr(Client, "submit", counted)
    run_stage(Toy(tmp_path, 30), cluster="local", workers=1)
    assert len(unfinished) == 30
    assert max(unfinished) <= 1
