"""Stages whose blocks leave tables: one Parquet file per block, in a folder of the stage."""

from __future__ import annotations

import shutil
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy.typing as npt

from volsam.blocks.stage import Block, Job, Stage
from volsam.paths import SamplePaths, replace, sweep
from volsam.stages.runplan import RunPlan

if TYPE_CHECKING:
    import pyarrow as pa

Result = TypeVar("Result")


class TabledStage(Stage[Result]):
    """Base of those stages."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.plan = RunPlan.of(job)
        self.folder = self.paths.tables(self.name)

    def reset(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def sweep(self) -> None:
        sweep(self.folder)

    def table_path(self, block: Block, kind: str = "") -> Path:
        """Where a table of a block lies; `kind` tells it from its other tables."""
        return self.folder / f"{kind}{block.stem}.parquet"

    def write_table(self, block: Block, table: pa.Table, kind: str = "") -> None:
        """Write a table of a block."""
        import pyarrow.parquet as pq

        path = self.table_path(block, kind)
        replace(path, lambda partial: pq.write_table(table, partial))


def vectors(array: npt.NDArray[Any]) -> pa.FixedSizeListArray:
    """A column that holds a vector per row, (n, d)."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(array.ravel(), array.shape[1])


def columns(table: pa.Table) -> dict[str, npt.NDArray[Any]]:
    """Columns of a table by name, (n,), or (n, d) where they hold vectors."""
    import pyarrow as pa

    found = {}
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        column = table[name]
        if pa.types.is_fixed_size_list(kind):
            flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
            found[name] = flat.reshape(-1, kind.list_size)
        else:
            found[name] = column.to_numpy()
    return found


def read_file(path: Path, without: Container[str] = ()) -> pa.Table:
    """The table of a block, some columns left out.

    `pyarrow.parquet.read_table` prepares for many files, which takes longer than to read one of ours.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        chosen = [name for name in file.schema_arrow.names if name not in without]
        return file.read(chosen, use_threads=False)


def table_files(paths: SamplePaths, stage: str, kind: str = "") -> list[Path]:
    """Tables of all blocks of a stage."""
    return sorted(paths.tables(stage).glob(f"{kind}*.parquet"))


def read_tables(
    paths: SamplePaths, stage: str, kind: str = "", without: Container[str] = ()
) -> pa.Table:
    """Tables of all blocks of a stage, joined in the order of their names; some columns left out."""
    import pyarrow as pa

    files = table_files(paths, stage, kind)
    return pa.concat_tables(read_file(path, without) for path in files)
