"""A stage of trivial blocks that fail on command, importable by Dask workers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from volsam.blocks.stage import Attempt, Block, Job, Stage
from volsam.config import validate
from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.paths import replace


class Toy(Stage[str]):
    """`count` blocks; `faults` says, per block id, what goes wrong in the first tries."""

    name = "segment"
    upstream: tuple[str, ...] = ()
    batch = 8

    def __init__(
        self,
        results: Path,
        count: int = 6,
        faults: dict[str, list[str]] | None = None,
        *,
        settings: str = "s",
        seconds: float = 0.0,
        phases: int = 1,
    ) -> None:
        sample = {"image": "none.tif"}
        super().__init__(Job(validate({"results": str(results), "samples": {"a": sample}}), "a"))
        self.count, self.faults, self.phases = count, faults or {}, phases
        self.text, self.seconds = settings, seconds
        self.inputs = {}
        self.folder = self.paths.tables("toy")

    def settings(self) -> dict[str, Any]:
        return {"text": self.text}

    def blocks(self) -> list[Block]:
        return [
            Block((number,), Box((number,), (number + 1,)), phase)
            for phase in range(self.phases)
            for number in range(self.count)
        ]

    def reset(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            path.unlink()

    def compute(self, block: Block, attempt: Attempt) -> str:
        name = block.id.replace(":", "_")
        tries = self.tries(block.id)
        with (self.folder / f"{name}.tries").open("a") as file:
            file.write(f"{os.getpid()} {attempt.number} {attempt.batch} {time.time()}\n")
        time.sleep(self.seconds)
        faults = self.faults.get(block.id, [])
        fault = faults[len(tries)] if len(tries) < len(faults) else ""
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "memory":
            raise MemoryError("no room")
        if fault == "user":
            raise VolsamError("The input is bad; mend it.")
        if fault:
            raise ValueError(fault)
        return f"result of {block.id}"

    def tries(self, block: str) -> list[list[str]]:
        """Every time a block was begun: process, attempt, batch, time."""
        path = self.folder / f"{block.replace(':', '_')}.tries"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def write(self, block: Block, result: str) -> dict[str, Any]:
        path = self.folder / f"{block.id.replace(':', '_')}.txt"
        replace(path, lambda partial: partial.write_text(result))
        return {"bytes": len(result)}

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        return {"blocks": [record["block"] for record in records]}
