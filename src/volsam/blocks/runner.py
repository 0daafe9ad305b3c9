"""The bounded runner: gives a stage's blocks to workers and writes down what is done.

Invariants
----------
- One block per worker is in flight; the driver holds coordinates and ledger lines only. The next one is
  given out when the ledger has the line of the one before.
- A block in the ledger is never computed again. A kill costs at most the one unrecorded block of each
  worker.
- A failed block is tried again, with half the batch after running out of memory, and the reasons stay
  in its ledger line; a `VolsamError` is the user's to mend and is not retried.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from volsam.blocks.cluster import open_cluster
from volsam.blocks.lease import lease
from volsam.blocks.ledger import Ledger, record_path
from volsam.blocks.stage import Attempt, Block, Stage
from volsam.errors import VolsamError
from volsam.paths import write_json
from volsam.volume.store import writing

if TYPE_CHECKING:
    from distributed import Client

Record = dict[str, Any]


def run_stage(
    stage: Stage[Any],
    *,
    cluster: str = "local",
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
    cluster : {"local", "inline"}
        Where blocks run.
    workers : int
        Worker processes at most; never more than there are blocks left.
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
    purpose = f"stage {stage.name} of sample {stage.job.sample}"
    with lease(stage.paths.work / "lease.json", purpose, wait=wait):
        started = time.monotonic()
        digest = stage.digest()
        with Ledger(stage.paths.ledger(stage.name), digest) as ledger:
            with writing(stage.paths.folder):
                if ledger.resumed:
                    stage.sweep()
                else:
                    stage.reset()
                    ledger.begin()
            blocks = stage.blocks()
            pending = [block for block in blocks if block.id not in ledger.records]
            done = len(blocks) - len(pending)
            if pending:
                count = max(1, min(workers, len(pending)))
                progress = Progress(stage.name, len(blocks), done)
                # One block of a light stage is done before workers would have started.
                alone = cluster == "local" and len(pending) == 1 and not stage.network
                with open_cluster("inline" if alone else cluster, count, threads) as client:
                    for phase in _phases(pending):
                        for record in _run(stage, phase, client, count, retries):
                            ledger.append(record)
                            progress.step()
            outputs = stage.finalize(ledger.records[block.id] for block in blocks)
        totals = {
            "blocks": len(blocks),
            "resumed_blocks": done,
            "seconds": round(time.monotonic() - started, 3),
        }
        marker = stage.marker(outputs, digest, totals)
        write_json(record_path(stage.paths, stage.name), marker)
        write_json(stage.paths.marker(stage.name), marker)
    return marker


def run_block(stage: Stage[Any], block: Block, attempt: Attempt) -> Record:
    """Compute and write one block; runs on a worker. Returns its ledger line."""
    started, cpu = time.perf_counter(), time.process_time()
    record = stage.write(block, stage.compute(block, attempt))
    return {
        "block": block.id,
        "seconds": round(time.perf_counter() - started, 4),
        "cpu_seconds": round(time.process_time() - cpu, 4),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        **record,
    }


def _phases(blocks: Sequence[Block]) -> list[list[Block]]:
    phases: dict[int, list[Block]] = defaultdict(list)
    for block in blocks:
        phases[block.phase].append(block)
    return [phases[number] for number in sorted(phases)]


def _run(
    stage: Stage[Any], blocks: Sequence[Block], client: Client | None, workers: int, retries: int
) -> Iterator[Record]:
    execute = _inline if client is None else _on_dask(client, workers)
    reasons: dict[str, list[str]] = defaultdict(list)

    def retry(block: Block, attempt: Attempt, error: BaseException) -> Attempt:
        if isinstance(error, VolsamError):
            raise error
        reason = _reason(error)
        reasons[block.id].append(reason)
        if attempt.number >= retries:
            raise VolsamError(
                f"Block {block.id} of stage {stage.name}, sample {stage.job.sample}, failed "
                f"{attempt.number + 1} times, last with {reason}; mend the cause and run the same "
                f"command again, finished blocks are kept."
            ) from error
        batch = attempt.batch
        if isinstance(error, MemoryError):
            batch = max(1, (batch or stage.batch) // 2)
        print(f"{stage.name}: block {block.id} again after {reason}", file=sys.stderr, flush=True)
        return Attempt(attempt.number + 1, batch)

    for block, attempt, record in execute(stage, blocks, retry):
        if attempt.number:
            record |= {"retries": attempt.number, "reasons": reasons.pop(block.id)}
        yield record


Retry = Callable[[Block, Attempt, BaseException], Attempt]
Done = Iterator[tuple[Block, Attempt, Record]]


def _inline(stage: Stage[Any], blocks: Sequence[Block], retry: Retry) -> Done:
    for block in blocks:
        attempt = Attempt()
        while True:
            try:
                record = run_block(stage, block, attempt)
                break
            except Exception as error:
                attempt = retry(block, attempt, error)
        yield block, attempt, record


def _on_dask(client: Client, workers: int) -> Callable[[Stage[Any], Sequence[Block], Retry], Done]:
    from distributed import as_completed

    def execute(stage: Stage[Any], blocks: Sequence[Block], retry: Retry) -> Done:
        waiting = iter(blocks)
        running: dict[Any, tuple[Block, Attempt]] = {}
        active = as_completed(loop=client.loop)

        def submit(block: Block, attempt: Attempt) -> None:
            future = client.submit(run_block, stage, block, attempt, pure=False)
            running[future.key] = block, attempt
            active.add(future)

        for block in islice(waiting, workers):
            submit(block, Attempt())
        for future in active:
            block, attempt = running.pop(future.key)
            if future.status == "finished":
                yield block, attempt, future.result()
                for following in islice(waiting, 1):
                    submit(following, Attempt())
            else:
                error = future.exception() or RuntimeError("the block was cancelled")
                submit(block, retry(block, attempt, error))

    return execute


def _reason(error: BaseException) -> str:
    name = type(error).__name__
    if name == "KilledWorker":
        return "its worker was killed"
    text = " ".join(str(error).split())
    return f"{name}: {text}"[:300]


class Progress:
    """Progress lines on the error stream: blocks done, rate and time left."""

    def __init__(self, stage: str, total: int, done: int) -> None:
        self.stage, self.total, self.done, self.first = stage, total, done, done
        self.started = self.said = time.monotonic()
        if done:
            print(
                f"{stage}: {done} of {total} blocks are done already", file=sys.stderr, flush=True
            )

    def step(self) -> None:
        """Count one block."""
        self.done += 1
        now = time.monotonic()
        if now - self.said < 2.0 and self.done < self.total:
            return
        self.said = now
        rate = (self.done - self.first) / max(now - self.started, 1e-9)
        left = (self.total - self.done) / rate
        print(
            f"{self.stage}: {self.done}/{self.total} blocks, {rate:.2f} blocks/s, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )
