"""The fragment store: labels of every tile and slice, their table, and their global ids.

Layout
------
``fragments.zarr``
    uint32 (slices, tile rows x outer, tile columns x outer): one chunk holds one tile of one slice
    with its halo, one shard a block.
``tables/segment/<block>.parquet``
    One row per fragment of a block: slice, tile, local id, pixels in the inner box, its mean
    normalised intensity, halo included, and that of the tile's unlabelled pixels. In a sequence that a
    network segments, also its mean embedding (`segment.object_embeddings`).
``fragments.parquet``, ``offsets.npy``
    All fragments in id order, and the first global id of every (slice, tile): a prefix sum over the
    counts, so ids are a function of the data and not of scheduling.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from volsam.blocks.stage import Block
from volsam.geometry import Box
from volsam.paths import SamplePaths, replace, sweep
from volsam.stages.tabled import read_file, vectors
from volsam.volume.store import writing

if TYPE_CHECKING:
    import zarr

    from volsam.stages.runplan import RunPlan


COLUMNS = {
    "z": np.int32,
    "tile": np.int32,
    "local": np.uint32,
    "size": np.uint32,
    "signal": np.float32,
    "background": np.float32,
}


class TileFragments(NamedTuple):
    """What one tile of one slice gives.

    Attributes
    ----------
    labels : uint32 (outer, outer)
        Local labels 1..n, 0 is background.
    signal : float32 (n + 1,)
        Mean normalised intensity of the unlabelled pixels and of each label.
    embedding : float32 (n + 1, d) or None
        Mean embedding of each label, if it is to be kept.
    """

    labels: npt.NDArray[np.uint32]
    signal: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float32] | None = None


class FragmentStore:
    """Reads and writes the fragments of a run."""

    def __init__(self, paths: SamplePaths, plan: RunPlan) -> None:
        self.paths, self.plan = paths, plan
        self.tables = paths.tables("segment")

    @classmethod
    def create(cls, paths: SamplePaths, plan: RunPlan) -> None:
        """An empty store in the place of whatever is there."""
        import zarr
        from zarr.codecs import ZstdCodec

        shutil.rmtree(paths.tables("segment"), ignore_errors=True)
        paths.tables("segment").mkdir(parents=True)
        shutil.rmtree(paths.fragments, ignore_errors=True)
        rows, columns = plan.grid.counts
        outer = plan.grid.outer_size
        zarr.create_array(
            store=paths.fragments,
            shape=(plan.shape[0], rows * outer, columns * outer),
            dtype="uint32",
            chunks=(1, outer, outer),
            shards=(plan.block_slices, plan.block_tiles * outer, plan.block_tiles * outer),
            compressors=ZstdCodec(level=0),
            fill_value=0,
            zarr_format=3,
        )

    def sweep(self) -> None:
        """Remove what a kill left half-written."""
        sweep(self.tables)
        for partial in self.paths.fragments.rglob("*.partial"):
            partial.unlink(missing_ok=True)

    def open(self) -> zarr.Array[Any]:
        """The label array."""
        import zarr

        return zarr.open_array(self.paths.fragments, mode="r+")

    def write(
        self, block: Block, fragments: dict[tuple[int, int], TileFragments]
    ) -> dict[str, Any]:
        """Write the shard and the table of a block."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        grid, outer = self.plan.grid, self.plan.grid.outer_size
        box = block.box
        frame = np.zeros((box.shape[0], box.shape[1] * outer, box.shape[2] * outer), np.uint32)
        columns: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in COLUMNS}
        region = self.plan.region_box
        wanted = Box(region.start[1:], region.stop[1:])
        embeddings = []
        for (z, tile), (image, signal, embedding) in sorted(fragments.items(), key=itemgetter(0)):
            row, column = grid.position(tile)
            y, x = (row - box.start[1]) * outer, (column - box.start[2]) * outer
            frame[z - box.start[0], y : y + outer, x : x + outer] = image
            count = int(image.max())
            inner = grid.inner(tile).intersect(wanted).relative_to(grid.outer(tile))
            sizes = np.bincount(image[inner.slices].ravel(), minlength=count + 1)[1:]
            columns["z"].append(np.full(count, z, np.int32))
            columns["tile"].append(np.full(count, tile, np.int32))
            columns["local"].append(np.arange(1, count + 1, dtype=np.uint32))
            columns["size"].append(sizes.astype(np.uint32))
            columns["signal"].append(signal[1:])
            columns["background"].append(np.full(count, signal[0], np.float32))
            if embedding is not None:
                embeddings.append(embedding[1:])
        with writing(self.paths.fragments):
            self.open()[self._slices(box)] = frame
        table = pa.table(
            {k: np.concatenate([np.empty(0, COLUMNS[k]), *v]) for k, v in columns.items()}
        )
        if embeddings:
            table = table.append_column("embedding", vectors(np.concatenate(embeddings)))
        replace(self._table(block), lambda path: pq.write_table(table, path))
        return {"tiles": len(fragments), "fragments": table.num_rows, "bytes": frame.nbytes}

    def read(self, box: Box) -> npt.NDArray[np.uint32]:
        """Fragments of a box of (slice, tile row, tile column), clipped to the grid.

        Returns
        -------
        uint32 array (slices, rows, columns, outer, outer)
        """
        outer = self.plan.grid.outer_size
        array = np.asarray(self.open()[self._slices(box)], dtype=np.uint32)
        z, rows, columns = box.shape
        return array.reshape(z, rows, outer, columns, outer).transpose(0, 1, 3, 2, 4)

    def _slices(self, box: Box) -> tuple[slice, ...]:
        outer = self.plan.grid.outer_size
        scale = (1, outer, outer)
        return tuple(
            slice(a * s, b * s) for a, b, s in zip(box.start, box.stop, scale, strict=True)
        )

    def _table(self, block: Block) -> Any:
        return self.tables / f"{block.stem}.parquet"

    def finalize(self, blocks: Iterable[Block]) -> dict[str, Any]:
        """Join the tables, number all fragments, write `fragments.parquet` and `offsets.npy`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        blocks = sorted(blocks, key=lambda block: block.box.start)  # in whatever order they started
        tiles = len(self.plan.grid)
        # A block without tiles has no embeddings. There are two schemas, however many blocks.
        found = dict.fromkeys(pq.read_schema(self._table(block)) for block in blocks)
        schema = pa.unify_schemas(list(found))
        counts = np.zeros(self.plan.shape[0] * tiles, np.int64)

        def join(path: Path) -> None:
            # Blocks of the same slices at a time, whose embeddings fit into memory.
            with pq.ParquetWriter(path, schema) as writer:
                for _, slab in groupby(blocks, lambda block: block.box.start[0]):
                    tables = [read_file(self._table(block)) for block in slab]
                    table = pa.concat_tables(
                        [schema.empty_table(), *tables], promote_options="default"
                    )
                    if not table.num_rows:
                        continue
                    z, tile, local = (table[name].to_numpy() for name in ("z", "tile", "local"))
                    place = z.astype(np.int64) * tiles + tile
                    writer.write_table(table.take(np.lexsort((local, place))))
                    first = int(place.min())
                    found = np.bincount(place - first)
                    counts[first : first + len(found)] += found

        replace(self.paths.fragment_table, join)
        offsets = np.zeros(len(counts) + 1, np.uint64)
        np.cumsum(counts, out=offsets[1:])
        replace(self.paths.offsets, lambda path: save_array(path, offsets))
        return {"fragments": int(offsets[-1])}

    def offsets(self) -> npt.NDArray[np.uint64]:
        """First global id of every (slice, tile), row-major, and the total at the end."""
        offsets: npt.NDArray[np.uint64] = np.load(self.paths.offsets, mmap_mode="r")
        return offsets


def save_array(path: Any, array: npt.NDArray[Any]) -> None:
    """Write an array in numpy's own format.

    `numpy.save` hands the file to C, where a disk that runs full at the end goes unnoticed.
    """
    layout = np.lib.format
    with path.open("wb") as file:
        layout.write_array_header_1_0(file, layout.header_data_from_array_1_0(array))
        file.write(np.ascontiguousarray(array).data)
