"""Sequences as stacks: the slices of all frames, one frame after the other.

A time-lapse goes through the same stages as a volume. Its slices are numbered through: slice s belongs to
frame s // depth, where depth is the number of slices of a frame (1 in a sequence of planes). What joins
slices asks for the frame's end (`frame_stop`); nothing else knows of time.

Invariants
----------
- Stored arrays keep their time axis, as OME-Zarr wants it: t y x, or t z y x, with channels between.
- A block of a stored array with both t and z lies within a frame, so a shard has one writer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from volsam.geometry import Box, split
from volsam.volume.info import ZYX


def frame_stop(s: int, depth: int) -> int:
    """The slice after the last one of the frame that slice `s` belongs to."""
    return (s // depth + 1) * depth


def stored_axes(
    shape: Sequence[int], frames: int | None, channels: int = 1, z_axis: bool = False
) -> tuple[str, tuple[int, ...]]:
    """Axes and shape in OME-Zarr of a volume (z, y, x), or of a sequence as a stack.

    Frames of one slice have a z axis only if `z_axis` says so.
    """
    depth = shape[0] // (frames or 1)
    sizes = {"t": frames, "c": channels, "z": depth, "y": shape[1], "x": shape[2]}
    absent = {None: "t"} if frames is None else {1: "z"} if depth == 1 and not z_axis else {}
    letters = "".join(a for a in "tczyx" if a not in absent.values() and (a != "c" or channels > 1))
    return letters, tuple(int(sizes[a] or 1) for a in letters)


def stack_unit(shape: Sequence[int], frames: int | None) -> ZYX:
    """Extent, zyx, that chunks and shards lie in: a frame, or the whole stack if frames are planes."""
    depth = shape[0] // (frames or 1)
    return (shape[0] if depth == 1 else depth), shape[1], shape[2]


def split_frames(
    shape: Sequence[int], depth: int, unit: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], Box]]:
    """Cut a stack of frames into boxes of at most `unit` that do not cross frames.

    Frames of one slice are cut as slices of a volume, several to a box.
    """
    if depth == 1 or depth == shape[0]:
        yield from split(Box.of(shape), unit)
        return
    for frame in range(shape[0] // depth):
        for index, box in split(Box.of((depth, *shape[1:])), unit):
            yield (frame, *index), box.shift((frame * depth, 0, 0))


def frames_of(box: Box, depth: int) -> Iterator[tuple[int, slice]]:
    """Frames that a box meets, each with its slices counted from the start of the box."""
    start = box.start[0]
    while start < box.stop[0]:
        stop = min(box.stop[0], frame_stop(start, depth))
        yield start // depth, slice(start - box.start[0], stop - box.start[0])
        start = stop


class FrameSlices:
    """An array with a time axis, seen as the slices of all frames: ([c,] t * z, y, x).

    Parameters
    ----------
    array : array-like
        Stored; read and written by basic slices.
    letters : str
        Its axes, letters of ``tczyx`` in any order; t, y and x are among them.
    """

    def __init__(self, array: Any, letters: str) -> None:
        self.array, self.letters = array, letters
        sizes = dict(zip(letters, array.shape, strict=True))
        self.depth: int = sizes.get("z", 1)
        self.channels: int | None = sizes.get("c")
        self.dtype = np.dtype(array.dtype)
        stack: ZYX = (sizes["t"] * self.depth, sizes["y"], sizes["x"])
        self.shape = stack if self.channels is None else (self.channels, *stack)
        self.ndim = len(self.shape)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Chunk, in the axes of the view."""
        return self._unit(self.array.chunks)

    @property
    def shards(self) -> tuple[int, ...] | None:
        """Shard, in the axes of the view; None where there are none."""
        return None if self.array.shards is None else self._unit(self.array.shards)

    @property
    def store_path(self) -> Any:
        """Where it lies."""
        return self.array.store_path

    def __getitem__(self, index: Any) -> np.ndarray:
        channel, (s, rows, columns) = self._split(index)
        parts = []
        for frames, slices in self._parts(s):
            where = {"t": frames, "c": channel, "z": slices, "y": rows, "x": columns}
            parts.append(self._arrange(np.asarray(self.array[self._index(where)])))
        block = np.concatenate(parts, axis=1) if parts else self._nothing(rows, columns)
        return block[0] if self.channels is None or isinstance(index[0], int) else block

    def __setitem__(self, index: Any, block: np.ndarray) -> None:
        channel, (s, rows, columns) = self._split(index)
        if self.channels is None or isinstance(index[0], int):
            block = block[None]
        done = 0
        for frames, slices in self._parts(s):
            count = (frames.stop - frames.start) * (slices.stop - slices.start)
            part = block[:, done : done + count]
            done += count
            whole = part.reshape(len(part), frames.stop - frames.start, -1, *part.shape[2:])
            present = [a for a in "ctzyx" if a in self.letters]
            kept = np.squeeze(whole, tuple(i for i, a in enumerate("ctzyx") if a not in present))
            block_as_stored = kept.transpose([present.index(a) for a in self.letters])
            where = {"t": frames, "c": channel, "z": slices, "y": rows, "x": columns}
            self.array[self._index(where)] = block_as_stored

    def _unit(self, stored: Sequence[int]) -> tuple[int, ...]:
        sizes = dict(zip(self.letters, stored, strict=True))
        slices = sizes["z"] if self.depth > 1 else sizes["t"]
        stack = (slices, sizes["y"], sizes["x"])
        return stack if self.channels is None else (sizes["c"], *stack)

    def _split(self, index: Any) -> tuple[slice, tuple[slice, slice, slice]]:
        channel = index[0] if len(index) == 4 else slice(None)
        if isinstance(channel, int):
            channel = slice(channel, channel + 1)
        axes = [slice(*i.indices(n)) for i, n in zip(index[-3:], self.shape[-3:], strict=True)]
        return channel, (axes[0], axes[1], axes[2])

    def _parts(self, s: slice) -> Iterator[tuple[slice, slice]]:
        """Frames and slices within them that a range of the stack consists of."""
        if self.depth == 1:
            if s.stop > s.start:
                yield slice(s.start, s.stop), slice(0, 1)
            return
        for frame, part in frames_of(Box((s.start,), (s.stop,)), self.depth):
            first = s.start + part.start - frame * self.depth
            yield slice(frame, frame + 1), slice(first, first + part.stop - part.start)

    def _index(self, where: dict[str, slice]) -> tuple[slice, ...]:
        return tuple(where[a] for a in self.letters)

    def _arrange(self, stored: np.ndarray) -> np.ndarray:
        """What was read as (c, t * z, y, x)."""
        present = [a for a in "ctzyx" if a in self.letters]
        block = stored.transpose([self.letters.index(a) for a in present])
        block = np.expand_dims(
            block, tuple(i for i, a in enumerate("ctzyx") if a not in self.letters)
        )
        return block.reshape(block.shape[0], -1, *block.shape[3:])

    def _nothing(self, rows: slice, columns: slice) -> np.ndarray:
        shape = (self.channels or 1, 0, rows.stop - rows.start, columns.stop - columns.start)
        return np.zeros(shape, self.dtype)
