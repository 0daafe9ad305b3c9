"""Where a partition and its edges disagree: at the seams between tiles and between slices.

Every edge of the fragment graph gives the odds that its two fragments are one object
(`stitch.costs`). The partition decided for each pair, all edges considered; the probability that an edge
gives against that decision is its disagreement. It is 1/2 where the similarity is at the threshold,
above where other edges overruled it, and near 0 where all is clear.

Invariants
----------
- Only neighbouring tiles and neighbouring slices count; edges that skip slices never object.
- The result depends on fragments, edges and settings, not on tiles or blocks chosen by a reader.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volsam.blocks.stage import Job
from volsam.geometry import Box
from volsam.stages.fragments import FragmentStore
from volsam.stages.partition import PartitionStage
from volsam.stages.runplan import RunPlan
from volsam.stitch.costs import StitchParameters, edge_costs
from volsam.stitch.dips import log_dips
from volsam.stitch.graph import Edges, Fragments

Floats = NDArray[np.float32]


def fragment_disagreement(
    fragments: Fragments, edges: Edges, objects: NDArray[np.unsignedinteger], p: StitchParameters
) -> Floats:
    """How much the edges of each fragment speak against the partition.

    Parameters
    ----------
    fragments : Fragments
    edges : Edges
        Sorted.
    objects : unsigned (n,)
        Object of each fragment, 0 where it was dropped.
    p : StitchParameters
        Of the partition.

    Returns
    -------
    float32 (n,)
        The largest disagreement among a fragment's edges, 0 to 1; 1 where it was found but dropped.
    """
    painted = fragments.size > 0
    if not painted.all():
        edges = edges.take(painted[edges.u] & painted[edges.v])
    dips = log_dips(fragments, edges) * np.float32(p.dip_weight)
    cost = edge_costs(edges.iou, edges.containment, edges.kind, p, dips)
    joined = 1 / (1 + np.exp(-cost))
    together = objects[edges.u] == objects[edges.v]
    against = np.where(together, 1 - joined, joined).astype(np.float32)
    counted = (edges.kind <= 1) & (objects[edges.u] > 0) & (objects[edges.v] > 0)
    worst = np.zeros(len(fragments), np.float32)
    np.maximum.at(worst, edges.u[counted], against[counted])
    np.maximum.at(worst, edges.v[counted], against[counted])
    worst[(objects == 0) & painted] = 1
    return worst


@dataclass(frozen=True)
class Seams:
    """Fragments of a finished run with their disagreement.

    Attributes
    ----------
    plan : RunPlan
    store : FragmentStore
    fragments : Fragments
    disagreement : float32 (n,)
    """

    plan: RunPlan
    store: FragmentStore
    fragments: Fragments
    disagreement: Floats

    @classmethod
    def of(cls, job: Job) -> Seams:
        """Read the graph and the partition of a run.

        Raises
        ------
        VolsamError
            If the run is not finished, or its intermediates were cleaned away.
        """
        job.marker("partition")
        stage = PartitionStage(job)
        plan, paths = stage.plan, job.paths
        fragments, edges = stage.graph()
        worst = fragment_disagreement(fragments, edges, np.load(paths.lookup), stage.parameters)
        return cls(plan, FragmentStore(paths, plan), fragments, worst)

    def by_tile(self) -> tuple[Floats, Floats, Floats]:
        """Sums over the tiles, float32 (slices, tile rows, tile columns).

        Returns
        -------
        disagreement
            Of the painted pixels, summed.
        painted
            Pixels.
        count
            Fragments.
        """
        shape = (self.plan.shape[0], *self.plan.grid.counts)
        place = np.ravel_multi_index(tuple(self.fragments.position), shape)
        size = self.fragments.size.astype(np.float64)

        def total(weights: NDArray[np.floating]) -> Floats:
            summed = np.bincount(place, weights, minlength=int(np.prod(shape)))
            return summed.reshape(shape).astype(np.float32)

        return total(size * self.disagreement), total(size), total((size > 0).astype(np.float64))

    def at(self, box: Box) -> float:
        """Mean disagreement over the pixels of a box of one slice; background agrees."""
        grid, z = self.plan.grid, box.start[0]
        plane = Box(box.start[1:], box.stop[1:])
        offsets = self.store.offsets()
        total = 0.0
        for tile in tiles_of(self.plan, plane):
            row, column = grid.position(tile)
            part = grid.inner(tile).intersect(plane).relative_to(grid.outer(tile))
            stored = self.store.read(Box((z, row, column), (z + 1, row + 1, column + 1)))
            local = stored[0, 0, 0][part.slices]
            first, last = (int(offsets[z * len(grid) + tile + k]) for k in (0, 1))
            values = np.concatenate([np.zeros(1, np.float32), self.disagreement[first:last]])
            total += float(values[local].sum())
        return total / box.size


def tiles_of(plan: RunPlan, plane: Box) -> list[int]:
    """Tiles whose inner boxes meet a box of the plane, in their order."""
    size = plan.tile
    (y0, x0), (y1, x1) = plane.start, plane.stop
    return [
        plan.grid.index(row, column)
        for row in range(y0 // size, -(-y1 // size))
        for column in range(x0 // size, -(-x1 // size))
    ]
