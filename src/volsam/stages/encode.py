"""Encode: embeddings of every tile and slice, kept for prompts and repeated segmentation.

Runs only if `compute.store_embeddings` asks for it; otherwise the stage `segment` encodes and decodes
in one go and nothing is stored. One embedding is one chunk, a block is one shard.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from volsam.blocks.stage import Attempt, Block, Job, Stage
from volsam.errors import VolsamError
from volsam.segment.tiles import TileReader
from volsam.stages.runplan import RunPlan
from volsam.volume.store import writing

if TYPE_CHECKING:
    import torch

    from volsam.models import Model

Embeddings = dict[tuple[int, int], npt.NDArray[np.generic]]


def model_of(plan: RunPlan) -> Model:
    """The model of a plan, loaded once per worker process."""
    return _load(
        plan.model, plan.device, plan.precision, plan.compile, plan.allow_pickle, plan.threads
    )


@lru_cache(maxsize=1)
def _load(
    spec: str, device: str, precision: str, compile: bool, allow_pickle: bool, threads: int
) -> Model:
    import torch

    from volsam.models import load_model

    torch.set_num_threads(threads)
    return load_model(
        spec, device=device, precision=precision, compile=compile, allow_pickle=allow_pickle
    )


class EmbeddingStore:
    """Embeddings (slice, tile, channel, row, column) of a run."""

    def __init__(self, path: os.PathLike[str], plan: RunPlan) -> None:
        self.path, self.plan = path, plan

    def create(self, shape: tuple[int, int, int], dtype: str, digest: str) -> None:
        """An empty store; the shape is that of one embedding."""
        import zarr

        shutil.rmtree(self.path, ignore_errors=True)
        plan = self.plan
        zarr.create_array(
            store=self.path,
            shape=(plan.shape[0], *plan.grid.counts, *shape),
            dtype=dtype,
            chunks=(1, 1, 1, *shape),
            shards=(plan.block_slices, plan.block_tiles, plan.block_tiles, *shape),
            compressors=None,
            zarr_format=3,
            attributes={"model": plan.model, "model_hash": plan.model_hash, "digest": digest},
        )

    def read(self, tiles: list[tuple[int, int]]) -> torch.Tensor:
        """Embeddings (n, channel, row, column) of (slice, tile) pairs."""
        import torch
        import zarr

        array = zarr.open_array(self.path, mode="r")
        stack = [np.asarray(array[(z, *self.plan.grid.position(tile))]) for z, tile in tiles]
        return torch.from_numpy(np.stack(stack))

    def write(self, block: Block, embeddings: Embeddings) -> int:
        """Write the shard of a block; returns its bytes."""
        import zarr

        array = zarr.open_array(self.path, mode="r+")
        shard = np.zeros((*block.box.shape, *array.shape[3:]), array.dtype)
        for (z, tile), embedding in embeddings.items():
            row, column = self.plan.grid.position(tile)
            place = (z, row, column)
            shard[tuple(p - s for p, s in zip(place, block.box.start, strict=True))] = embedding
        with writing(self.path):
            array[block.box.slices] = shard
        return int(shard.nbytes)


class Encode(Stage[Embeddings]):
    """Stage `encode`."""

    name = "encode"
    network = True
    upstream: tuple[str, ...] = ("plan",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.plan = RunPlan.of(job)
        self.batch = self.plan.batch
        if self.plan.predictions is not None:
            raise VolsamError("Stored predictions have no embeddings; set store_embeddings: false.")
        if self.plan.compat == "micro-sam":
            raise VolsamError(
                "Embeddings of tiles clipped as micro-sam does are not stored; "
                "set compute.compat: none or compute.store_embeddings: false."
            )

    @property
    def model(self) -> Model:
        """The network."""
        return model_of(self.plan)

    @cached_property
    def _reader(self) -> TileReader:
        return TileReader(self.plan)

    def blocks(self) -> Iterator[Block]:
        return self.plan.tile_blocks()

    def reset(self) -> None:
        store = EmbeddingStore(self.paths.embeddings, self.plan)
        dtype = "float32" if self.model.precision == "fp32" else "float16"
        store.create(self.model.embedding_shape, dtype, self.digest())

    def sweep(self) -> None:
        for partial in self.paths.embeddings.rglob("*.partial"):
            partial.unlink(missing_ok=True)

    def compute(self, block: Block, attempt: Attempt) -> Embeddings:
        from volsam.segment.predict import embed_tiles

        reader = self._reader
        reader.prefetch(self.plan.outer_cover(block))
        tiles = [tile for tile in self.plan.tiles(block) if not reader.is_empty(*tile)]
        size = attempt.batch or self.batch
        embeddings: Embeddings = {}
        for start in range(0, len(tiles), size):
            batch = tiles[start : start + size]
            encoded = embed_tiles(self.model, reader.outer(batch), scale=self.plan.scale)
            embeddings.update(zip(batch, encoded.float().cpu().numpy(), strict=True))
        return embeddings

    def write(self, block: Block, result: Embeddings) -> dict[str, Any]:
        size = EmbeddingStore(self.paths.embeddings, self.plan).write(block, result)
        return {"tiles": len(result), "bytes": size}

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        return {
            "store": self.paths.embeddings.name,
            "tiles": sum(record["tiles"] for record in records),
        }
