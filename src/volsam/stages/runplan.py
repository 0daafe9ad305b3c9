"""The run plan: every decision that the tile stages share, resolved once and written down.

Invariants
----------
- The plan is the marker of the stage `plan`; a stage reads it from there and decides nothing anew.
- Tiles are a function of the plane and the plan only. Blocks group tiles for one writer and may be
  chosen freely: no result depends on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import ceil, prod
from typing import Any

from volsam.blocks.stage import Block, Job
from volsam.errors import VolsamError
from volsam.geometry import Box, TileGrid, split


@dataclass(frozen=True)
class RunPlan:
    """Resolved decisions of a run on one sample.

    Parameters
    ----------
    image : dict
        Arguments of `volume.source.open_volume` for the image that workers read.
    predictions : dict or None
        The same for stored predictions, which then stand in for the network.
    shape : (int, int, int)
        Voxels of the volume, zyx; of a sequence the slices of all frames (`volume.frames`).
    dtype : str
        Type of its intensities.
    voxel_size : (float, float, float)
        Edge lengths in `unit`, zyx.
    unit : str
        Length unit as OME-Zarr spells it.
    translation : (float, float, float)
        Position of the first voxel in `unit`, zyx.
    factors : tuple of (int, int, int)
        Downsampling of the coarser levels of image and labels, relative to the one segmented.
    region : pair of zyx
        Start and stop of the region of interest, voxels.
    tile, halo : int
        Tile grid, pixels of the image.
    scale : float
        Pixels of the network's input per pixel of the image.
    model : str
        What `models.load_model` takes, or ``predictions:<path>``.
    model_hash : str
        Hash of the weights (or fingerprint of the predictions).
    ais : dict
        Thresholds tuned for the model, in pixels of the image.
    normalisation : dict
        `volume.normalise.Normalisation` in plain types.
    threshold : float or None
        Tiles not brighter than this are skipped.
    mask : dict or None
        Arguments of `open_volume` for the mask that says which tiles to skip.
    device, precision, compat : str
        How the network runs.
    compile : bool
        Whether a GPU runs a compiled encoder.
    allow_pickle : bool
        Whether a checkpoint may hold Python objects.
    batch, threads : int
        Tiles per call of the network and threads per worker.
    block_slices, block_tiles : int
        Extent of a block in slices and in tile rows and columns.
    segmentation : dict or None
        Arguments of `open_volume` for labels that stand in for a model.
    frames : int or None
        Frames of a sequence, whose slices are numbered through; None for a volume.
    z_axis : bool
        The image has a z axis, be it of length 1, which labels share.
    """

    image: dict[str, Any]
    predictions: dict[str, Any] | None
    shape: tuple[int, int, int]
    dtype: str
    voxel_size: tuple[float, float, float]
    unit: str
    translation: tuple[float, float, float]
    factors: tuple[tuple[int, int, int], ...]
    region: tuple[tuple[int, int, int], tuple[int, int, int]]
    tile: int
    halo: int
    scale: float
    model: str
    model_hash: str
    ais: dict[str, float]
    normalisation: dict[str, Any]
    threshold: float | None
    mask: dict[str, Any] | None
    device: str
    precision: str
    compat: str
    compile: bool
    allow_pickle: bool
    batch: int
    threads: int
    block_slices: int
    block_tiles: int
    segmentation: dict[str, Any] | None
    frames: int | None
    z_axis: bool = False

    @classmethod
    def of(cls, job: Job) -> RunPlan:
        """The plan of a job whose stage `plan` is finished."""
        try:
            return cls.from_json(job.marker("plan")["outputs"]["plan"])
        except (KeyError, TypeError, ValueError):
            raise VolsamError(
                f"The plan of sample {job.sample} is of another version of volsam; run stage plan "
                "again."
            ) from None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RunPlan:
        """Inverse of `to_json`."""
        z, y, x = data["shape"]
        start, stop = data["region"]
        return cls(
            **{
                **data,
                "shape": (z, y, x),
                "voxel_size": tuple(data["voxel_size"]),
                "translation": tuple(data["translation"]),
                "factors": tuple((fz, fy, fx) for fz, fy, fx in data["factors"]),
                "region": (tuple(start), tuple(stop)),
            }
        )

    def to_json(self) -> dict[str, Any]:
        """Plain types for the marker."""
        return asdict(self)

    @property
    def depth(self) -> int:
        """Slices of a frame, or of the volume."""
        return self.shape[0] // (self.frames or 1)

    @property
    def prompted(self) -> bool:
        """Whether the labels that stand in for a model come from prompts (stage `propagate`)."""
        return self.segmentation is not None and not self.model.startswith("segmentation:")

    @property
    def grid(self) -> TileGrid:
        """Tiles of a slice."""
        return TileGrid(self.shape[1:], self.tile, self.halo)

    @property
    def plane(self) -> Box:
        """Extent of a slice."""
        return Box.of(self.shape[1:])

    @property
    def region_box(self) -> Box:
        """Region of interest."""
        return Box(*self.region)

    def tile_blocks(self) -> Iterator[Block]:
        """Blocks of the tile stages: boxes in (slice, tile row, tile column) that meet the region."""
        rows, columns = self.grid.counts
        extent = Box.of((self.shape[0], rows, columns))
        size = (self.block_slices, self.block_tiles, self.block_tiles)
        (z0, y0, x0), (z1, y1, x1) = self.region
        wanted = Box(
            (z0, y0 // self.tile, x0 // self.tile),
            (z1, ceil(y1 / self.tile), ceil(x1 / self.tile)),
        )
        return (
            Block(index, box) for index, box in split(extent, size) if box.intersect(wanted).size
        )

    def counts(self) -> tuple[int, int]:
        """Blocks and tiles that meet the region, without a look at each."""
        starts, stops = self.region
        sizes = (1, self.tile, self.tile)
        first = [a // n for a, n in zip(starts, sizes, strict=True)]
        last = [ceil(b / n) for b, n in zip(stops, sizes, strict=True)]
        block = (self.block_slices, self.block_tiles, self.block_tiles)
        blocks = prod(ceil(b / n) - a // n for a, b, n in zip(first, last, block, strict=True))
        return blocks, prod(b - a for a, b in zip(first, last, strict=True))

    def tiles(self, block: Block) -> Iterator[tuple[int, int]]:
        """(slice, tile number) of a block's tiles that meet the region, in id order."""
        (z0, row0, column0), (z1, row1, column1) = block.box.start, block.box.stop
        region = self.region_box
        wanted = Box(region.start[1:], region.stop[1:])
        for z in range(max(z0, region.start[0]), min(z1, region.stop[0])):
            for row in range(row0, row1):
                for column in range(column0, column1):
                    tile = self.grid.index(row, column)
                    if self.grid.inner(tile).intersect(wanted).size:
                        yield z, tile

    def outer_cover(self, block: Block) -> Box:
        """Smallest box of the plane (zyx) that covers the outer boxes of a block, unclipped."""
        (z0, row0, column0), (z1, row1, column1) = block.box.start, block.box.stop
        first = self.grid.outer(self.grid.index(row0, column0))
        last = self.grid.outer(self.grid.index(row1 - 1, column1 - 1))
        return Box((z0, *first.start), (z1, *last.stop))

    def valid(self, tile: int) -> Box:
        """The part of a tile's outer box that lies in the plane."""
        return self.grid.outer(tile).intersect(self.plane)
