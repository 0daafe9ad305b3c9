"""Stored predictions without a model, replayed on a small and on a large volume: memory must not grow.

Limits: every process <= 1.5 GiB, and its peak within 10 % between the two sizes. The volume is uint16,
so 1 GiB is 512 Mi voxels; its predictions are one slab of blob predictions, repeated. Blocks hold the
voxels, so that their memory is flat; the graph is a table, which grows with the number of fragments: a
volume packed with small nuclei is measured beside one of ordinary cells. A 2D image of 20000 x 20000
pixels, the volume with one slice, takes the same path.
"""

from __future__ import annotations

import json
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
    """Measure, and return the table; ``VOLSAM_REPLAY`` chooses GiB:pitch of objects in pixels."""
    chosen = os.environ.get("VOLSAM_REPLAY", "1:64,8:64,8:24").split(",")
    pairs = [(float(gib), int(pitch)) for gib, pitch in (pair.split(":") for pair in chosen)]
    plane = PLANE[0] * PLANE[1]
    cases = [((round(gib * 2**30 / 2 / plane), *PLANE), pitch) for gib, pitch in pairs]
    rows = []
    for shape, pitch in (*cases, (IMAGE_2D, 64)):
        work = folder / ("x".join(map(str, shape)) + f"-{pitch}")
        config = _prepare(work, shape, pitch)
        command = [str(SNAKEMAKE), "--snakefile", str(REPOSITORY / "workflow" / "Snakefile")]
        command += ["--workflow-profile", str(REPOSITORY / "profiles" / "local")]
        command += ["--configfile", str(config), "--directory", str(work)]
        cost = run(command, log=work / "log")
        voxels = " x ".join(map(str, shape))
        gib = 2 * np.prod(shape, dtype=np.int64) / 2**30
        plan = json.loads((work / "results/v/.volsam/partition.json").read_text())["outputs"]
        measured = (cost.cpu, cost.wall, cost.largest)
        rows.append(
            (f"{gib:.2g} GiB", voxels, f"{plan['fragments']:,}", *(f"{m:.0f}" for m in measured))
        )
        print(rows[-1], flush=True)
    header = ("volume", "voxels", "fragments", "CPU s", "wall s", "largest process, MiB")
    return table(header, rows)


def _prepare(work: Path, shape: tuple[int, ...], pitch: int) -> Path:
    """Image and predictions as OME-Zarr and Zarr; both compress to almost nothing."""
    work.mkdir(parents=True, exist_ok=True)
    slab = _slab(pitch)
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


def _slab(pitch: int) -> np.ndarray:
    """Predictions (3, rows, columns) of round objects on a square grid of this pitch."""
    y, x = (np.arange(n) % pitch - pitch / 2 for n in PLANE)
    distance = np.hypot(y[:, None], x[None]) / (0.42 * pitch)
    noise = ndi.gaussian_filter(np.random.default_rng(0).normal(size=PLANE), 2) * 0.3
    foreground = np.clip(1.6 - distance + noise, 0, 1)
    inside = np.clip(distance, 0, 1)
    return np.stack([foreground, inside, inside]).astype("f2")
