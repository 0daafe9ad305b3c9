"""Object measurements as sums that add up over blocks.

The sums are integers (coordinates, counts, integer intensities) or float64, the table is sorted by
id: the same labels and image give the same table however the volume was cut. Float intensities are
summed exactly up to rounding to float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

AXES = "zyx"

# How columns of partial sums are joined, and with what value that begins; all others are added.
_JOINED: dict[str, tuple[np.ufunc, int]] = {
    "min_": (np.minimum, np.iinfo(np.int64).max),
    "max_": (np.maximum, np.iinfo(np.int64).min),
}


def measure_block(
    labels: npt.NDArray[Any], channels: npt.NDArray[Any] | None, origin: Sequence[int]
) -> pa.Table:
    """Partial sums of the objects in one block.

    Parameters
    ----------
    labels : unsigned integer (z, y, x)
        Object ids, 0 is background.
    channels : (c, z, y, x) or None
        Intensities at the same voxels.
    origin : (int, int, int)
        Voxel coordinates of the block's first voxel.

    Returns
    -------
    pyarrow.Table
        One row per object: id, voxels, and per axis sum, min and max of the coordinate; per channel
        the sum of the intensities.
    """
    places = np.nonzero(labels)
    ids, inverse = np.unique(labels[places], return_inverse=True)
    columns: dict[str, npt.NDArray[Any]] = {
        "id": ids.astype(np.uint64),
        "voxels": np.bincount(inverse, minlength=len(ids)).astype(np.int64),
    }
    order = np.argsort(inverse, kind="stable")
    firsts = np.searchsorted(inverse[order], np.arange(len(ids)))
    for axis, place, start in zip(AXES, places, origin, strict=True):
        coordinate = (place + start)[order]
        for name, reduce in (("sum", np.add), ("min", np.minimum), ("max", np.maximum)):
            columns[f"{name}_{axis}"] = _reduce(reduce, coordinate, firsts)
    for number, channel in enumerate(() if channels is None else channels):
        kind = np.int64 if np.issubdtype(channel.dtype, np.integer) else np.float64
        values = channel[places].astype(kind)[order]
        columns[f"intensity_{number}"] = _reduce(np.add, values, firsts).astype(np.float64)
    return pa.table(columns)


def _reduce(
    operation: np.ufunc, values: npt.NDArray[Any], firsts: npt.NDArray[np.int64]
) -> npt.NDArray[Any]:
    return operation.reduceat(values, firsts) if len(firsts) else values[:0]


def distinct_names(names: Sequence[str], channels: int) -> list[str]:
    """One name per channel: its own, or its number where that is missing or another's too.

    Parameters
    ----------
    names : sequence of str
        Of all channels, or none.
    channels : int
    """
    numbers = [str(number) for number in range(channels)]
    if len(names) != channels:
        return numbers
    chosen = [
        name if name.strip() and list(names).count(name) == 1 else number
        for name, number in zip(names, numbers, strict=True)
    ]
    # A channel may be named like the number of another.
    return chosen if len(set(chosen)) == channels else numbers


def add_up(tables: Iterable[pa.Table], numbers: range) -> pa.Table:
    """Join partial sums from `measure_block`: one row per object that has voxels, sorted by id.

    Parameters
    ----------
    tables : iterable of pyarrow.Table
        One at a time is held.
    numbers : range
        From the first to the last id; hardly one is missing.
    """
    # An array for each column, with a place for each object: to group rows needs seven times as much.
    joined: dict[str, npt.NDArray[Any]] = {}
    for table in tables:
        place = table["id"].to_numpy().astype(np.int64) - numbers.start
        for name in table.column_names[1:]:
            values = table[name].to_numpy()
            join, start = _JOINED.get(name[:4], (np.add, 0))
            if name not in joined:
                joined[name] = np.full(len(numbers), start, values.dtype)
            joined[name][place] = join(joined[name][place], values)
    ids = np.arange(numbers.start, numbers.stop, dtype=np.uint64)
    if len(there := np.flatnonzero(joined["voxels"])) < len(ids):
        ids, joined = ids[there], {name: column[there] for name, column in joined.items()}
    return pa.table({"id": ids, **joined})


def finish(
    summed: pa.Table,
    voxel_size: tuple[float, float, float],
    unit: str,
    channel_names: Sequence[str],
    depth: int | None = None,
) -> pa.Table:
    """The object table, or some rows of it.

    Parameters
    ----------
    summed : pyarrow.Table
        From `add_up`, or some rows of it.
    voxel_size : (float, float, float)
        zyx, in `unit`.
    unit : str
    channel_names : sequence of str
        As in the image's metadata; empty if there are none.
    depth : int, optional
        Slices of a frame of a sequence: objects get their frame, and z is counted within it.

    Returns
    -------
    pyarrow.Table
        id, frame (of a sequence), voxels, volume; centroid and bounding box (half-open) per axis in
        voxels and in `unit`; slices; mean intensity per channel (`distinct_names`). Sorted by id;
        unit and voxel size are in the metadata.
    """
    column = {name: summed[name].to_numpy() for name in summed.column_names}
    voxels = column["voxels"]
    frame = 0 * voxels if depth is None else column["min_z"] // depth
    first = frame * (depth or 0)
    for name in ("min_z", "max_z"):
        column[name] = column[name] - first
    column["sum_z"] = column["sum_z"] - first * voxels
    table: dict[str, npt.NDArray[Any]] = {
        "id": column["id"],
        **({} if depth is None else {"frame": frame.astype(np.int64)}),
        "voxels": voxels,
        "volume": voxels * float(np.prod(voxel_size)),
    }
    for axis, size in zip(AXES, voxel_size, strict=True):
        centroid = column[f"sum_{axis}"] / voxels
        low, high = column[f"min_{axis}"], column[f"max_{axis}"] + 1
        table |= {
            f"centroid_{axis}": centroid,
            f"bbox_{axis}_start": low,
            f"bbox_{axis}_stop": high,
            f"centroid_{axis}_{unit}": centroid * size,
            f"bbox_{axis}_start_{unit}": low * size,
            f"bbox_{axis}_stop_{unit}": high * size,
        }
    table["slices"] = column["max_z"] + 1 - column["min_z"]
    channels = sum(name.startswith("intensity_") for name in column)
    for number, name in enumerate(distinct_names(channel_names, channels)):
        mean = column[f"intensity_{number}"] / voxels
        table[f"mean_intensity_{name}"] = mean.astype(np.float32)
    metadata = {"unit": unit, "voxel_size_zyx": ",".join(str(size) for size in voxel_size)}
    return pa.table(table).replace_schema_metadata(metadata)
