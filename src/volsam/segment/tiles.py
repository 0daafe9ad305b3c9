"""Reading tiles: normalised once per volume or slice, mirrored beyond the border of the plane."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsam.geometry import Box
from volsam.volume.checks import check_finite
from volsam.volume.normalise import Normalisation
from volsam.volume.source import Volume, open_volume

if TYPE_CHECKING:
    from volsam.stages.runplan import RunPlan

Floats = npt.NDArray[np.float32]


class TileReader:
    """Tiles of one volume, for one block after the other.

    A worker keeps its reader: to open a file again for each block can cost as much as the file is long.

    Parameters
    ----------
    plan : RunPlan
        Says which image, grid and normalisation.
    """

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan
        self.normalisation = Normalisation.from_json(plan.normalisation)
        self._cache: tuple[Box, npt.NDArray[np.generic]] | None = None
        self._maps: tuple[Box, npt.NDArray[np.generic]] | None = None

    @cached_property
    def volume(self) -> Volume:
        """The image."""
        return open_volume(**self.plan.image)

    @cached_property
    def predicted(self) -> Volume:
        """The stored predictions."""
        return open_volume(**(self.plan.predictions or {}))

    @cached_property
    def mask(self) -> Volume | None:
        """The mask of tiles to process, if there is one."""
        return open_volume(**self.plan.mask) if self.plan.mask else None

    def prefetch(self, cover: Box) -> None:
        """Read the image (or predictions) of a block once; reads inside it come from memory."""
        self._cache = self._maps = None  # two blocks are never in memory
        box = cover.intersect(Box.of(self.plan.shape))
        if self.plan.predictions is not None:
            self._maps = (box, self.predicted.read_channels(box))
        array = self.volume.read(box)
        check_finite(array, box.start, self.volume.info.path)
        self._cache = (box, array)

    def raw(self, z: int, box: Box) -> npt.NDArray[np.generic]:
        """Intensities (h, w) of a box of the plane, in the image's own type."""
        wanted = Box((z, *box.start), (z + 1, *box.stop))
        if self._cache is not None and wanted.intersect(self._cache[0]) == wanted:
            cached, array = self._cache
            return array[wanted.relative_to(cached).slices][0]
        return self.volume.read(wanted)[0]

    def is_empty(self, z: int, tile: int) -> bool:
        """Whether nothing in the tile's inner box is worth segmenting."""
        inner = self.plan.grid.inner(tile)
        if self.mask is not None:
            box = Box((z, *inner.start), (z + 1, *inner.stop))
            if not np.any(self.mask.read(box)):
                return True
        if self.plan.threshold is None:
            return False
        return bool(self.raw(z, inner).max() <= self.plan.threshold)

    def inside(self, z: int, tile: int) -> Floats:
        """Normalised intensities (h, w) of a tile's part in the plane."""
        return self.normalisation.apply(self.raw(z, self.plan.valid(tile)), z)

    def outer(self, tiles: list[tuple[int, int]]) -> Floats:
        """Outer boxes of (slice, tile) pairs as float32 (n, h, w) in 0 to 1."""
        size = self.plan.grid.outer_size
        stack = np.empty((len(tiles), size, size), np.float32)
        for image, (z, tile) in zip(stack, tiles, strict=True):
            outer = self.plan.grid.outer(tile)
            valid = self.plan.valid(tile)
            inside = self.inside(z, tile)
            before = [a - b for a, b in zip(valid.start, outer.start, strict=True)]
            after = [b - a for a, b in zip(valid.stop, outer.stop, strict=True)]
            pad = list(zip(before, after, strict=True))
            # A mirror keeps the statistics of the image; it repeats where the plane is smaller.
            image[:] = np.pad(inside, pad, mode="reflect" if min(valid.shape) > 1 else "edge")
        return stack

    def predictions(self, z: int, tile: int) -> Floats:
        """Stored predictions (3, h, w) on the tile's part in the plane."""
        valid = self.plan.valid(tile)
        wanted = Box((z, *valid.start), (z + 1, *valid.stop))
        if self._maps is not None and wanted.intersect(self._maps[0]) == wanted:
            cached, array = self._maps
            maps = array[(slice(None), *wanted.relative_to(cached).slices)]
        else:
            maps = self.predicted.read_channels(wanted)
        return maps[:, 0].astype(np.float32)
