"""Blocks that run the embedded model on noise: ``working FOLDER BLOCKS CLUSTER WORKERS``.

Prints a line when workers and model are there, waits for one, and prints another when all are done.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.waiting import Simulated, run_on
from volsam.blocks.stage import Attempt, Block

TILES = 4


@lru_cache(maxsize=1)
def _model() -> Any:
    import torch

    from volsam.models import load_model

    torch.set_num_threads(1)
    return load_model("embedded")


class Working(Simulated):
    """Blocks of `TILES` tiles through the network; what they find is thrown away."""

    def compute(self, block: Block, attempt: Attempt) -> None:
        from volsam.segment.predict import predict_tiles

        noise = np.random.default_rng(block.box.start[0]).random(
            (TILES, 256, 256), dtype=np.float32
        )
        predict_tiles(_model(), noise, scale=1.0, batch=TILES)


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
        run_on(running)
        runner.run_stage(warm, cluster=kind, workers=workers)
        print("ready", flush=True)
        sys.stdin.readline()
        runner.run_stage(stage, cluster=kind, workers=workers)
        print("done", flush=True)


if __name__ == "__main__":
    main()
