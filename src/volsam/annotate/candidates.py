"""Crops that could be corrected next, and what is known of each.

A volume has many: all are looked at through tables only (`Grid`), and voxels are read and the network
run for those on the short list (`examine`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volsam.annotate.runs import FinishedRun
from volsam.annotate.seams import Seams, tiles_of
from volsam.blocks.stage import Block
from volsam.geometry import Box
from volsam.segment.tiles import TileReader
from volsam.stages.runplan import RunPlan

Floats = NDArray[np.float32]
_TAKEN = 0.1  # share of a crop that may be annotated already


@dataclass(frozen=True)
class Grid:
    """Equal boxes of one slice each, covering a region.

    Where the region is no multiple of the size, the last boxes are moved inside and overlap.

    Attributes
    ----------
    region : Box
    size : int
        Edge of a box, pixels; clipped to the region.
    """

    region: Box
    size: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns of boxes."""
        return self.region.shape[0], len(self._starts(1)), len(self._starts(2))

    def _starts(self, axis: int) -> list[int]:
        first, stop = self.region.start[axis], self.region.stop[axis]
        last = max(first, stop - self.size)
        return [min(start, last) for start in range(first, stop, self.size)]

    def box(self, index: int) -> Box:
        """A box by its row-major number."""
        z, row, column = (int(i) for i in np.unravel_index(index, self.shape))
        start = (self.region.start[0] + z, self._starts(1)[row], self._starts(2)[column])
        edge = (start[0] + 1, start[1] + self.size, start[2] + self.size)
        return Box(start, edge).intersect(self.region)

    def from_tiles(self, values: Floats, plan: RunPlan) -> Floats:
        """Bring sums over tiles (slices, tile rows, tile columns) to the boxes, by common area."""
        z0, z1 = self.region.start[0], self.region.stop[0]
        rows, columns = (
            self._weights(axis, count, plan)
            for axis, count in ((1, plan.grid.counts[0]), (2, plan.grid.counts[1]))
        )
        return np.einsum("zrc,yr,xc->zyx", values[z0:z1], rows, columns, optimize=True)

    def _weights(self, axis: int, count: int, plan: RunPlan) -> Floats:
        """Share of each tile (columns) that lies in each box (rows) along an axis."""
        start = np.array(self._starts(axis))[:, None]
        stop = np.minimum(start + self.size, self.region.stop[axis])
        first = np.arange(count) * plan.tile
        last = np.minimum(first + plan.tile, plan.shape[axis])
        common = np.minimum(stop, last) - np.maximum(start, first)
        return (np.maximum(common, 0) / (last - first)).astype(np.float32)

    def free(self, taken: Sequence[Box]) -> NDArray[np.bool_]:
        """Which boxes are hardly covered by any of those taken, by their number."""
        free = np.ones(self.shape, np.bool_)
        for box in taken:
            z, y, x = (self._covered(axis, box) for axis in range(3))
            free &= z[:, None, None] * y[:, None] * x <= _TAKEN
        return free.ravel()

    def _covered(self, axis: int, box: Box) -> Floats:
        """Share of each box that another one covers along an axis."""
        stop = self.region.stop[axis]
        if axis:
            start = np.array(self._starts(axis))
            end = np.minimum(start + self.size, stop)
        else:
            start = np.arange(self.region.start[0], stop)
            end = start + 1
        common = np.minimum(end, box.stop[axis]) - np.maximum(start, box.start[axis])
        return (np.maximum(common, 0) / (end - start)).astype(np.float32)


