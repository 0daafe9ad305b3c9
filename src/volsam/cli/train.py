"""`volsam train`: the command of the training rule, on one process or one per GPU."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from volsam.cli import sentence
from volsam.config import Config
from volsam.errors import VolsamError
from volsam.paths import write_json
from volsam.train.settings import Train


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
    if "WORLD_SIZE" not in os.environ and (processes := _processes(devices)) > 1:
        _start_all(processes)
        return
    with _told_once():
        _train(config, settings, marker, threads)


def _train(config: Config, settings: Train, marker: Path | None, threads: int) -> None:
    """Train as one process."""
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


def _processes(devices: int) -> int:
    """How many processes train: as many as there are GPUs, if 0 are asked for."""
    if devices == 1:
        return 1
    import torch

    gpus = torch.cuda.device_count()
    if gpus and devices > gpus:
        raise VolsamError(f"There are {gpus} GPUs and --devices is {devices}; lower it.")
    return devices or max(1, gpus)


def _start_all(processes: int) -> None:
    """Run this command in several processes, as torchrun does.

    Raises
    ------
    VolsamError
        If one fails: what it left as its error, once.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    local = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    logging.disable(logging.ERROR)  # the launcher's own words on a failure
    try:
        elastic_launch(local, sys.executable)("-m", "volsam", *sys.argv[1:])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.error_file_data.get("told"):
            raise VolsamError(str(failure.message)) from None
        raise VolsamError(
            f"Process {rank} of the training failed with exit code {failure.exitcode}; see what it said "
            "above, and type the same command to go on."
        ) from None
    except SignalException as error:
        sys.exit(128 + int(error.sigval))


@contextlib.contextmanager
def _told_once() -> Iterator[None]:
    """Leave an error of one of several processes to the one that started them, which tells it."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    try:
        yield
    except (VolsamError, OSError, MemoryError) as error:
        if file is None:
            raise
        left = {"message": sentence(error), "timestamp": int(time.time()), "told": True}
        write_json(Path(file), left)
        sys.exit(1)
