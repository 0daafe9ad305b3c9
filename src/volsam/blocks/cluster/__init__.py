"""Cluster factories: where blocks run.

Invariants
----------
- Schedulers and dashboards bind to the loopback interface unless the site file names another.
- When a factory is left, by whatever way the driver can still act, no worker of it is left either.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from volsam.blocks.cluster.pool import Workers
    from volsam.blocks.cluster.settings import Cluster


@contextlib.contextmanager
def open_cluster(
    cluster: Cluster, stage: str, name: str, *, workers: int, threads: int, logs: Path
) -> Iterator[Workers | None]:
    """Start the workers of a stage; None where blocks run in this process.

    Parameters
    ----------
    cluster : Cluster
        The site.
    stage : str
        Name of the stage, which says the pool.
    name : str
        Unique name of the worker jobs, by which they are found and cancelled.
    workers : int
        Worker processes on this machine; a batch system starts as many as its pool says.
    threads : int
        Threads that numerical libraries may use in a worker.
    logs : Path
        Folder of the worker jobs' logs.
    """
    if cluster.kind == "inline":
        yield None
    elif cluster.kind == "local":
        from volsam.blocks.cluster.local import open_local

        with open_local(workers, threads) as local:
            yield local
    else:
        from volsam.blocks.cluster.jobs import open_jobs

        with open_jobs(cluster, cluster.pool(stage), name, threads=threads, logs=logs) as jobs:
            yield jobs
