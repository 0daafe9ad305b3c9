"""SIGKILL to worker, driver and Snakemake at random moments, then the same command again.

What must hold afterwards: the result has the bytes of a run that nobody killed, a block in the ledger
was never computed again, and nothing half-written is left.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import scenes
from flow import Workflow

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

WORKERS = 2
KILLS = 10  # in each of the three tests
PATIENCE = 400.0


def descendants(results: str) -> list[psutil.Process]:
    """Drivers working on these results, whoever started them."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "volsam" in line and "run" in line and any(results in part for part in line):
            found.append(process)
    return found


def workers_of(driver: psutil.Process) -> list[psutil.Process]:
    """Dask workers: spawned children that are no resource tracker."""
    try:
        children = driver.children(recursive=True)
        return [c for c in children if any("spawn_main" in part for part in c.cmdline())]
    except psutil.Error:
        return []


def wait_gone(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


class Killer:
    """Kills, and remembers every ledger line that was ever seen."""

    def __init__(self, flow: Workflow, seed: int) -> None:
        self.flow, self.random = flow, random.Random(seed)
        self.seen: dict[str, dict[str, Any]] = {}
        self.kills: list[str] = []
        self.unrecorded = 0
        self.started = time.monotonic()

    def look(self) -> int:
        """Remember the ledger; no line of it may ever change. Returns the number of lines."""
        lines = scenes.ledger_lines(self.flow.paths)
        for block, line in self.seen.items():
            assert lines.get(block) == line, f"{block} was computed again"
        self.seen = lines
        return len(lines)

    def moment(self, process: Any) -> None:
        """Wait for a random moment: some seconds, or some blocks from now, in its start or middle."""
        seconds, blocks = self.random.uniform(0, 8), self.random.randint(1, 8)
        until_blocks = self.random.random() < 0.75
        begun, before = time.monotonic(), self.look()
        while process.poll() is None:
            time.sleep(0.02)
            passed = time.monotonic() - begun
            if passed > (60 if until_blocks else seconds):
                return
            if until_blocks and self.look() >= before + blocks:
                return

    def kill(self, victim: psutil.Process, what: str) -> bool:
        """SIGKILL; False if it was gone already."""
        try:
            os.kill(victim.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        self.look()
        passed = time.monotonic() - self.started
        where = f"{self.stage_now() or 'the start'}, {len(self.seen)} blocks done"
        self.kills.append(f"{passed:6.1f} s: {what} {victim.pid} in {where}")
        print(self.kills[-1], flush=True)
        return True

    def stage_now(self) -> str:
        """The last stage with a ledger."""
        known = {block.split("/")[0] for block in self.seen}
        return next((stage for stage in reversed(scenes.STAGES) if stage in known), "")


def kill_stage(killer: Killer, stage: str, wanted: int) -> None:
    """Run one stage without Snakemake to success, killing drivers and workers in turn."""
    flow = killer.flow
    command = [sys.executable, "-m", "volsam", "run", stage, "--config", str(flow.config)]
    command += ["--sample", scenes.SAMPLE, "--workers", str(WORKERS)]
    process, killed = flow.start_command(command), 0
    while True:
        if killed < wanted:
            killer.moment(process)
        else:
            process.wait(timeout=PATIENCE)
        if process.poll() is not None:
            killer.look()
            if process.returncode == 0:
                return
            assert process.returncode == -signal.SIGKILL, flow.log()
            process = flow.start_command(command)
            continue
        driver = psutil.Process(process.pid)
        pool = workers_of(driver)
        if len(killer.kills) % 2:
            if pool:
                killed += killer.kill(killer.random.choice(pool), "worker")
        elif killer.kill(driver, "driver"):
            killed += 1
            process.wait()
            assert not wait_gone(pool, 30), "workers outlive their driver"
            killer.look()
            killer.unrecorded = max(killer.unrecorded, unrecorded(flow))


def kill_snakemake(killer: Killer, wanted: int) -> None:
    """Run the workflow to success, killing Snakemake. Its driver lives on and keeps the lease."""
    flow = killer.flow
    process = flow.start(cluster="local")
    while True:
        if len(killer.kills) < wanted:
            killer.moment(process)
        else:
            process.wait(timeout=PATIENCE)
        if process.poll() is not None:
            assert process.returncode == 0, flow.log()
            return
        if killer.kill(psutil.Process(process.pid), "snakemake"):
            process.wait()
            process = flow.start(cluster="local")


def unrecorded(flow: Workflow) -> int:
    """Blocks that are on disk but not in the ledger."""
    lines = scenes.ledger_lines(flow.paths)
    count = 0
    for stage in ("segment", "overlap", "measure"):
        for path in flow.paths.tables(stage).glob("*.parquet"):
            count += f"{stage}/{path.stem.replace('_', ':')}" not in lines
    return count


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Configuration of a volume of many small blocks."""
    folder = tmp_path_factory.mktemp("scene")
    scenes.write_scene(folder, scenes.cells((8, 72, 72), 40, (7, 10), 5))
    return scenes.settings(
        folder,
        folder / "expected",
        halo=10,
        compute={"block_slices": 1, "block_tiles": 1},
        output={"chunk": [2, 24, 24], "shard": [2, 24, 24]},
    )


@pytest.fixture(scope="module")
def expected(scene: dict[str, Any]) -> dict[str, str]:
    """What a run leaves that nobody kills."""
    return scenes.result_digest(scenes.run_pipeline(scene))


@pytest.fixture(scope="module")
def network_scene(scene: dict[str, Any]) -> dict[str, Any]:
    """The same volume for the embedded model, fp32 on CPU."""
    results = Path(scene["results"]).with_name("expected_of_network")
    return {
        **scene,
        "results": str(results),
        "model": "embedded",
        "compute": {**scene["compute"], "device": "cpu", "precision": "fp32"},
    }


def check(killer: Killer, expected: dict[str, str]) -> None:
    """What must hold at the end."""
    flow = killer.flow
    killer.look()
    assert scenes.result_digest(flow.paths) == expected
    assert not [*flow.folder.rglob("*.partial")]
    for ledger in (flow.paths.work / "ledger").glob("*.jsonl"):
        blocks = [json.loads(line)["block"] for line in ledger.read_text().splitlines()[1:]]
        assert len(blocks) == len(set(blocks))
    retried = [b for b, line in killer.seen.items() if "its worker was killed" in str(line)]
    print(f"{len(killer.kills)} kills, {len(killer.seen)} blocks; tried again: {retried}")


def rounds(
    scene: dict[str, Any], expected: dict[str, str], folder: Path, kill: Callable[[Killer], None]
) -> None:
    """Whole runs with kills, on fresh results each, until there were enough kills."""
    kills = 0
    for number in range(4):
        results = folder / str(number) / "results"
        flow = Workflow(results.parent, {**scene, "results": str(results)})
        killer = Killer(flow, number)
        try:
            kill(killer)
        finally:
            flow.end()
            for driver in descendants(str(results)):
                driver.kill()
        check(killer, expected)
        kills += len(killer.kills)
        if kills >= KILLS:
            return
    pytest.fail(f"only {kills} kills found something to kill")


def test_workers_and_drivers(
    scene: dict[str, Any], expected: dict[str, str], tmp_path: Path
) -> None:
    def kill(killer: Killer) -> None:
        scenes.run_pipeline(killer.flow.data, stages=("ingest", "plan"))
        kill_stage(killer, "segment", 6)
        kill_stage(killer, "overlap", 6)
        scenes.run_pipeline(killer.flow.data, stages=("partition",))
        kill_stage(killer, "label", 5)
        kill_stage(killer, "measure", 3)
        print(f"on disk but not in the ledger when a driver died: at most {killer.unrecorded}")
        # A worker computes one block and may have another whose line is on its way.
        assert killer.unrecorded <= WORKERS

    rounds(scene, expected, tmp_path, kill)


def test_snakemake(scene: dict[str, Any], expected: dict[str, str], tmp_path: Path) -> None:
    rounds(scene, expected, tmp_path, lambda killer: kill_snakemake(killer, KILLS))


def test_with_a_network(network_scene: dict[str, Any], tmp_path: Path) -> None:
    """Kills while the network runs, then of Snakemake on the same results."""
    expected = scenes.result_digest(scenes.run_pipeline(network_scene))
    assert scenes.read_labels(scenes.SamplePaths(network_scene["results"], scenes.SAMPLE)).max() > 4

    def kill(killer: Killer) -> None:
        scenes.run_pipeline(killer.flow.data, stages=("ingest", "plan"))
        kill_stage(killer, "segment", 7)
        assert killer.unrecorded <= WORKERS
        kill_snakemake(killer, KILLS)

    rounds(network_scene, expected, tmp_path, kill)
