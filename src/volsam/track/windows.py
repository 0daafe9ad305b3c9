"""Windows in time: each is linked by itself, and sees some frames beyond its ends.

Invariants
----------
- The windows divide the frames; what a window decides is the future of its own frames' objects.
- Frames seen beyond the ends only inform that choice. Where two windows still lead to the same object,
  the greater gain stays, so the result does not depend on the order of the windows.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Frames that are linked at once.

    Parameters
    ----------
    own : range
        Frames whose objects' futures are decided.
    seen : range
        Frames that are looked at.
    """

    own: range
    seen: range


def windows(frames: int, length: int, overlap: int) -> list[Window]:
    """Windows of `length` frames that see `overlap` more on both sides."""
    return [
        Window(
            range(start, min(start + length, frames)),
            range(max(0, start - overlap), min(start + length + overlap, frames)),
        )
        for start in range(0, frames, length)
    ]
