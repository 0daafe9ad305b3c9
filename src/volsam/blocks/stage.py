"""A stage: plan its blocks, compute one, write it, finalize. All stages look like this.

Invariants
----------
- `compute` is a pure function of the block and the stage's inputs; it runs on a worker.
- `write` is called once for a block, by the process that computed it, and no two blocks write the
  same file or shard. Writing a block twice leaves the same bytes as writing it once.
- `blocks`, `reset` and `finalize` run on the driver, which never holds voxels.
- A stage object carries settings and paths only, so it travels to workers in a few kilobytes.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, ClassVar, Generic, TypeVar

from volsam import __version__
from volsam.blocks.ledger import record_path
from volsam.config import Config
from volsam.dependence import stage_settings
from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.inputs import Stamp, stamps
from volsam.paths import SamplePaths

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of work with one writer.

    Parameters
    ----------
    index : tuple of int
        Place in the grid of its phase.
    box : Box
        What it covers, in the units of its stage (voxels, or slices and tiles).
    phase : int
        All blocks of a phase are done before the next phase starts (pyramid levels).
    """

    index: tuple[int, ...]
    box: Box
    phase: int = 0

    @property
    def id(self) -> str:
        """Key in the ledger."""
        return f"{self.phase}:" + "-".join(str(i) for i in self.index)

    @property
    def stem(self) -> str:
        """Name of its files."""
        return self.id.replace(":", "_")


@dataclass(frozen=True)
class Attempt:
    """How a block is to be computed this time; changes only after a failure."""

    number: int = 0
    batch: int | None = None


@dataclass(frozen=True)
class Job:
    """One sample of one configuration."""

    config: Config
    sample: str
    paths: SamplePaths = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", SamplePaths(self.config.results, self.sample))

    def marker(self, stage: str) -> dict[str, Any]:
        """Marker of an upstream stage."""
        path = record_path(self.paths, stage)
        try:
            marker: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise VolsamError(
                f"Stage {stage} of sample {self.sample} is not finished ({path} is missing or torn); "
                f"run it first."
            ) from None
        return marker


class Stage(ABC, Generic[Result]):
    """Base of all stages; see the module's invariants."""

    name: ClassVar[str]
    upstream: tuple[str, ...]
    network: ClassVar[bool] = (
        False  # whether blocks run the network: threads and memory of a worker
    )
    batch: int = 1  # how much of a block is computed at once, where that can be chosen

    def __init__(self, job: Job) -> None:
        self.job = job
        self.paths = job.paths
        self.config = job.config.of_sample(job.sample)
        self.sample = self.config.samples[job.sample]

    def settings(self) -> dict[str, Any]:
        """What the result depends on besides the upstream stages."""
        inputs = {role: stamp[1] for role, stamp in self.inputs.items()}
        return stage_settings(self.job.config, self.job.sample, self.name) | inputs

    @cached_property
    def inputs(self) -> dict[str, Stamp]:
        """Stamps of what the stage reads from outside the results."""
        return stamps(self.job.config, self.job.sample, self.name)

    def digest(self) -> str:
        """Digest of the settings and of all upstream digests: blocks of another digest are stale."""
        upstream = {name: self.job.marker(name)["digest"] for name in self.upstream}
        text = json.dumps([self.name, self.settings(), upstream], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def voxels(self) -> int | None:
        """Voxels that the stage covers, for rates; None before there is a plan."""
        try:
            start, stop = self.job.marker("plan")["outputs"]["plan"]["region"]
        except (VolsamError, KeyError, TypeError):
            return None
        return prod(b - a for a, b in zip(start, stop, strict=True))

    def blocks(self) -> Iterable[Block]:
        """All blocks, in the order they should start within a phase.

        Asked for several times, always with the same answer; a stage of many blocks yields them, so
        that nobody holds them all.
        """
        return [Block((0,), Box((0,), (1,)))]

    def compute(self, block: Block, attempt: Attempt) -> Result:
        """Result of a block."""
        raise NotImplementedError

    def write(self, block: Block, result: Result) -> dict[str, Any]:
        """Store the result; returns what the ledger should say of it."""
        raise NotImplementedError

    @abstractmethod
    def reset(self) -> None:
        """Remove output of other settings and create empty stores."""

    def sweep(self) -> None:
        """Remove partial files that a kill left behind."""

    @abstractmethod
    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """Finish after the last block; returns the marker's ``outputs``.

        The records come in the order in which blocks were finished: the outputs must not depend on it.
        """

    def marker(
        self, outputs: dict[str, Any], digest: str, totals: dict[str, Any]
    ) -> dict[str, Any]:
        """What Snakemake sees of the finished stage."""
        return {
            "stage": self.name,
            "sample": self.job.sample,
            "digest": digest,
            "version": __version__,
            "settings": self.settings(),
            "inputs": self.inputs,
            "outputs": outputs,
            **totals,
        }
