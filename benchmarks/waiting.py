"""Blocks that only wait, and many Dask workers in one process to wait in: ``waiting ADDRESS COUNT``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from volsam.blocks import runner
from volsam.blocks.stage import Attempt, Block, Job, Stage
from volsam.config import validate
from volsam.geometry import Box


class Simulated(Stage[None]):
    """`count` blocks that write nothing; what one does is said by a subclass."""

    name = "segment"
    upstream: tuple[str, ...] = ()
    network = True  # as the tile stages, so that there are workers even for one block

    def __init__(self, results: Path, count: int) -> None:
        sample = {"image": "none.tif"}
        super().__init__(Job(validate({"results": str(results), "samples": {"a": sample}}), "a"))
        self.count = count
        self.inputs = {}

    def settings(self) -> dict[str, Any]:
        return {"count": self.count}

    def blocks(self) -> Iterator[Block]:
        for n in range(self.count):
            yield Block((n // 100, n // 10 % 10, n % 10), Box((n, 0, 0), (n + 1, 1, 1)))

    def reset(self) -> None:
        self.paths.work.mkdir(parents=True, exist_ok=True)

    def write(self, block: Block, result: None) -> dict[str, Any]:
        return {"tiles": 4}

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        return {"tiles": sum(record["tiles"] for record in records)}


class Waiting(Simulated):
    """Blocks of `seconds` each."""

    def __init__(self, results: Path, count: int, seconds: float) -> None:
        super().__init__(results, count)
        self.seconds = seconds

    def compute(self, block: Block, attempt: Attempt) -> None:
        time.sleep(self.seconds)


def run_on(workers: Any) -> None:
    """Let the runner of this process use workers that are there already."""

    @contextlib.contextmanager
    def opened(*_: Any, **__: Any) -> Iterator[Any]:
        yield workers

    runner.open_cluster = opened  # type: ignore[assignment]


async def wait(address: str, count: int) -> None:
    """Run `count` workers of one thread until they are told to go."""
    from distributed import Worker

    logging.getLogger("distributed").setLevel(logging.ERROR)

    workers = [Worker(address, nthreads=1, memory_limit=0) for _ in range(count)]
    await asyncio.gather(*workers)
    await asyncio.Event().wait()  # the benchmark kills this process


if __name__ == "__main__":
    asyncio.run(wait(sys.argv[1], int(sys.argv[2])))
