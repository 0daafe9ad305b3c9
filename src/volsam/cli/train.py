"""`volsam train`: the command of the training rule, on one process or one per GPU."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from volsam.config import Config
from volsam.errors import VolsamError
from volsam.paths import write_json


def train(config: Config, marker: Path | None, threads: int, devices: int) -> None:
    """Train as the section `train` says; starts itself once per device if there are several.

    Parameters
    ----------
    config : Config
        With a section `train`.
    marker : Path, optional
        File that tells Snakemake what came of it.
    threads : int
        CPU threads of one process.
    devices : int
        Processes on this node, 0 for one per GPU.
    """
    settings = config.train
    if settings is None:
        raise VolsamError("The configuration has no section train; say there what to train.")
    if "WORLD_SIZE" not in os.environ:
        _start_all(devices)
    from volsam.annotate.store import AnnotationStore
    from volsam.models.names import resolve

    if settings.parent == settings.name:
        raise VolsamError(
            f"Key train.parent is {settings.name}, the model itself; name the model to start from, "
            "since all annotations are learnt anew."
        )
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"train {time.monotonic() - started:.0f} s: {text}", file=sys.stderr, flush=True)

    nothing = isinstance(settings.data, str) and not len(AnnotationStore(Path(settings.data)))
    if nothing and settings.when == "new-annotations":
        outcome: dict[str, object] = {"name": settings.name, "promoted": False}
        say(f"no annotations in {settings.data} yet: {settings.parent} stays in use")
    else:
        from volsam.train.run import train_model

        outcome = train_model(
            settings,
            Path(config.models),
            resolve(config, settings.parent),
            allow_pickle=config.compute.allow_pickle,
            threads=threads,
            say=say,
        )
    if marker is not None and os.environ.get("RANK", "0") == "0":
        write_json(marker, outcome)


def _start_all(devices: int) -> None:
    """Replace this process by torchrun if several devices are to be used."""
    if devices != 1:
        import torch

        gpus = torch.cuda.device_count()
        if gpus and devices > gpus:
            raise VolsamError(f"There are {gpus} GPUs and --devices is {devices}; lower it.")
        devices = devices or max(1, gpus)
    if devices > 1:
        runner = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(devices)]
        local = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "volsam"]
        os.execv(sys.executable, [*runner, *local, *sys.argv[1:]])