def coarse(grid: Grid, seams: Seams) -> tuple[Floats, Floats, Floats]:
    """Disagreement, looks and places of all boxes, from tables.

    Returns
    -------
    disagreement : float32 (n,)
        Mean over the pixels, of the tiles around.
    looks : float32 (n, 3)
        Painted share, fragments per pixel and diameter (logarithms of both).
    places : float32 (n, 3)
        Position in the grid, each axis from 0 to 1.
    """
    wrong, painted, count = (grid.from_tiles(v, seams.plan).ravel() for v in seams.by_tile())
    pixels = grid.size**2
    diameter = np.sqrt(painted / np.maximum(count, 1))
    looks = [painted / pixels, np.log1p(1e4 * count / pixels), np.log1p(diameter)]
    index = np.indices(grid.shape).reshape(3, -1)
    places = [axis / max(1, n - 1) for axis, n in zip(index, grid.shape, strict=True)]
    return (
        wrong / np.float32(pixels),
        np.stack(looks, axis=1).astype(np.float32),
        np.stack(places, axis=1).astype(np.float32),
    )


def describe(image: Floats, labels: NDArray[np.integer]) -> list[float]:
    """What one crop looks like.

    Parameters
    ----------
    image : float32 (y, x)
        Normalised to 0…1.
    labels : integer (y, x)

    Returns
    -------
    list of float
        Mean, deviation and median of the intensity; painted share, objects per pixel and median
        diameter (logarithms of both).
    """
    areas = np.unique(labels, return_counts=True)[1][int((labels == 0).any()) :]
    diameter = float(np.sqrt(np.median(areas))) if areas.size else 0.0
    return [
        float(image.mean()),
        float(image.std()),
        float(np.median(image)),
        float((labels > 0).mean()),
        float(np.log1p(1e4 * areas.size / labels.size)),
        float(np.log1p(diameter)),
    ]


def entropy(probability: Floats) -> Floats:
    """Entropy of a yes-or-no question in bits: 1 at probability 1/2, 0 where it is certain."""
    p = np.clip(probability, 1e-6, 1 - 1e-6).astype(np.float64)
    return (-p * np.log2(p) - (1 - p) * np.log2(1 - p)).astype(np.float32)


def examine(
    run: FinishedRun, seams: Seams, boxes: Sequence[Box], *, network: bool
) -> tuple[Floats, Floats, Floats, Floats]:
    """Uncertainty, disagreement, looks and places of a few boxes, from voxels.

    Parameters
    ----------
    network : bool
        Predict the foreground again (or take stored predictions); otherwise the uncertainty is NaN.

    Returns
    -------
    uncertainty : float32 (n,)
        Mean entropy of the predicted foreground, bits.
    disagreement : float32 (n,)
    looks : float32 (n, 6)
        As of `describe`.
    places : float32 (n, 3)
        First voxel, as a fraction of the volume.
    """
    plan = run.plan
    reader = TileReader(plan)
    predict = _foreground(plan, reader) if network else None
    uncertainty, disagreement, looks, places = [], [], [], []
    for box in boxes:
        plane = Box(box.start[1:], box.stop[1:])
        image = reader.normalisation.apply(reader.raw(box.start[0], plane), box.start[0])
        looks.append(describe(image, run.labels(box)[0]))
        places.append([s / n for s, n in zip(box.start, plan.shape, strict=True)])
        disagreement.append(seams.at(box))
        uncertainty.append(float(entropy(predict(box)).mean()) if predict else np.nan)
    return (
        np.array(uncertainty, np.float32),
        np.array(disagreement, np.float32),
        np.array(looks, np.float32),
        np.array(places, np.float32),
    )


def _foreground(plan: RunPlan, reader: TileReader) -> Callable[[Box], Floats]:
    """Function that predicts the foreground of a box of one slice."""
    from volsam.stages.segment import predictor

    predict = predictor(plan, reader)

    def foreground(box: Box) -> Floats:
        z, plane = box.start[0], Box(box.start[1:], box.stop[1:])
        out = np.zeros(plane.shape, np.float32)
        for tile in tiles_of(plan, plane):
            part = plan.grid.inner(tile).intersect(plane)
            (predicted,) = predict(Block((z, tile), box), [(z, tile)])
            inside = part.relative_to(plan.valid(tile)).slices
            out[part.relative_to(plane).slices] = predicted.maps[0][inside]
        return out

    return foreground
