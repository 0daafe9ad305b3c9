"""Stored predictions without a model, replayed on a small and on a large volume: memory must not grow.

Limits: every process <= 1.5 GiB, and its peak within 10 % between the two sizes. The volume is uint16,
so 1 GiB is 512 Mi voxels; its predictions are one slab of blob predictions, repeated. A 2D image of
20000 x 20000 pixels, the volume with one slice, takes the same path.
"""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path

import numpy as np
import yaml
import zarr
from scipy import ndimage as ndi

from benchmarks.common import REPOSITORY, SNAKEMAKE, table
from benchmarks.measure import run

PLANE = (2048, 2048)
CHUNK = (1, 8, 512, 512)
IMAGE_2D = (1, 20000, 20000)


def main(folder: Path) -> str:
    """Measure, and return the table; ``VOLSAM_REPLAY_GIB`` chooses the sizes (1,8)."""
    sizes = [float(s) for s in os.environ.get("VOLSAM_REPLAY_GIB", "1,8").split(",")]
    shapes = [(round(gib * 2**30 / 2 / (PLANE[0] * PLANE[1])), *PLANE) for gib in sizes]
    rows = []
    for shape in (*shapes, IMAGE_2D):
        work = folder / "x".join(map(str, shape))
        config = _prepare(work, shape)
        command = [str(SNAKEMAKE), "--snakefile", str(REPOSITORY / "workflow" / "Snakefile")]
        command += ["--workflow-profile", str(REPOSITORY / "profiles" / "local")]
        command += ["--configfile", str(config), "--directory", str(work)]
        cost = run(command, log=work / "log")
        voxels = " x ".join(map(str, shape))
        gib = 2 * np.prod(shape, dtype=np.int64) / 2**30
        rows.append(
            (f"{gib:.2g} GiB", voxels, f"{cost.cpu:.0f}", f"{cost.wall:.0f}", f"{cost.largest:.0f}")
        )
        print(rows[-1], flush=True)
    header = ("volume", "voxels", "CPU s", "wall s", "largest process, MiB")
    return table(header, rows)


def _prepare(work: Path, shape: tuple[int, ...]) -> Path:
    """Image and predictions as OME-Zarr and Zarr; both compress to almost nothing."""
    work.mkdir(parents=True, exist_ok=True)
    slab = _slab()
    image = zarr.open_group(work / "image.ome.zarr", mode="w", zarr_format=3)
    scale = {"type": "scale", "scale": [2.0, 0.5, 0.5]}
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    datasets = [{"path": "0", "coordinateTransformations": [scale]}]
    multiscales = [{"axes": axes, "datasets": datasets, "name": "image"}]
    image.attrs["ome"] = {"version": "0.5", "multiscales": multiscales}
    chunks = (min(CHUNK[1], shape[0]), *CHUNK[2:])
    raw = image.create_array("0", shape=shape, dtype="u2", chunks=chunks)
    maps = zarr.create_array(
        work / "predictions.zarr",
        shape=(3, *shape),
        dtype="f2",
        chunks=(1, *chunks),
        overwrite=True,
    )
    steps = (chunks[0], *PLANE)
    for corner in product(*(range(0, n, step) for n, step in zip(shape, steps, strict=True))):
        stop = [min(a + step, n) for a, step, n in zip(corner, steps, shape, strict=True)]
        place = tuple(slice(a, b) for a, b in zip(corner, stop, strict=True))
        depth, rows, columns = (b - a for a, b in zip(corner, stop, strict=True))
        piece = np.repeat(slab[:, None, :rows, :columns], depth, axis=1)
        raw[place] = (piece[0] * 1000).astype("u2")
        maps[(slice(None), *place)] = piece
    config = {
        "results": str(work / "results"),
        "model": f"predictions:{work / 'predictions.zarr'}",
        "samples": {"v": {"image": str(work / "image.ome.zarr")}},
        "tiles": {"size": 448, "halo": 32},
    }
    path = work / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def _slab() -> np.ndarray:
    """Predictions (3, rows, columns) of about 7000 round objects."""
    pitch = 24
    y, x = (np.arange(n) % pitch - pitch / 2 for n in PLANE)
    distance = np.hypot(y[:, None], x[None]) / (0.42 * pitch)
    noise = ndi.gaussian_filter(np.random.default_rng(0).normal(size=PLANE), 2) * 0.3
    foreground = np.clip(1.6 - distance + noise, 0, 1)
    inside = np.clip(distance, 0, 1)
    return np.stack([foreground, inside, inside]).astype("f2")
