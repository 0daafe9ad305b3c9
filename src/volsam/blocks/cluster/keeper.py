"""Keeps as many worker jobs alive as the blocks left need.

Invariants
----------
- A lost worker is replaced, whether it was connected, pending or refused: a thread compares what is
  wanted with what lives every few seconds. The batch system may be away for a while.
- Nothing is repeated without end and in silence: jobs that never reach the driver, refusals, and blocks
  that no worker lives long enough for end the stage with a sentence.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

from distributed import Client
from distributed.core import Status
from distributed.diagnostics.plugin import SchedulerPlugin

from volsam.blocks.cluster.batch import living_jobs
from volsam.blocks.cluster.pool import Workers
from volsam.blocks.cluster.settings import Cluster, Pool
from volsam.errors import VolsamError

INTERVAL = 2.0  # seconds between two looks at the workers
CENSUS = 20.0  # seconds between two questions to the batch system
REFUSALS = 5  # submissions refused, or jobs that came to nothing, before giving up
UNREACHABLE = (
    *("unable to contact", "timed out", "connection refused", "did not answer", "zero bytes"),
    *("lsf is down", "cannot connect"),
)


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
        logs: Path,
        host: str,
    ) -> None:
        super().__init__(client, cluster)
        self._host, self._logs = host, logs
        self._site, self._pool, self._name, self._refusals = site, pool, name, refusals
        self._blocks = 0
        self._stop, self._nudge = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._census = self._seen = time.monotonic()
        self._ever = False
        self._stillborn = 0
        self._pause = 0.0  # no submissions before this time, after refusals
        self._said = ""
        self._returned = _Returned()
        cluster.scheduler.add_plugin(self._returned)

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join()

    def stop(self) -> None:
        """Submit no more."""
        self._stop.set()
        self._nudge.set()

    def want(self, blocks: int) -> None:
        super().want(blocks)
        if not self._blocks and blocks:
            self._nudge.set()
        self._blocks = blocks
        if self.slots:
            self._seen, self._ever, self._stillborn = time.monotonic(), True, 0
        elif time.monotonic() - self._seen > self._site.patience_hours * 3600:
            raise VolsamError(
                f"There was no worker for {self._site.patience_hours:g} hours (last word of the batch "
                f"system: {self._said or 'none'}); see the queue, then run the same command again."
            )
        if self._returned.most > self._site.lost_workers:
            raise VolsamError(
                f"A block was handed back by {self._returned.most} workers that reached their walltime "
                f"of {self._pool.walltime}; raise it, or make blocks smaller (compute.block_slices)."
            )
        if self._stillborn >= max(REFUSALS, 2 * self._pool.maximum):
            raise VolsamError(
                f"{self._stillborn} worker jobs ended without reaching the driver; see the newest file "
                f"in {self._logs}, and interface, python and prologue in the site file."
            )
        refused = [text for text in self._refusals if not _unreachable(text)]
        accepted = any(job.job_id for job in list(self._cluster.workers.values()))
        if len(refused) >= REFUSALS and not (self._ever or accepted):
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
        if time.monotonic() < self._pause:
            return
        if self._refusals:  # a limit of jobs, or nobody answers: ask less and less often
            self._pause = time.monotonic() + min(120.0, 2.0 ** min(len(self._refusals), 7))
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
        if gone and not self._stillborn:
            self._say(f"a worker job ended without reaching the driver; see {self._logs}")
        self._stillborn += len(gone)
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


class _Returned(SchedulerPlugin):
    """Counts how often a block was handed back by a worker that left at the end of its lifetime."""

    def __init__(self) -> None:
        self._times: dict[Any, int] = {}

    @property
    def most(self) -> int:
        """The most often that any block in flight was."""
        return max(list(self._times.values()), default=0)

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Note a change of a task; see Dask's `SchedulerPlugin`."""
        if start == "processing" and finish in ("released", "waiting"):
            self._times[key] = self._times.get(key, 0) + 1
        elif finish in ("memory", "erred", "forgotten"):
            self._times.pop(key, None)


def _unreachable(text: str) -> bool:
    return any(word in text.lower() for word in UNREACHABLE)
