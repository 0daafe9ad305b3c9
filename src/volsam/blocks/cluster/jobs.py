"""Workers as jobs of SLURM or LSF, kept at the number that the blocks left need.

Invariants
----------
- All worker jobs of a stage carry one unique name; leaving the context cancels by that name, and a
  watchdog does so if the driver dies.
- A lost worker is replaced, whether it was connected, pending or refused: a thread compares what is
  wanted with what lives every few seconds. The batch system may be away for a while.
- A worker leaves by itself before its walltime, at a moment of its own, so that not all leave at once.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
from dask_jobqueue import LSFCluster, SLURMCluster
from dask_jobqueue.lsf import LSFJob
from dask_jobqueue.slurm import SLURMJob
from distributed import Client
from distributed.core import Status

from volsam.blocks.cluster.batch import cancel_jobs, clean_environment, living_jobs
from volsam.blocks.cluster.pool import Workers, dask_settings, worker_environment
from volsam.blocks.cluster.settings import OVERHEAD_GB, Cluster, Pool
from volsam.blocks.cluster.watchdog import watchdog
from volsam.errors import VolsamError

INTERVAL = 2.0  # seconds between two looks at the workers
CENSUS = 20.0  # seconds between two questions to the batch system
REFUSALS = 5  # submissions refused in a row, without a worker ever, before giving up
UNREACHABLE = (
    "unable to contact",
    "socket timed out",
    "connection refused",
    "did not answer",
    "zero bytes",
)


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
        except RuntimeError as error:
            self.status = Status.failed
            self.refusals.append(_last_line(str(error)))


class CleanSLURMJob(_Clean, SLURMJob):
    """Worker as a SLURM job."""


class CleanLSFJob(_Clean, LSFJob):
    """Worker as an LSF job."""


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
    logs.mkdir(parents=True, exist_ok=True)
    refusals: list[str] = []
    kind: Any = SLURMCluster if cluster.kind == "slurm" else LSFCluster
    job = CleanSLURMJob if cluster.kind == "slurm" else CleanLSFJob
    options = _slurm(pool) if cluster.kind == "slurm" else _lsf(pool, cluster)
    listen = (
        {"host": "127.0.0.1"} if cluster.interface == "lo" else {"interface": cluster.interface}
    )
    dashboard = "127.0.0.1:0" if cluster.dashboard == "loopback" else ":0"
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
                    python=pool.python,
                    queue=pool.queue,
                    job_script_prologue=[
                        *(
                            f"export {key}={value}"
                            for key, value in worker_environment(threads).items()
                        ),
                        *pool.prologue,
                    ],
                    worker_extra_args=[*_lifetime(pool), "--memory-limit", "0", "--no-dashboard"],
                    log_directory=str(logs),
                    security=True if cluster.tls else None,
                    shared_temp_directory=str(logs),
                    scheduler_options={"dashboard_address": dashboard, **listen},
                    silence_logs="critical",
                    **options,
                ) as workers,
                Client(workers, set_as_default=False) as client,
            ):
                with Keeper(client, workers, cluster, pool, name, refusals) as keeper:
                    yield keeper
                # Pending jobs go at once; `close` asks each connected worker to leave in turn.
                cancel_jobs(cluster.kind, name)
        finally:
            cancel_jobs(cluster.kind, name)


def _slurm(pool: Pool) -> dict[str, Any]:
    # A requeued worker would come back beside the one that replaced it.
    extra = ["--no-requeue", *([f"--gres=gpu:{pool.gpus}"] if pool.gpus else []), *pool.directives]
    memory = f"{int(pool.memory_gb * 1024)}M"
    return {
        "account": pool.account,
        "walltime": pool.walltime,
        "job_mem": memory,
        "job_extra_directives": extra,
    }


def _lsf(pool: Pool, cluster: Cluster) -> dict[str, Any]:
    extra = [*([f"-gpu num={pool.gpus}"] if pool.gpus else []), *pool.directives]
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


class Keeper(Workers):
    """Keeps as many worker jobs alive as there are blocks left, within the pool's bounds."""

    def __init__(
        self,
        client: Client,
        cluster: Any,
        site: Cluster,
        pool: Pool,
        name: str,
        refusals: list[str],
    ) -> None:
        super().__init__(client, cluster)
        self._site, self._pool, self._name, self._refusals = site, pool, name, refusals
        self._blocks = 0
        self._stop, self._nudge = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._census = self._seen = time.monotonic()
        self._ever = False
        self._said = ""

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._nudge.set()
        self._thread.join()

    @property
    def pool(self) -> Pool:
        """The pool that the workers are of."""
        return self._pool

    def want(self, blocks: int) -> None:
        if not self._blocks and blocks:
            self._nudge.set()
        self._blocks = blocks
        if self.slots:
            self._seen, self._ever = time.monotonic(), True
        elif time.monotonic() - self._seen > self._site.patience_hours * 3600:
            raise VolsamError(
                f"There was no worker for {self._site.patience_hours:g} hours (last word of the batch "
                f"system: {self._said or 'none'}); see the queue, then run the same command again."
            )
        refused = [text for text in self._refusals if not _unreachable(text)]
        if len(refused) >= REFUSALS and not self._ever:
            raise VolsamError(
                f"The batch system refuses worker jobs ({refused[-1]}); mend the pool in the site file."
            )

    def _keep(self) -> None:
        while not self._stop.is_set():
            self._nudge.wait(INTERVAL)
            self._nudge.clear()
            if self._stop.is_set():
                return
            try:
                self._look()
            except Exception as error:  # whatever it was, the next look finds out what is needed
                self._say(f"looking after workers: {type(error).__name__}: {error}")

    def _look(self) -> None:
        if self._refusals and self._refusals[-1] != self._said:
            self._say(self._refusals[-1])
        wanted = (
            min(self._pool.maximum, max(self._pool.minimum, self._blocks)) if self._blocks else 0
        )
        self._forget(self._dead())
        spec = self._cluster.worker_spec
        if len(spec) > wanted:
            surplus = len(spec) - wanted
            leaving = self._dispensable()[:surplus]
            if leaving:
                self.client.sync(self._cluster.scale_down, leaving)
        else:
            self._cluster.scale(wanted)

    def _connected(self) -> dict[str, bool]:
        """Names of connected workers, and whether they have a block."""
        workers = list(self._cluster.scheduler.workers.values())
        return {str(state.name): bool(state.processing) for state in workers}

    def _dispensable(self) -> list[str]:
        connected = self._connected()
        names = list(self._cluster.worker_spec)
        return [n for n in names if n not in connected] + [
            n for n in names if n in connected and not connected[n]
        ]

    def _dead(self) -> list[str]:
        """Workers whose submission failed, or whose job ended without ever connecting."""
        jobs = dict(self._cluster.workers)
        refused = [name for name, job in jobs.items() if job.status == Status.failed]
        if time.monotonic() - self._census < CENSUS:
            return refused
        connected = self._connected()
        before = {name: job.job_id for name, job in jobs.items() if name not in connected}
        self._census = time.monotonic()
        living = living_jobs(self._site.kind, self._name) if before else set()
        if living is None:
            return refused
        gone = [name for name, job in before.items() if job is not None and job not in living]
        return sorted({*refused, *gone} - set(self._connected()))

    def _forget(self, names: list[str]) -> None:
        async def drop() -> None:
            for name in names:
                self._cluster.workers.pop(name, None)
                self._cluster.worker_spec.pop(name, None)

        if names:
            self.client.sync(drop)

    def _say(self, text: str) -> None:
        self._said = text
        print(f"batch system: {text}", file=sys.stderr, flush=True)


def _unreachable(text: str) -> bool:
    return any(word in text.lower() for word in UNREACHABLE)
