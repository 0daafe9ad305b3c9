"""The workers of a running stage, as the runner sees them.

Invariants
----------
- A worker computes one block at a time, so as many blocks may be in flight as there are workers.
- A worker that dies fails its block at once (no silent rescheduling): the runner decides about the
  retry and the ledger gets the reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask.utils import key_split

if TYPE_CHECKING:
    from distributed import Client


def worker_environment(threads: int) -> dict[str, str]:
    """Environment of a worker process; numerical libraries read it once, when they are loaded."""
    # glibc returns every large temporary to the kernel unless told otherwise: a third of the CPU time
    # of a network.
    return {
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        # One arena: a thread of its own, as Dask runs tasks in, would get one that cannot grow and maps
        # every large array anew.
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": str(2**30),
        "MALLOC_TRIM_THRESHOLD_": str(2**32),
    }


def dask_settings() -> dict[str, Any]:
    """What Dask is told wherever workers run."""
    return {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.scheduler.work-stealing": False,
        "distributed.worker.daemon": True,
        "distributed.comm.timeouts.connect": "60s",
        # Dask keeps a history of tasks and messages, the latter for each worker.
        "distributed.admin.log-length": 1000,
        "distributed.admin.low-level-log-length": 20,
        "distributed.scheduler.dashboard.tasks.task-stream-length": 1000,
        "distributed.scheduler.dashboard.status.task-stream-length": 1000,
    }


class Workers:
    """Workers of one stage.

    Parameters
    ----------
    client : Client
        Where blocks are submitted.
    cluster : distributed.deploy.SpecCluster
        Whose scheduler lives in this process.
    fixed : int or None
        Number of workers, if it does not change.
    """

    def __init__(self, client: Client, cluster: Any, fixed: int | None = None) -> None:
        self.client, self._cluster, self._fixed = client, cluster, fixed
        self._host = "127.0.0.1"  # where the dashboard listens
        _forget_submissions(cluster.scheduler)

    @property
    def dashboard(self) -> str:
        """Address of the Dask dashboard."""
        return f"http://{self._host}:{self._cluster.scheduler.services['dashboard'].port}/status"

    @property
    def slots(self) -> int:
        """Blocks that may be in flight now."""
        if self._fixed is not None:
            return self._fixed
        return len(self._cluster.scheduler.running)

    def want(self, blocks: int) -> None:
        """Say how many blocks are not done yet; the number of workers follows.

        Raises
        ------
        VolsamError
            If workers cannot be had.
        """
        # Dask remembers the last 100 000 keys it has split, a third of a kilobyte each.
        if key_split.cache_info().currsize > 1000:
            key_split.cache_clear()


def _forget_submissions(scheduler: Any) -> None:
    """Keep Dask's spans from noting every submission for good: half a kilobyte for each block."""
    spans = scheduler.extensions.get("spans")
    if spans is None:
        return
    observe = spans.observe_tasks

    def without_metadata(tasks: Any, **facts: Any) -> Any:
        return observe(tasks, **{**facts, "span_metadata": {}})

    spans.observe_tasks = without_metadata
