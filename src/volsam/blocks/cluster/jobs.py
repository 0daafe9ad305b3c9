"""Workers as jobs of SLURM or LSF, kept at the number that the blocks left need.

Invariants
----------
- All worker jobs of a stage carry one unique name; leaving the context cancels by that name, and a
  watchdog does so if the driver dies.
- When the context is left, no worker job is: only then may the lease be given back.
- A worker leaves by itself before its walltime, at a moment of its own, so that not all leave at once.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any

import dask
from dask_jobqueue import LSFCluster, SLURMCluster
from dask_jobqueue.lsf import LSFJob
from dask_jobqueue.slurm import SLURMJob
from distributed import Client
from distributed.core import Status
from distributed.utils import get_ip_interface

from volsam.blocks.cluster.batch import cancel_jobs, clean_environment, end_jobs
from volsam.blocks.cluster.keeper import Keeper
from volsam.blocks.cluster.pool import Workers, dask_settings, worker_environment
from volsam.blocks.cluster.settings import OVERHEAD_GB, Cluster, Pool
from volsam.blocks.cluster.watchdog import watchdog
from volsam.errors import VolsamError

# One block at a time, however many cores it uses; Dask's own memory limits would act before the job's.
WORKER = ("--nthreads", "1", "--memory-limit", "0", "--no-dashboard")
LEAVING = 120.0  # seconds to wait for the last worker job to end


class _Clean:
    """Mixin of a job that starts from a clean environment and says why it was refused."""

    refusals: list[str] = []  # noqa: RUF012  (one list per run, set by `open_jobs`)

    @classmethod
    async def _call(cls, cmd: list[str], **options: Any) -> str:
        text: str = await super()._call(cmd, env=clean_environment(), **options)  # type: ignore[misc]
        return text

    async def start(self) -> None:
        try:
            await super().start()  # type: ignore[misc]
            self.refusals.clear()
        except (RuntimeError, OSError, ValueError) as error:
            self.status = Status.failed
            self.refusals.append(_last_line(str(error)))


class CleanSLURMJob(_Clean, SLURMJob):
    """Worker as a SLURM job."""


class CleanLSFJob(_Clean, LSFJob):
    """Worker as an LSF job."""

    async def _submit_job(self, script_filename: str) -> str:
        # dask-jobqueue sends what bsub says of a refusal to /dev/null.
        return await self._call([f"{self.submit_command} < {quote(script_filename)}"], shell=True)


@contextlib.contextmanager
def open_jobs(
    cluster: Cluster, pool: Pool, name: str, *, threads: int, logs: Path
) -> Iterator[Workers]:
    """Open a cluster of worker jobs; it starts empty and grows with what `Workers.want` is told."""
    if cluster.interface is None:
        raise VolsamError(
            "Key interface of the site file is missing; name the network that driver and workers "
            "share, e.g. ib0 (`ip -br address` lists them), or lo if all is one machine."
        )
    if pool.cores < threads:
        raise VolsamError(
            f"A worker shall use {threads} threads and its job has {pool.cores} cores; raise cores "
            "of the pool in the site file or lower compute.threads."
        )
    if re.search(r"\s", str(logs.absolute())):
        raise VolsamError(
            f"The results {logs.absolute().parents[3]} have a space in their path, which job scripts "
            "cannot hold; choose another folder."
        )
    logs.mkdir(parents=True, exist_ok=True)
    refusals: list[str] = []
    kind: Any = SLURMCluster if cluster.kind == "slurm" else LSFCluster
    job = CleanSLURMJob if cluster.kind == "slurm" else CleanLSFJob
    options = _slurm(pool) if cluster.kind == "slurm" else _lsf(pool, cluster)
    listen = (
        {"host": "127.0.0.1"} if cluster.interface == "lo" else {"interface": cluster.interface}
    )
    alone = cluster.interface == "lo" or cluster.dashboard == "loopback"
    host = "127.0.0.1" if alone else get_ip_interface(cluster.interface)
    with (
        dask.config.set(dask_settings() | {"distributed.deploy.lost-worker-timeout": "2s"}),
        watchdog(cluster.kind, name),
        _silent(),
    ):
        try:
            with (
                kind(
                    job_cls=type(job.__name__, (job,), {"refusals": refusals}),
                    job_name=name,
                    name=name,
                    cores=pool.cores,
                    memory=f"{max(pool.memory_gb - OVERHEAD_GB, 0.1):.3f}GB",
                    processes=1,
                    nanny=False,
                    interface=cluster.interface,
                    death_timeout=cluster.start_seconds,
                    local_directory=pool.scratch,
                    # The job's process is the worker itself: a signal to the job reaches it.
                    python=f"exec {pool.python or quote(sys.executable)}",
                    queue=pool.queue,
                    job_script_prologue=[
                        *(
                            f"export {key}={value}"
                            for key, value in worker_environment(threads).items()
                        ),
                        *pool.prologue,
                    ],
                    worker_extra_args=[*_lifetime(pool), *WORKER],
                    log_directory=str(logs),
                    security=True if cluster.tls else None,
                    shared_temp_directory=str(logs),
                    scheduler_options={"dashboard_address": f"{host}:0", **listen},
                    silence_logs="critical",
                    **options,
                ) as workers,
                Client(workers, set_as_default=False) as client,
                Keeper(client, workers, cluster, pool, name, refusals, logs, host) as keeper,
            ):
                try:
                    yield keeper
                finally:
                    # All at once and first of all: a driver that is being ended has seconds.
                    keeper.stop()
                    cancel_jobs(cluster.kind, name)
        finally:
            end_jobs(cluster.kind, name, LEAVING)


def _slurm(pool: Pool) -> dict[str, Any]:
    # A requeued worker would come back beside the one that replaced it.
    extra = ["--no-requeue", *([f"--gres=gpu:{pool.gpus}"] if pool.gpus else []), *pool.directives]
    memory = f"{int(pool.memory_gb * 1024)}M"
    return {
        "account": pool.account,
        # SLURM reads two numbers as minutes and seconds.
        "walltime": f"{pool.seconds // 3600}:{pool.seconds // 60 % 60:02}:{pool.seconds % 60:02}",
        "job_mem": memory,
        "job_extra_directives": extra,
    }


def _lsf(pool: Pool, cluster: Cluster) -> dict[str, Any]:
    memory = pool.memory_gb * {"kb": 1e6, "mb": 1e3, "gb": 1.0}[cluster.lsf_units]
    # -M, which dask-jobqueue writes, is a limit; this asks for a host that has so much.
    ask = f'-R "rusage[mem={memory:.0f}]"'
    extra = [ask, *([f"-gpu num={pool.gpus}"] if pool.gpus else []), *pool.directives]
    return {
        "project": pool.account,
        "mem": int(pool.memory_gb * 1e9),
        "lsf_units": cluster.lsf_units,
        "job_extra_directives": extra,
        "walltime": ":".join(pool.walltime.split(":")[:2]),
        "use_stdin": True,
    }


def _lifetime(pool: Pool) -> list[str]:
    """Leave some minutes before the walltime, spread over a tenth of it."""
    stagger = min(pool.seconds * 0.1, 600.0)
    lifetime = pool.seconds - stagger - min(pool.seconds * 0.1, 300.0)
    return ["--lifetime", f"{lifetime:.0f}s", "--lifetime-stagger", f"{stagger:.0f}s"]


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.split("stderr:")[-1].splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep Dask's own words about refused and lost jobs from the log; ours are said once."""
    loggers = [
        logging.getLogger(name) for name in ("distributed", "tornado.application", "asyncio")
    ]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
