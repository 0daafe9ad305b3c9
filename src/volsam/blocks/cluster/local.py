"""Workers on this machine: Dask's LocalCluster, one process per worker."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import dask

from volsam.blocks.cluster.pool import Workers, dask_settings, worker_environment
from volsam.errors import VolsamError

if TYPE_CHECKING:
    from distributed import LocalCluster


@contextlib.contextmanager
def open_local(workers: int, threads: int) -> Iterator[Workers]:
    """Start `workers` processes of `threads` threads each, and stop them at the end."""
    from distributed import Client, LocalCluster

    environment = worker_environment(threads)
    os.environ.update(environment)
    settings = dask_settings() | {"distributed.nanny.pre-spawn-environ": environment}

    def start(tries: int = 3) -> LocalCluster:
        try:
            return LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                memory_limit=0,
                silence_logs=50,
            )
        except RuntimeError as error:  # a worker was killed while it started
            if tries == 1:
                raise VolsamError(
                    f"Workers do not start ({error}); see that there is memory for {workers} of them."
                ) from error
            return start(tries - 1)

    with (
        dask.config.set(settings),
        start() as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield Workers(client, cluster, fixed=workers)
