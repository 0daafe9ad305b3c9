"""The lease: one holder at a time, told to those who wait, taken over from the dead."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from volsam.blocks import lease as module
from volsam.blocks.lease import holder, lease
from volsam.errors import VolsamError

HOLD = """
import sys, time
from pathlib import Path
from volsam.blocks.lease import lease
with lease(Path(sys.argv[1]), "stage segment of sample a"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""

# Each process enters many times and would see another one inside by its file.
RACE = """
import sys
from pathlib import Path
from volsam.blocks.lease import lease
path, inside = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(4):
    with lease(path, "race", wait=10):
        with inside.open("x"):
            pass
        inside.unlink()
print("fine")
"""


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_exists_while_held(tmp_path: Path) -> None:
    path = tmp_path / "work" / "lease.json"
    with lease(path, "stage segment of sample a"):
        entry = holder(path)
        assert entry is not None
        assert entry["pid"] == os.getpid()
        assert entry["purpose"] == "stage segment of sample a"
    assert not path.exists()
    assert holder(path) is None


def test_given_back_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    with pytest.raises(ValueError, match="boom"), lease(path, "x"):
        raise ValueError("boom")
    with lease(path, "y", wait=0):
        pass


def test_second_run_says_who_holds_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a" / ".volsam" / "lease.json"
    other = start(HOLD, str(path), "60")
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        expected = rf"a are in use by stage segment of sample a \(process {other.pid} on .*wait"
        with pytest.raises(VolsamError, match=expected), lease(path, "mine", wait=0.2):
            pytest.fail("two holders")
        assert (
            f"waiting for stage segment of sample a (process {other.pid}" in capfd.readouterr().err
        )
    finally:
        other.kill()
        other.wait()
    # Killed: its lease is stale and taken over at once.
    assert path.exists()
    with lease(path, "mine", wait=0.2):
        entry = holder(path)
        assert entry is not None
        assert entry["pid"] == os.getpid()


def test_second_run_waits(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    other = start(HOLD, str(path), "0.5")
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with lease(path, "mine", wait=10):
        entry = holder(path)
        assert entry is not None
        assert entry["pid"] == os.getpid()
    assert other.wait(timeout=10) == 0


@pytest.mark.timeout(120)
def test_racing_processes_hold_it_in_turn(tmp_path: Path) -> None:
    # A stale lease lies there, so all find it free to take over at the start.
    path, inside = tmp_path / "lease.json", tmp_path / "inside"
    dead = {"host": socket.gethostname(), "pid": 2**22 - 1, "born": 0.0, "purpose": "x"}
    path.write_text(json.dumps({**dead, "token": "t", "since": "then"}))
    racers = [start(RACE, str(path), str(inside)) for _ in range(3)]
    for racer in racers:
        out, error = racer.communicate(timeout=100)
        assert out == "fine\n", error
    assert not path.exists()


def test_reused_process_id_is_not_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    entry = {"host": socket.gethostname(), "pid": os.getpid(), "born": 1.0, "purpose": "x"}
    path.write_text(json.dumps({**entry, "token": "t", "since": "then"}))
    assert holder(path) is None


def test_other_host_holds_it_until_it_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lease.json"
    entry = {"host": "elsewhere", "pid": 1, "born": 1.0, "purpose": "x"}
    path.write_text(json.dumps({**entry, "token": "t", "since": "then"}))
    with pytest.raises(VolsamError, match="process 1 on elsewhere"), lease(path, "y", wait=0):
        pytest.fail("two holders")
    late = time.time() - module.EXPIRY - 1
    os.utime(path, (late, late))
    with lease(path, "y", wait=0):
        pass


def test_renewed_while_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEWAL", 0.05)
    path = tmp_path / "lease.json"
    with lease(path, "x"):
        old = time.time() - 1000
        os.utime(path, (old, old))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime < old + 500 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert path.stat().st_mtime > old + 500


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_torn_lease_is_free(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lease.json"
    path.write_text(text)
    with lease(path, "x", wait=0):
        pass


def test_worker_jobs_of_a_dead_holder_are_ended_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lease.json"
    with lease(path, "first") as held:
        held.jobs("slurm")
        left = path.read_bytes()
        entry = json.loads(left)
        assert entry["jobs"] == [["slurm", held.name]]
    dead = {**entry, "host": "elsewhere"}
    path.write_text(json.dumps(dead))
    os.utime(path, (1, 1))
    ended: list[tuple[str, str]] = []

    def end(kind: str, name: str) -> int:
        # They stand in our entry until they are gone, lest we die on the way, too.
        assert json.loads(path.read_text())["jobs"] == [[kind, name]]
        ended.append((kind, name))
        return 1

    monkeypatch.setattr(module, "end_jobs", end)
    with lease(path, "second") as again:
        assert ended == [("slurm", entry["jobs"][0][1])]
        again.jobs("slurm")
        assert json.loads(path.read_text())["jobs"] == [["slurm", again.name]]


def test_holder_that_was_taken_over_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEWAL", 0.05)
    path = tmp_path / "work" / "lease.json"
    with lease(path, "sleeper") as held:
        held.check()
        path.write_text(path.read_text().replace(held.token, "another"))
        deadline = time.monotonic() + 10
        while not held.lost and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(VolsamError, match="Another run took over"):
            held.check()
    assert path.exists()  # it is the other one's
