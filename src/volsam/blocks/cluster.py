"""Cluster factories: where blocks run. `inline` is this process, `local` is Dask on this machine.

Invariants
----------
- Schedulers and dashboards bind to the loopback interface.
- A worker that dies fails its block at once (no silent rescheduling): the runner decides about the
  retry and the ledger gets the reason.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from volsam.errors import VolsamError

if TYPE_CHECKING:
    from distributed import Client

KINDS = ("local", "inline")


@contextlib.contextmanager
def open_cluster(kind: str, workers: int, threads: int) -> Iterator[Client | None]:
    """Start workers; yields a Dask client, or None where blocks run in this process.

    Parameters
    ----------
    kind : {"local", "inline"}
        Which factory.
    workers : int
        Number of worker processes; each computes one block at a time.
    threads : int
        Threads that numerical libraries may use in a worker.
    """
    if kind not in KINDS:
        raise VolsamError(f"Cluster kind {kind!r} is unknown; use one of {', '.join(KINDS)}.")
    # Inherited by the workers: BLAS and OpenMP read these once, when they are loaded. glibc returns
    # every large temporary to the kernel unless told otherwise: a third of the CPU time of a network.
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        # One arena: a thread of its own, as Dask runs tasks in, would get one that cannot grow and maps
        # every large array anew.
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": str(2**30),
        "MALLOC_TRIM_THRESHOLD_": str(2**32),
    }
    if kind == "inline":
        yield None
        return

    import dask
    from distributed import Client, LocalCluster

    os.environ.update(environment)
    settings = {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.scheduler.work-stealing": False,
        "distributed.worker.daemon": True,
        "distributed.nanny.pre-spawn-environ": environment,
        "distributed.comm.timeouts.connect": "60s",
    }

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
        print(f"dashboard: {cluster.dashboard_link}", file=sys.stderr, flush=True)
        yield client
