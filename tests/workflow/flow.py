"""Snakemake on tiny volumes, in a folder of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import scenes
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]


class Workflow:
    """A working folder with a configuration, and `snakemake` run in it as a user would."""

    def __init__(self, folder: Path, data: dict[str, Any]) -> None:
        self.folder, self.data = folder, data
        self.paths = scenes.SamplePaths(data["results"], scenes.SAMPLE)
        self.processes: list[subprocess.Popen[str]] = []
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def config(self) -> Path:
        """The configuration as it is now."""
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(self.data))
        return path

    def start(self, *arguments: str, cluster: str = "inline") -> subprocess.Popen[str]:
        """Start Snakemake; its output goes to one file per run."""
        command = [
            *(sys.executable, "-m", "snakemake"),
            *("--snakefile", str(REPOSITORY / "workflow" / "Snakefile")),
            *("--workflow-profile", str(REPOSITORY / "profiles" / "local")),
            *("--configfile", str(self.config)),
            *("--cores", "2", "--config", f"cluster={cluster}", *arguments),
        ]
        return self.start_command(command)

    def start_command(self, command: list[str]) -> subprocess.Popen[str]:
        with (self.folder / f"run{len(self.processes)}.txt").open("w") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT, text=True
            )
        self.processes.append(process)
        return process

    def log(self, number: int = -1) -> str:
        """What a run said."""
        number %= len(self.processes)
        return (self.folder / f"run{number}.txt").read_text()

    def run(self, *arguments: str, cluster: str = "inline") -> list[str]:
        """Run to the end; returns the stages that ran, in order."""
        process = self.start(*arguments, cluster=cluster)
        process.wait(timeout=800)
        assert process.returncode == 0, self.log()
        return self.stages_run()

    def stages_run(self, number: int = -1) -> list[str]:
        """Stages whose jobs a run started, by their messages."""
        suffix = f" {scenes.SAMPLE}"
        return [
            line.split()[-2]
            for line in self.log(number).splitlines()
            if line.startswith("Job ") and line.endswith(suffix)
        ]

    def marker(self, stage: str) -> dict[str, Any]:
        """Marker of a finished stage."""
        marker: dict[str, Any] = json.loads(self.paths.marker(stage).read_text())
        return marker

    def end(self) -> None:
        """Kill what is left of the runs of this test."""
        for process in self.processes:
            if process.poll() is None:
                for child in [*psutil.Process(process.pid).children(recursive=True)]:
                    with contextlib.suppress(psutil.NoSuchProcess):  # it ended with its parent
                        child.kill()
                process.kill()
                process.wait()
