"""Blocks that run the embedded model on noise: ``working FOLDER BLOCKS CLUSTER WORKERS``.

Prints a line when workers and model are there, waits for one, and prints another when all are done.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from volsam.blocks.stage import Attempt, Block, Job, Stage
from volsam.config import validate
from volsam.geometry import Box

TILES = 4


@lru_cache(maxsize=1)
def _model() -> Any:
    import torch

    from volsam.models import load_model

    torch.set_num_threads(1)
    return load_model("embedded")


class Working(Stage[float]):
    """`count` blocks of `TILES` tiles through the network; what they find is thrown away."""

    name = "segment"
    upstream: tuple[str, ...] = ()
    network = True

    def __init__(self, results: Path, count: int) -> None:
        sample = {"image": "none.tif"}
        super().__init__(Job(validate({"results": str(results), "samples": {"a": sample}}), "a"))
        self.count = count
        self.inputs = {}

    def settings(self) -> dict[str, Any]:
        return {"count": self.count}

    def blocks(self) -> Iterator[Block]:
        return (Block((n,), Box((n,), (n + 1,))) for n in range(self.count))

    def reset(self) -> None:
        self.paths.work.mkdir(parents=True, exist_ok=True)

    def compute(self, block: Block, attempt: Attempt) -> float:
        from volsam.segment.predict import predict_tiles

        noise = np.random.default_rng(block.index[0]).random((TILES, 256, 256), dtype=np.float32)
        return float(np.mean(predict_tiles(_model(), noise, scale=1.0, batch=TILES)[0]))

    def write(self, block: Block, result: float) -> dict[str, Any]:
        return {"mean": result}

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        return {}


def main() -> None:
    """Warm up with two blocks for each worker, then run the others when told."""
    from volsam.blocks import runner
    from volsam.blocks.cluster import open_cluster
    from volsam.blocks.cluster.settings import load_cluster

    folder, kind = Path(sys.argv[1]), sys.argv[3]
    blocks, workers = int(sys.argv[2]), int(sys.argv[4])
    site = load_cluster(kind)
    with open_cluster(site, "segment", "x", workers=workers, threads=1, logs=folder) as running:
        warm, stage = Working(folder / "warm", 2 * workers), Working(folder / "results", blocks)

        @contextlib.contextmanager
        def opened(*_: Any, **__: Any) -> Iterator[Any]:
            yield running

        runner.open_cluster = opened  # type: ignore[assignment]
        runner.run_stage(warm, cluster=kind, workers=workers)
        print("ready", flush=True)
        sys.stdin.readline()
        runner.run_stage(stage, cluster=kind, workers=workers)
        print("done", flush=True)


if __name__ == "__main__":
    main()
