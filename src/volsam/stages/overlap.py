"""Overlap: the edges of the fragment graph.

Each (slice, tile) owns its pairs with the later neighbouring tiles of its slice, compared in their
common halo, and with the same tile of the next slices. A block reads its fragments and one ring of
later neighbours, and writes one table; ids are global, so the tables can be joined in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from volsam.blocks.stage import Attempt, Block
from volsam.geometry import Box
from volsam.stages.fragments import FragmentStore
from volsam.stages.tabled import TabledStage
from volsam.stitch.overlaps import OVERLAP_DTYPE, slice_overlaps, tile_overlaps, to_table
from volsam.volume.frames import frame_stop

Rows = np.ndarray[Any, np.dtype[np.void]]


class Overlap(TabledStage[Rows]):
    """Stage `overlap`."""

    name = "overlap"
    upstream: tuple[str, ...] = ("segment",)

    def blocks(self) -> Iterator[Block]:
        return self.plan.tile_blocks()

    def compute(self, block: Block, attempt: Attempt) -> Rows:
        grid, reach = self.plan.grid, self.config.stitch.max_gap + 1
        store = FragmentStore(self.paths, self.plan)
        extent = Box.of((self.plan.shape[0], *grid.counts))
        # Later neighbours: slices above, the row below, the columns left and right.
        (z0, r0, c0), (z1, r1, c1) = block.box.start, block.box.stop
        ring = Box((z0, r0, c0 - 1), (z1 + reach, r1 + 1, c1 + 1)).intersect(extent)
        labels = store.read(ring)
        offsets = store.offsets()
        rows: list[Rows] = [np.empty(0, OVERLAP_DTYPE)]

        def at(z: int, tile: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
            row, column = grid.position(tile)
            return labels[z - ring.start[0], row - ring.start[1], column - ring.start[2]]

        def offset(z: int, tile: int) -> int:
            return int(offsets[z * len(grid) + tile])

        for z, tile in self.plan.tiles(block):
            if not at(z, tile).any():
                continue
            for other in grid.neighbours(tile):
                pair = (at(z, tile), at(z, other))
                rows.append(
                    tile_overlaps(*pair, grid, tile, other, offset(z, tile), offset(z, other))
                )
            window = range(z, min(z + reach + 1, frame_stop(z, self.plan.depth)))
            rows.append(
                slice_overlaps(
                    [at(k, tile) for k in window], [offset(k, tile) for k in window], grid, tile
                )
            )
        return np.concatenate(rows)

    def write(self, block: Block, result: Rows) -> dict[str, Any]:
        self.write_table(block, to_table(result))
        return {"edges": len(result), "bytes": int(result.nbytes)}

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        return {"edges": sum(record["edges"] for record in records)}
