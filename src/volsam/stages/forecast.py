"""What a run will cost: tiles, bytes, memory and hours, from its plan and one timed tile."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from volsam.config import Compute, Output
from volsam.errors import VolsamError
from volsam.stages.runplan import RunPlan
from volsam.volume.info import VolumeInfo

if TYPE_CHECKING:
    from volsam.models import Model

# Labels of cells and nuclei compress 20 to 60 times with Zstandard; the disk check assumes less.
LABEL_COMPRESSION = 10
# Watershed, overlaps and writing, seconds per megapixel, measured with `make bench`.
POSTPROCESSING = 0.3
# Timing costs a tile: too much where there are hardly more to compute.
TIMED_FROM = 20


@dataclass(frozen=True)
class Forecast:
    """Forecast of one run.

    Parameters
    ----------
    tiles, blocks : int
        Tiles over all slices, and blocks of them.
    voxels : int
        Voxels of the region.
    fragment_bytes, label_bytes, embedding_bytes : int
        Raw bytes of the intermediates, of the labels with their pyramid, and of stored embeddings
        (which hardly compress).
    worker_bytes : int
        Memory of one worker.
    copy_bytes : int
        Raw bytes of the copy of the image that is yet to be made, with its pyramid.
    files : int
        Files of the copy, intermediates and labels together; stored embeddings are one more per block.
    tile_seconds : float or None
        One tile on this machine with one worker; None if it was not timed.
    enlarged : float
        By how much the key `scale` makes tiles longer than the model's input.
    """

    tiles: int
    blocks: int
    voxels: int
    fragment_bytes: int
    label_bytes: int
    embedding_bytes: int
    copy_bytes: int
    worker_bytes: int
    files: int
    tile_seconds: float | None
    enlarged: float = 1.0

    def hours(self, workers: int = 1) -> float | None:
        """Hours of the tile stages with `workers` workers like this machine."""
        return (
            None if self.tile_seconds is None else self.tiles * self.tile_seconds / workers / 3600
        )

    def to_json(self) -> dict[str, Any]:
        """Plain types for the marker."""
        return asdict(self) | {"hours": self.hours()}

    def text(self, plan: RunPlan, workers: int = 1) -> str:
        """The forecast for people."""
        hours = self.hours(workers)
        rows, columns = plan.grid.counts
        frames = "" if plan.frames is None else f"{plan.frames} frames of "
        extent = (plan.depth, *plan.shape[1:])
        lines = [
            f"volume      {frames}{' x '.join(map(str, extent))} voxels (zyx) of "
            f"{' x '.join(f'{size:g}' for size in plan.voxel_size)} {plan.unit}, {plan.dtype}",
            f"model       {plan.model}, scale {plan.scale:.3g}, {plan.precision}",
            f"tiles       {self.tiles} ({rows} x {columns} per slice) of {plan.tile} + 2 x {plan.halo} "
            f"pixels, in {self.blocks} blocks",
            f"disk        labels {size_text(self.label_bytes)}, fragments "
            f"{size_text(self.fragment_bytes)} before compression; stored embeddings would be "
            f"{size_text(self.embedding_bytes)}",
            f"files       about {self.files:,}",
            f"memory      {size_text(self.worker_bytes)} per worker",
            f"time        {'not timed' if hours is None else f'{hours:.2f} h for the tiles'} "
            f"with {workers} worker{'s' if workers > 1 else ''} of {plan.threads} thread"
            f"{'s' if plan.threads > 1 else ''} like this machine",
        ]
        return "\n".join(lines)

    def check(self, folder: Path, compute: Compute) -> None:
        """Refuse a run that the disk, the memory or a quota of files cannot hold.

        Raises
        ------
        VolsamError
            What is too large, and which key makes it smaller.
        """
        gb = compute.max_memory_gb
        limit = gb * 2**30 if gb else psutil.virtual_memory().total
        if self.worker_bytes > limit:
            mend = "; lower compute.batch, compute.block_tiles or compute.block_slices."
            if self.enlarged > 1 and self.worker_bytes / self.enlarged**2 <= limit:
                mend = (
                    f", since scale resamples the image by a factor of {1 / self.enlarged:.3g} and "
                    f"tiles are {self.enlarged:.3g} times as long as the model's input; correct scale, "
                    "or state tiles.size."
                )
            raise VolsamError(
                f"A worker would need about {size_text(self.worker_bytes)} of memory and "
                f"{size_text(limit)} are there{mend}"
            )
        embeddings = compute.store_embeddings
        needed = (self.label_bytes + self.fragment_bytes) // LABEL_COMPRESSION + self.copy_bytes
        needed += self.embedding_bytes if embeddings else 0
        parent = next(p for p in (folder, *folder.absolute().parents) if p.is_dir())
        free = shutil.disk_usage(parent).free
        if needed > free:
            copy, instead = "", ""
            if self.copy_bytes:
                copy = (
                    f" ({size_text(self.copy_bytes)} of it a copy of the image, before compression)"
                )
                instead = "an image in OME-Zarr, which stays where it is, "
            raise VolsamError(
                f"The run needs about {size_text(needed)}{copy} in {parent} and {size_text(free)} are "
                f"free; choose another results folder, {instead}a region, or store no embeddings."
            )
        files = self.files + (self.blocks if embeddings else 0)
        if compute.max_files is not None and files > compute.max_files:
            raise VolsamError(
                f"The run would write about {files:,} files and compute.max_files is "
                f"{compute.max_files:,}; raise compute.block_slices or compute.block_tiles, and "
                "output.shard."
            )


def forecast(
    plan: RunPlan,
    info: VolumeInfo,
    model: Model | None,
    *,
    timed_from: int = 1,
    shard: Sequence[int] = Output().shard,
    copy: tuple[int, int] = (0, 0),
    enlarged: float = 1.0,
) -> Forecast:
    """Forecast of a plan; times one tile of noise if there is a model and `timed_from` tiles.

    Parameters
    ----------
    shard : (z, y, x)
        What of the labels is one file.
    copy : (int, int)
        Bytes that the copy of the image still needs, and its files.
    enlarged : float
        See `Forecast`.
    """
    blocks, tiles = plan.counts()
    outer = plan.grid.outer_size
    block_pixels = plan.block_slices * (plan.block_tiles * outer) ** 2
    # Image, labels as written, labels by tile and a copy while compressing.
    worker = block_pixels * (np.dtype(plan.dtype).itemsize + 3 * 4) + plan.batch * outer**2 * 4 * 8
    worker += psutil.Process().memory_info().rss
    # What does not fit is refused by `check`; to time it would be the end of this process.
    timed = tiles >= timed_from and worker < psutil.virtual_memory().total
    seconds: float | None = outer**2 / 1e6 * POSTPROCESSING
    embedding = 0
    if model is not None:
        embedding = int(np.prod(model.embedding_shape)) * (4 if model.precision == "fp32" else 2)
        network = _time_tile(plan, model) if timed else None
        seconds = None if network is None or seconds is None else network + seconds
    return Forecast(
        tiles=tiles,
        blocks=blocks,
        voxels=plan.region_box.size,
        fragment_bytes=tiles * outer**2 * 4,
        label_bytes=plan.region_box.size * 4 * 4 // 3,
        embedding_bytes=tiles * embedding,
        copy_bytes=copy[0],
        worker_bytes=int(worker),
        files=3 * blocks + _label_files(plan, shard) + copy[1],
        tile_seconds=None if seconds is None else round(seconds, 4),
        enlarged=enlarged,
    )


def _label_files(plan: RunPlan, shard: Sequence[int]) -> int:
    """Shards of all levels, and a table of objects for each of the finest."""
    finest = prod(ceil(n / s) for n, s in zip(plan.shape, shard, strict=True))
    coarser = (
        prod(ceil(n / f / s) for n, f, s in zip(plan.shape, level, shard, strict=True))
        for level in plan.factors
    )
    return 2 * finest + sum(coarser)


def _time_tile(plan: RunPlan, model: Model) -> float:
    from volsam.segment.predict import predict_tiles

    size = min(plan.grid.outer_size, int(model.image_size / plan.scale))
    noise = np.random.default_rng(0).random((1, size, size), dtype=np.float32)
    started = time.perf_counter()
    predict_tiles(model, noise, scale=plan.scale, batch=1)
    return time.perf_counter() - started


def size_text(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError
