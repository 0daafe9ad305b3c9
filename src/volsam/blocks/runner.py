"""The bounded runner: gives a stage's blocks to workers and writes down what is done.

Invariants
----------
- One block per worker is in flight; the driver holds coordinates and ledger lines only. The next one is
  given out when the ledger has the line of the one before.
- A block in the ledger is never computed again. A kill costs at most the one unrecorded block of each
  worker.
- A failed block is tried again, with half the batch after running out of memory, and the reasons stay
  in its ledger line; a `VolsamError` is the user's to mend and is not retried.
- Half-written files of a run that was killed, of whichever stage, are gone when blocks start.
- A lost worker is no fault of its block: it may happen more often than an error. A block that loses its
  worker again and again is taken to be too large for it and gets a smaller batch.
"""

from __future__ import annotations

import itertools
import os
import pickle
import resource
import socket
import sys
import time
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import cloudpickle

from volsam.blocks.cluster import open_cluster
from volsam.blocks.cluster.settings import Cluster, load_cluster
from volsam.blocks.lease import Lease, lease
from volsam.blocks.ledger import Ledger, record_path
from volsam.blocks.stage import Attempt, Block, Stage
from volsam.blocks.state import State
from volsam.errors import VolsamError
from volsam.paths import sweep, write_json
from volsam.volume.store import writing

if TYPE_CHECKING:
    from volsam.blocks.cluster.pool import Workers

Record = dict[str, Any]
Done = list[tuple[Block, Attempt, Record]]
LOST = "its worker was killed"
SMALLER_FROM = 3  # losses of a block from which on its batch is halved


def run_stage(
    stage: Stage[Any],
    *,
    cluster: Cluster | str = "local",
    workers: int = 1,
    threads: int = 1,
    retries: int = 2,
    wait: float = 24 * 3600.0,
) -> dict[str, Any]:
    """Run what is left of a stage and write its marker.

    Parameters
    ----------
    stage : Stage
        What to run.
    cluster : Cluster or str
        Where blocks run: a site, its file, or ``local`` or ``inline``.
    workers : int
        Worker processes on this machine at most; never more than there are blocks left.
    threads : int
        Threads of one worker.
    retries : int
        How often a failed block is tried again.
    wait : float
        Seconds to wait for another run that holds the results.

    Returns
    -------
    dict
        The marker.
    """
    site = load_cluster(cluster) if isinstance(cluster, str) else cluster
    purpose = f"stage {stage.name} of sample {stage.job.sample}"
    with lease(stage.paths.work / "lease.json", purpose, wait=wait) as held:
        state = State(stage.paths, stage.name, stage.voxels())
        try:
            marker = _run_stage(stage, site, held, state, workers, threads, retries)
        except BaseException as error:
            if not held.lost:  # or it is another run's state by now
                state.end(error)
            raise
        state.end()
    return marker


def _run_stage(
    stage: Stage[Any],
    site: Cluster,
    held: Lease,
    state: State,
    workers: int,
    threads: int,
    retries: int,
) -> dict[str, Any]:
    started = time.monotonic()
    digest = stage.digest()
    paths = stage.paths
    ledgers, states = paths.ledger(stage.name).parent, paths.state(stage.name).parent
    with writing(paths.folder):
        for folder in (paths.folder, paths.work, ledgers, states):
            sweep(folder)  # what a kill of any stage left half-written beside its output
    with Ledger(stage.paths.ledger(stage.name), digest) as ledger:
        with writing(stage.paths.folder):
            if ledger.resumed:
                stage.sweep()
            else:
                stage.reset()
                ledger.begin()
        blocks, left, phases = _count(stage, ledger.done)
        state.begin(blocks, blocks - left)
        if left:
            most = max(phases.values())  # blocks that may be computed at once
            count = max(1, min(workers, most))
            # One block of a light stage is done before workers would have started.
            if most == 1 and not stage.network:
                site = load_cluster("inline")
            if site.batch:
                held.jobs(site.kind)
            logs = stage.paths.work / "logs" / "workers"
            with open_cluster(
                site, stage.name, held.name, workers=count, threads=threads, logs=logs
            ) as running:
                _announce(state, site, running, held)
                tries = _Tries(stage, retries, site.lost_workers)
                execute = _inline if running is None else _on_dask(running)
                if running is not None:
                    running.want(left)
                for phase in sorted(phases):
                    pending = _pending(stage, phase, ledger.done)
                    for finished in execute(stage, pending, tries):
                        held.check()
                        if finished:
                            ledger.append(*(tries.completed(*item) for item in finished))
                            left -= len(finished)
                        state.step(len(finished), list(tries.in_flight), tries.reasons)
                        if running is not None:
                            running.want(left)
        outputs = stage.finalize(ledger)
    totals = {
        "blocks": blocks,
        "resumed_blocks": len(ledger.done),
        "seconds": round(time.monotonic() - started, 3),
    }
    marker = stage.marker(outputs, digest, totals)
    held.check()
    write_json(record_path(stage.paths, stage.name), marker)
    write_json(stage.paths.marker(stage.name), marker)
    return marker


def _announce(state: State, site: Cluster, running: Workers | None, held: Lease) -> None:
    if running is None:
        return
    facts: dict[str, Any] = {"dashboard": running.dashboard, "cluster": site.kind}
    print(f"dashboard: {running.dashboard}", file=sys.stderr, flush=True)
    if site.batch:
        facts["jobs"] = held.name
        if site.dashboard == "loopback":
            port = urlsplit(running.dashboard).port
            facts["tunnel"] = f"ssh -N -L {port}:localhost:{port} {socket.gethostname()}"
            print(f"from your machine: {facts['tunnel']}", file=sys.stderr, flush=True)
    state.note(**facts)


def run_block(stage: Stage[Any], block: Block, attempt: Attempt) -> Record:
    """Compute and write one block; runs on a worker. Returns its ledger line."""
    started, cpu = time.perf_counter(), time.process_time()
    record = stage.write(block, stage.compute(block, attempt))
    gpus = [number for number in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if number]
    return {
        "block": block.id,
        "seconds": round(time.perf_counter() - started, 4),
        "cpu_seconds": round(time.process_time() - cpu, 4),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        **({"gpus": len(gpus)} if gpus and stage.network else {}),
        **record,
    }


def run_parcel(parcel: bytes, block: Block, attempt: Attempt) -> Record:
    """`run_block` of a pickled stage: the scheduler passes bytes on, and a worker unpacks them once."""
    return run_block(_unpack(parcel), block, attempt)


@lru_cache(maxsize=1)
def _unpack(parcel: bytes) -> Stage[Any]:
    stage: Stage[Any] = pickle.loads(parcel)
    return stage


def _count(stage: Stage[Any], done: set[str]) -> tuple[int, int, Counter[int]]:
    """Blocks in all, blocks that are left, and how many of each phase; blocks themselves are not kept."""
    blocks = left = 0
    phases: Counter[int] = Counter()
    for block in stage.blocks():
        blocks += 1
        if block.id not in done:
            left += 1
            phases[block.phase] += 1
    return blocks, left, phases


def _pending(stage: Stage[Any], phase: int, done: set[str]) -> Iterator[Block]:
    return (b for b in stage.blocks() if b.phase == phase and b.id not in done)


@dataclass
class _Tries:
    """Decides about failed blocks, and keeps why they failed."""

    stage: Stage[Any]
    retries: int
    losses: int
    reasons: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    in_flight: dict[str, None] = field(default_factory=dict)

    def begun(self, block: Block) -> None:
        """Note that a block is being computed."""
        self.in_flight[block.id] = None

    def completed(self, block: Block, attempt: Attempt, record: Record) -> Record:
        """The ledger line of a finished block."""
        self.in_flight.pop(block.id, None)
        if attempt.number:
            record |= {"retries": attempt.number, "reasons": self.reasons.pop(block.id)}
        return record

    def again(self, block: Block, attempt: Attempt, error: BaseException) -> Attempt:
        """How to try a failed block again.

        Raises
        ------
        VolsamError
            If it is the user's to mend, or failed too often.
        """
        if isinstance(error, VolsamError):
            raise error
        reason = _reason(error)
        reasons = self.reasons[block.id]
        reasons.append(reason)
        lost = reasons.count(LOST)
        if lost > self.losses or len(reasons) - lost > self.retries:
            raise VolsamError(
                f"Block {block.id} of stage {self.stage.name}, sample {self.stage.job.sample}, "
                f"failed {attempt.number + 1} times, last with {reason}; mend the cause and run the "
                f"same command again, finished blocks are kept."
            ) from error
        batch = attempt.batch
        if isinstance(error, MemoryError) or (reason == LOST and lost >= SMALLER_FROM):
            batch = max(1, (batch or self.stage.batch) // 2)
        print(
            f"{self.stage.name}: block {block.id} again after {reason}", file=sys.stderr, flush=True
        )
        return Attempt(attempt.number + 1, batch)


Execute = Callable[[Stage[Any], Iterator[Block], _Tries], Iterator[Done]]


def _inline(stage: Stage[Any], blocks: Iterator[Block], tries: _Tries) -> Iterator[Done]:
    for block in blocks:
        attempt = Attempt()
        tries.begun(block)
        while True:
            try:
                record = run_block(stage, block, attempt)
                break
            except Exception as error:
                attempt = tries.again(block, attempt, error)
        yield [(block, attempt, record)]


def _on_dask(workers: Workers) -> Execute:
    def execute(stage: Stage[Any], blocks: Iterator[Block], tries: _Tries) -> Iterator[Done]:
        repeated: deque[tuple[Block, Attempt]] = deque()
        fresh = ((block, Attempt()) for block in blocks)
        running: dict[Any, tuple[Any, Block, Attempt]] = {}
        ended: SimpleQueue[Any] = SimpleQueue()
        parcel = cloudpickle.dumps(stage)
        # Keys of one group: Dask remembers every group for good.
        group = f"{stage.name}-{uuid.uuid4().hex}"
        keys = ((group, number) for number in itertools.count())
        while True:
            while len(running) < workers.slots:
                following = repeated.popleft() if repeated else next(fresh, None)
                if following is None:
                    break
                block, attempt = following
                tries.begun(block)
                future = workers.client.submit(
                    run_parcel, parcel, block, attempt, key=next(keys), pure=False
                )
                running[future.key] = future, block, attempt
                future.add_done_callback(ended.put)
            finished: Done = []
            failed: list[tuple[Block, Attempt, BaseException]] = []
            for future in _drain(ended):
                _, block, attempt = running.pop(future.key)
                if future.status == "finished":
                    finished.append((block, attempt, future.result()))
                else:
                    error = future.exception() or RuntimeError("the block was cancelled")
                    failed.append((block, attempt, error))
            yield finished  # first what is done gets its lines
            for block, attempt, error in failed:
                repeated.append((block, tries.again(block, attempt, error)))
            if not (running or repeated):
                following = next(fresh, None)
                if following is None:
                    return
                repeated.append(following)

    return execute


def _drain(ended: SimpleQueue[Any], patience: float = 1.0) -> Iterator[Any]:
    """All futures that have ended; waits a moment for the first."""
    try:
        yield ended.get(timeout=patience)
        while True:
            yield ended.get_nowait()
    except Empty:
        return


def _reason(error: BaseException) -> str:
    name = type(error).__name__
    if name == "KilledWorker":
        return LOST
    text = " ".join(str(error).split())
    return f"{name}: {text}"[:300]
