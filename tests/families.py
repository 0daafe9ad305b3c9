"""Random lineages, and label images of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from volsam.track.lineage import Lineage, Objects

FRAMES = 8


@st.composite
def lineages(draw: st.DrawFn, depth: bool | None = None, largest_id: int = 2**40) -> Lineage:
    """Families with divisions into two or three, gaps and lone objects, or nothing at all."""
    frames: list[int] = []
    rows: list[tuple[int, int]] = []
    # A track to come: its first frame and the row of its mother.
    tracks = [(draw(st.integers(0, FRAMES - 1)), -1) for _ in range(draw(st.integers(0, 3)))]
    while tracks:
        frame, before = tracks.pop()
        for _ in range(draw(st.integers(1, 3))):
            if frame >= FRAMES:
                break
            frames.append(frame)
            if before >= 0:
                rows.append((before, len(frames) - 1))
            before = len(frames) - 1
            frame += draw(st.sampled_from([1, 1, 1, 2, 3]))
        else:
            daughters = draw(st.sampled_from([0, 0, 2, 3]))
            tracks += [(frame, before)] * daughters if frame < FRAMES else []
    n = len(frames)
    ids = np.array(
        draw(st.lists(st.integers(1, largest_id), min_size=n, max_size=n, unique=True)), np.uint64
    )
    position = np.random.default_rng(n).random((n, 3)) * [10, 100, 100]
    if not (draw(st.booleans()) if depth is None else depth):
        position[:, 0] = 0
    objects = Objects.sort(ids, frames, position, np.arange(1.0, n + 1))
    return Lineage.of(objects, ids[np.array(rows, np.int64).reshape(-1, 2)])


def painted(lineage: Lineage, depth: int | None = None) -> Callable[[int], Any]:
    """Label images: a square for each object, and one that is in no lineage."""
    objects = lineage.objects

    def frame_of(frame: int) -> Any:
        labels = np.zeros((depth or 1, 40, 40), np.uint64)
        labels[:, 36:, 36:] = 2**50
        for place, number in enumerate(objects.id[objects.frame == frame]):
            y, x = 3 * (place // 12), 3 * (place % 12)
            labels[place % (depth or 1), y : y + 2, x : x + 2] = number
        return labels if depth else labels[0]

    return frame_of


def same(one: Lineage, other: Lineage) -> bool:
    """Whether two lineages have the same objects, links and tracks."""
    return (
        np.array_equal(one.objects.id, other.objects.id)
        and np.array_equal(one.objects.frame, other.objects.frame)
        and np.allclose(one.objects.position, other.objects.position)
        and np.allclose(one.objects.size, other.objects.size)
        and np.array_equal(one.links(), other.links())
        and np.array_equal(one.track, other.track)
        and np.array_equal(one.parent, other.parent)
    )


def family() -> Lineage:
    """1 → 2 → (3, 4); 4 → 6 over a gap; 5 on its own; in frames 0, 1, 2, 2, 2, 4."""
    objects = Objects.sort(
        np.arange(1, 7), [0, 1, 2, 2, 2, 4], np.arange(18.0).reshape(6, 3), np.full(6, 4.0)
    )
    return Lineage.of(objects, [[1, 2], [2, 3], [2, 4], [4, 6]])
