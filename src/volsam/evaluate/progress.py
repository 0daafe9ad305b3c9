"""How far something is that takes long, told now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

PAUSE = 5.0  # seconds between two lines


class Told:
    """Says how far something is, at most every few seconds.

    Parameters
    ----------
    name : str
        What is in progress.
    say : callable
        Receives the lines.
    """

    def __init__(self, name: str, say: Callable[[str], None]) -> None:
        self._name, self._say, self._said = name, say, time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self._said > PAUSE:
            self._said = time.monotonic()
            self._say(f"{self._name}: {what}, {done} of {total}")
