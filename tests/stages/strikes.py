"""Runs that a SIGKILL ends, at a change of the file system that is chosen beforehand.

Invariants
----------
- When a run dies follows from numbers, not from a clock: at the n-th change of a place below its results
  (a table, the ledger …), counted from the start of a stage; in which order a machine writes several
  places does not matter. The change itself is not made any more, and of what was being written a given
  part is there.
- Every run is a process of its own, forked from a server that has imported all modules and opened
  nothing: it starts as quickly as a fork, and has none of the threads that do not survive one.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import scenes

from volsam.stages import link as link_stage
from volsam.stages import number as number_stage
from volsam.stages import observe as observe_stage

# What Python tells its auditors, and which argument is the open folder that a path starts from.
EVENTS = ("open", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir")
FOLDERS = {"os.mkdir": 2, "os.remove": 1, "os.rename": 2, "os.rmdir": 1}
STAGES = ("number", "label", "measure", "observe", "link", "tracks", "export")
WRITING = os.O_WRONLY | os.O_RDWR
IMPORTED = (
    "geff", "imagecodecs", "pandas", "pyarrow.dataset", "pytest", "skimage.measure",
    "skimage.registration", "tifffile", "volsam.blocks.runner", "zarr",
    *(f"volsam.stages.{name}" for name in STAGES),
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What may be chosen freely.

    Attributes
    ----------
    block : (slices, rows, columns)
        Of a block of stage `number`.
    run : int
        Frames of a block of stage `observe`.
    linked : (objects, objects)
        Of a run of frames and of a share of a window, of stage `link`.
    seed : float or None
        Of the order in which blocks start; None leaves it as it is.
    """

    block: tuple[int, int, int]
    run: int
    linked: tuple[int, int]
    seed: float | None

    def order(self, blocks: list[Any]) -> list[Any]:
        """Blocks in the order in which they start."""
        return blocks if self.seed is None else random.Random(self.seed).sample(blocks, len(blocks))


@dataclass(frozen=True)
class Strike:
    """When a run dies.

    Attributes
    ----------
    stage : str
        Where counting starts.
    place : str
        `Change.place`.
    change : int
        The change of this place that is not made any more, from 1.
    arrived : float
        Part of the file being renamed, or of the last line of the ledger, that was written.
    """

    stage: str
    place: str
    change: int
    arrived: float


class Change(NamedTuple):
    """A change below the results: in which stage, what, and of which path."""

    stage: str
    event: str
    path: str

    @property
    def place(self) -> str:
        """What it is a part of: the ledger, a table, the labels, a format …"""
        parts = [part.lstrip(".") for part in Path(self.path).parts]
        if parts[0] == f"{scenes.SAMPLE}.ome.zarr":
            return "labels"
        name = ".".join(parts[parts[0] == "volsam"].split(".")[:2])
        return "state" if name.endswith(".json") else name


def opened(number: int) -> Path:
    """Path of an open file or folder."""
    return Path(f"/proc/self/fd/{number}").readlink()


class Auditor:
    """Writes down every change below a folder, and dies at one of them."""

    def __init__(self, folder: Path, notes: Path, strike: Strike | None) -> None:
        self.folder, self.strike = f"{folder}{os.sep}", strike
        self.notes = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.stage, self.left = "", 0

    def begin(self, stage: str) -> None:
        """Note the start of a stage."""
        self.stage, self.left = stage, self.strike.change if self.strike else 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Audit hook of this process."""
        if event not in EVENTS or not isinstance(arguments[0], str | os.PathLike):
            return
        path = os.fspath(arguments[0])
        if event == "open" and not arguments[2] & WRITING:
            return
        if event == "os.mkdir" and os.path.isdir(path):  # noqa: PTH112
            return
        if event in FOLDERS and (number := arguments[FOLDERS[event]]) >= 0:
            path = str(opened(number) / path)
        self.change(event, path)

    def flushed(self, number: int) -> None:
        """In place of `os.fsync`, which a SIGKILL does not ask for: a line of the ledger is complete."""
        self.change("fsync", str(opened(number)))

    def change(self, event: str, path: str) -> None:
        """Note a change, and die if it is the one."""
        if not path.startswith(self.folder):
            return
        change = Change(self.stage, event, path.removeprefix(self.folder))
        os.write(self.notes, "{}\t{}\t{}\n".format(*change).encode())
        if not self.strike or (change.stage, change.place) != (
            self.strike.stage,
            self.strike.place,
        ):
            return
        self.left -= 1
        if self.left == 0:
            self.tear(event, Path(path))
            os.kill(os.getpid(), signal.SIGKILL)

    def tear(self, event: str, path: Path) -> None:
        """Take away what did not arrive."""
        assert self.strike
        if event not in ("os.rename", "fsync") or not path.is_file():
            return
        size = path.stat().st_size
        line = 0 if event == "os.rename" else path.read_bytes().rfind(b"\n", 0, -1) + 1
        os.truncate(path, line + int(self.strike.arrived * (size - line)))


def _run(
    data: dict[str, Any],
    stages: Sequence[str],
    settings: Settings,
    notes: Path,
    strike: Strike | None,
    options: dict[str, Any],
) -> None:
    # Locks of this method have no names, which would outlive a run that dies.
    multiprocessing.set_start_method("fork", force=True)
    auditor = Auditor(Path(data["results"]) / scenes.SAMPLE, notes, strike)
    sys.addaudithook(auditor)
    os.fsync = auditor.flushed
    number_stage.BLOCK, observe_stage.RUN = settings.block, settings.run
    link_stage.RUN, link_stage.SHARE = settings.linked
    for stage in stages:
        auditor.begin(stage)
        scenes.run_pipeline(data, stages=(stage,), order=settings.order, **options)


def run(
    data: dict[str, Any],
    stages: Sequence[str],
    settings: Settings,
    notes: Path,
    strike: Strike | None = None,
    **options: Any,
) -> tuple[bool, list[Change]]:
    """Run stages in a process of their own.

    Parameters
    ----------
    data : dict
        Configuration.
    stages : sequence of str
    settings : Settings
    notes : Path
        File outside the results, for what the process has to say.
    strike : Strike, optional
        When it dies. It lives if it has less to do.
    options
        Of `scenes.run_pipeline`.

    Returns
    -------
    died : bool
    changes : list of Change
        All in order; a run that died did not make the last one any more.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    arguments = (data, stages, settings, notes, strike, options)
    process = context.Process(target=_run, args=arguments)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), f"the run ended with {process.exitcode}"
    changes = [Change(*line.split("\t")) for line in notes.read_text().splitlines()]
    return process.exitcode != 0, changes
