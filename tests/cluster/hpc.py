"""A run of the reduced demo on the test cluster, and what can be done to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import scenes
import yaml

from volsam.paths import SamplePaths

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
SHAPE = (14, 300, 300)
SAMPLE = "demo"


def demo_settings(folder: Path, results: Path) -> dict[str, Any]:
    """Configuration of the reduced demo: many small blocks, everything that fixes bytes stated."""
    return {
        "results": str(results),
        "model": "embedded",
        "samples": {
            SAMPLE: {
                "image": str(folder / "image.ome.tif"),
                "axes": "zyx",
                "voxel_size": {"z": 2.0, "y": 0.5, "x": 0.5},
            }
        },
        "tiles": {"size": 80, "halo": 24},
        "compute": {"block_slices": 1, "block_tiles": 2, "device": "cpu", "precision": "fp32"},
        "output": {"chunk": [4, 64, 64], "shard": [4, 128, 128]},
    }


class Run:
    """A working folder in which one `snakemake` command is run, again and again if need be."""

    def __init__(self, folder: Path, profile: Path, data: dict[str, Any]) -> None:
        self.folder, self.profile = folder, profile
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "config.yaml"
        self.config.write_text(yaml.safe_dump(data))
        self.paths = SamplePaths(data["results"], next(iter(data["samples"])))
        self.results = data["results"]
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start the command; its output goes to one file per start."""
        command = [
            *(sys.executable, str(HERE / "fast_snakemake.py")),
            *("--snakefile", str(REPOSITORY / "workflow" / "Snakefile")),
            *("--workflow-profile", str(self.profile), "--configfile", str(self.config)),
        ]
        log = (self.folder / f"run{len(self.processes)}.txt").open("wb")
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        log.close()
        self.processes.append(process)
        return process

    def log(self) -> str:
        """What the last start said, and what its stages said."""
        texts = [(self.folder / f"run{len(self.processes) - 1}.txt").read_text()[-4000:]]
        texts += [p.read_text()[-2000:] for p in sorted((self.paths.work / "logs").glob("*.log"))]
        return "\n".join(texts)

    def finish(self, starts: int = 3, patience: float = 300) -> int:
        """Wait for the command, and run it again until it succeeds; how many starts it took."""
        while True:
            code = self.processes[-1].wait(timeout=patience)
            if code == 0:
                return len(self.processes)
            assert len(self.processes) < starts, self.log()
            self.start()

    def lines(self, stage: str = "segment") -> dict[str, dict[str, Any]]:
        """Ledger lines of a stage by block."""
        lines = scenes.ledger_lines(self.paths)
        return {k.split("/")[1]: v for k, v in lines.items() if k.startswith(f"{stage}/")}

    def reach(self, blocks: int, stage: str = "segment", patience: float = 180) -> None:
        """Wait until a stage has that many blocks done."""
        wait_for(lambda: len(self.lines(stage)) >= blocks, patience, self.log)

    def state(self, stage: str = "segment") -> dict[str, Any]:
        """The state of a stage."""
        path = self.paths.state(stage)
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def driver(self) -> psutil.Process:
        """The process that drives the stage at work."""
        lease = json.loads((self.paths.work / "lease.json").read_text())
        return psutil.Process(lease["pid"])

    def end(self) -> None:
        """Kill what is left."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_for(
    condition: Callable[[], object], patience: float, say: Callable[[], str] = lambda: ""
) -> float:
    """Seconds until a condition held."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < patience, say()
        time.sleep(0.2)
    return time.monotonic() - started


def worker_processes(name: str = "volsam-") -> list[psutil.Process]:
    """Dask workers of the test cluster on this machine."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "distributed.cli.dask_worker" in line and any(name in part for part in line):
            found.append(process)
    return found
