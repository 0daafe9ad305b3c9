"""The ledger: what is read as progress, and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from volsam.blocks.ledger import Ledger, read


def write(path: Path, digest: str, blocks: list[str]) -> None:
    with Ledger(path, digest) as ledger:
        if not ledger.resumed:
            ledger.begin()
        for block in blocks:
            ledger.append({"block": block, "seconds": 1.0})


def test_header_and_one_line_per_block(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "segment.jsonl"
    write(path, "d", ["0:0", "0:1"])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {"digest": "d"}
    assert [line["block"] for line in lines[1:]] == ["0:0", "0:1"]
    header, records = read(path)
    assert header == {"digest": "d"}
    assert set(records) == {"0:0", "0:1"}


def test_no_ledger(tmp_path: Path) -> None:
    assert read(tmp_path / "none.jsonl") == (None, {})
    assert not Ledger(tmp_path / "none.jsonl", "d").resumed


def test_resumes_and_appends(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    write(path, "d", ["a"])
    with Ledger(path, "d") as ledger:
        assert ledger.resumed
        assert [record["block"] for record in ledger] == ["a"]
        ledger.append({"block": "b"})
        assert ledger.done == {"a"}  # what earlier runs finished
        assert [record["block"] for record in ledger] == ["a", "b"]
    assert len(path.read_text().splitlines()) == 3


def test_ledger_of_other_settings_is_discarded(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    write(path, "old", ["a", "b"])
    with Ledger(path, "new") as ledger:
        assert not ledger.resumed
        assert not ledger.done
        ledger.begin()
    assert read(path) == ({"digest": "new"}, {})


def test_kill_before_the_output_is_ready_is_no_progress(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    write(path, "old", ["a"])
    with Ledger(path, "new"):
        pass  # killed while the stage was reset: no header
    assert not Ledger(path, "new").resumed
    assert not Ledger(path, "old").resumed


@pytest.mark.parametrize("torn", [b'{"block": "b", "sec', b'{"block": "b"}', b"\0\0\0", b"[1]\n"])
def test_torn_last_line_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "l.jsonl"
    write(path, "d", ["a"])
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert set(read(path)[1]) == {"a"}
    with Ledger(path, "d") as ledger:
        assert ledger.resumed
        assert ledger.done == {"a"}
    assert path.read_bytes() == whole
    write(path, "d", ["b"])
    assert set(read(path)[1]) == {"a", "b"}


def test_every_prefix_is_readable(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    write(path, "d", ["a", "b"])
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        header, records = read(path)
        complete = sum(end <= cut for end in ends)
        assert (header is not None) == (complete >= 1)
        assert len(records) == max(0, complete - 1)


def test_append_needs_an_open_ledger(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="not open"):
        Ledger(tmp_path / "l.jsonl", "d").append({"block": "a"})
