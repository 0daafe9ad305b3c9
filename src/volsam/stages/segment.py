"""Segment: every tile of every slice becomes labelled fragments.

A block is a box of tiles and slices. Its image is read once, normalised by the run's one decision,
cut into outer boxes of equal size (mirrored beyond the border of the plane), predicted in batches, and
each tile's predictions become labels. The labels of a tile, halo included, are one chunk of
``fragments.zarr``, at (slice, tile row, tile column); its block is one shard.

Invariants
----------
- A tile's labels depend on the tile only: not on its block, its batch or what ran before.
- Labels exist only inside the plane; ids count from 1 in each tile and slice.
- In a sequence, what the network makes of each label is kept for linking (`segment.object_embeddings`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from volsam.blocks.stage import Attempt, Block, Job, Stage
from volsam.errors import VolsamError
from volsam.segment.ais import AisParameters, segment_ais
from volsam.segment.object_embeddings import mean_embeddings, project
from volsam.segment.tiles import TileReader
from volsam.stages.fragments import FragmentStore, TileFragments
from volsam.stages.runplan import RunPlan
from volsam.stitch.dips import mean_signal

Tile = tuple[int, int]
Labels = dict[Tile, TileFragments]


class Predicted(NamedTuple):
    """What the network says of a tile.

    Attributes
    ----------
    maps : float32 (3, h, w)
        Foreground and distances, on the tile's part in the plane.
    embedding : float32 (d, rows, columns) or None
        If objects are to be compared by it.
    covered : float
        Rows of the embedding that the tile's outer box covers.
    """

    maps: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float32] | None = None
    covered: float = 0.0


class Segment(Stage[Labels]):
    """Stage `segment`."""

    name = "segment"
    network = True
    upstream: tuple[str, ...] = ("plan",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.plan = RunPlan.of(job)
        self.batch = self.plan.batch
        if self.config.compute.store_embeddings:
            self.upstream = ("plan", "encode")

    @cached_property
    def parameters(self) -> AisParameters:
        """The model's tuned values, where the configuration does not say otherwise."""
        stated = self.config.ais.model_dump(exclude_none=True)
        return AisParameters(**{**self.plan.ais, **stated})

    @cached_property
    def _reader(self) -> TileReader:
        return TileReader(self.plan)

    def blocks(self) -> Iterator[Block]:
        return self.plan.tile_blocks()

    def reset(self) -> None:
        FragmentStore.create(self.paths, self.plan)

    def sweep(self) -> None:
        FragmentStore(self.paths, self.plan).sweep()

    def compute(self, block: Block, attempt: Attempt) -> Labels:
        reader = self._reader
        reader.prefetch(self.plan.outer_cover(block))
        tiles = [tile for tile in self.plan.tiles(block) if not reader.is_empty(*tile)]
        predict = predictor(self.plan, reader, self.paths.embeddings if self._stored else None)
        labels: Labels = {}
        # The watershed of a batch runs beside the network on the next one.
        with ThreadPoolExecutor(1) as pool:
            futures = {}
            for batch in _batches(tiles, attempt.batch or self.batch):
                for tile, predicted in zip(batch, predict(block, batch), strict=True):
                    futures[tile] = pool.submit(self._label, reader, *tile, predicted)
            labels = {tile: future.result() for tile, future in futures.items()}
        return labels

    @property
    def _stored(self) -> bool:
        return self.config.compute.store_embeddings

    def _label(self, reader: TileReader, z: int, tile: int, predicted: Predicted) -> TileFragments:
        """Labels in the frame of the outer box, from predictions on its part in the plane."""
        outer = self.plan.grid.outer(tile)
        frame = np.zeros(outer.shape, np.uint32)
        inside = self.plan.valid(tile).relative_to(outer).slices
        foreground, center, boundary = predicted.maps
        labels = segment_ais(foreground, center, boundary, self.parameters)
        frame[inside] = labels
        embedding = None
        if predicted.embedding is not None:
            embedding = mean_embeddings(predicted.embedding, frame, predicted.covered)
        return TileFragments(frame, mean_signal(labels, reader.inside(z, tile)), embedding)

    def write(self, block: Block, result: Labels) -> dict[str, Any]:
        return FragmentStore(self.paths, self.plan).write(block, result)

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        counts = FragmentStore(self.paths, self.plan).finalize(self.blocks())
        return {
            **counts,
            "parameters": vars(self.parameters),
            "tiles": sum(record["tiles"] for record in records),
        }


def predictor(
    plan: RunPlan, reader: TileReader, embeddings: os.PathLike[str] | None = None
) -> Callable[[Block, list[Tile]], Iterator[Predicted]]:
    """Function that yields what is predicted for each tile."""
    if plan.predictions is not None:
        return lambda block, tiles: (Predicted(_stored(reader, *tile)) for tile in tiles)

    from volsam.segment.predict import decode_tiles, embed_tiles, network_side, predict_clipped
    from volsam.stages.encode import EmbeddingStore, model_of

    model = model_of(plan)

    def predict(block: Block, tiles: list[Tile]) -> Iterator[Predicted]:
        if plan.compat == "micro-sam":
            for z, tile in tiles:
                yield Predicted(predict_clipped(model, reader.raw(z, plan.valid(tile))))
            return
        if embeddings is not None:
            encoded = EmbeddingStore(embeddings, plan).read(tiles)
        else:
            encoded = embed_tiles(model, reader.outer(tiles), scale=plan.scale)
        size = plan.grid.outer_size
        predictions = decode_tiles(model, encoded, scale=plan.scale, size=size)
        short = [None] * len(tiles) if plan.frames is None else project(encoded)
        covered = network_side(model, size, plan.scale) / model.image_size * encoded.shape[-2]
        for (_, tile), maps, embedding in zip(tiles, predictions, short, strict=True):
            inside = plan.valid(tile).relative_to(plan.grid.outer(tile))
            yield Predicted(maps[(slice(None), *inside.slices)], embedding, covered)

    return predict


def _stored(reader: TileReader, z: int, tile: int) -> npt.NDArray[np.float32]:
    predictions = reader.predictions(z, tile)
    if not np.isfinite(predictions).all():
        raise VolsamError(
            f"{reader.predicted.info.path} holds NaN or infinite values in slice {z}; replace them by "
            "numbers first."
        )
    return predictions


def _batches(tiles: list[Tile], size: int) -> Iterator[list[Tile]]:
    for start in range(0, len(tiles), size):
        yield tiles[start : start + size]
