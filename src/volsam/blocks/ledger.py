"""The ledger: which blocks are done, and what each took.

Invariants
----------
- One writer, the driver that holds the lease; a line is appended after its block is on disk.
- Append-only; the first line is a header with the digest of the settings. A ledger with another
  digest is never read as progress.
- A torn last line (the driver was killed in mid-write) is cut off when the ledger is opened.
- Lines stay on disk: the driver's memory does not grow with what is done.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from volsam.paths import SamplePaths
from volsam.volume.store import writing


def record_path(paths: SamplePaths, stage: str) -> Path:
    """The stages' own copy of a marker, beside the ledger.

    Snakemake removes a marker before it runs its job again, while another run on the same results
    may still have to read it.
    """
    return paths.ledger(stage).with_suffix(".json")


def read(path: Path) -> tuple[dict[str, Any] | None, dict[str, dict[str, Any]]]:
    """Header and records by block id; (None, {}) if there is no readable ledger."""
    header: dict[str, Any] | None = None
    records: dict[str, dict[str, Any]] = {}
    for entry, _ in _entries(path):
        if header is None:
            header = entry
        else:
            records[str(entry["block"])] = entry
    return header, records


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of all finished blocks, one at a time, in the order in which they were finished."""
    return (entry for entry, _ in islice(_entries(path), 1, None))


def _entries(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Whole lines, one at a time, and where each ends; stops at the first that is torn."""
    good = 0
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        for line in file:
            try:
                entry = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                entry = None
            if not isinstance(entry, dict):
                return
            good += len(line)
            yield entry, good


class Ledger:
    """Open ledger of one stage; a context manager.

    Parameters
    ----------
    path : Path
        The JSON-lines file.
    digest : str
        Digest of the stage's settings; records of any other are discarded.

    Attributes
    ----------
    resumed : bool
        Whether the file is of this digest.
    done : set of str
        Blocks that earlier runs finished.
    """

    def __init__(self, path: Path, digest: str) -> None:
        self.path = path
        self.resumed = False
        self.done: set[str] = set()
        self._digest, self._good = digest, 0
        for entry, self._good in _entries(path):
            if not self.resumed:
                self.resumed = entry.get("digest") == digest
                if not self.resumed:
                    break
            else:
                self.done.add(str(entry["block"]))
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Ledger:
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.resumed:
                os.truncate(self.path, self._good)
                self._file = self.path.open("ab")
            else:
                # Empty until `begin`: a kill while output is reset must not look like progress.
                self._file = self.path.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            # Every line is flushed: only one that the disk had no room for can fail again here.
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def begin(self) -> None:
        """Write the header of a new ledger, once the stage's output is ready for its blocks."""
        self._line({"digest": self._digest})

    def append(self, *records: dict[str, Any]) -> None:
        """Add the lines of finished blocks; they are on disk when this returns."""
        self._line(*records)

    def _line(self, *entries: dict[str, Any]) -> None:
        if self._file is None:
            raise RuntimeError("the ledger is not open")
        with writing(self.path):
            for entry in entries:
                self._file.write(json.dumps(entry, sort_keys=True).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Lines of all finished blocks, in the order in which they were finished."""
        return lines(self.path)
