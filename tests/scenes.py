"""Small volumes with stored predictions, and runs of the pipeline on them without a network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
import zarr
from scipy import ndimage

from volsam.blocks.runner import run_stage
from volsam.blocks.stage import Block, Job, Stage
from volsam.config import Config, validate
from volsam.paths import SamplePaths
from volsam.stages import SEGMENTATION, stage_class

STAGES = SEGMENTATION
SAMPLE = "a"
Labels = npt.NDArray[np.uint16]
Order = Callable[[list[Block]], Sequence[Block]]


def cells(
    shape: tuple[int, int, int], count: int, radius: tuple[float, float], seed: int
) -> Labels:
    """Touching balls (flattened in z by 3) that meet half-way."""
    rng = np.random.default_rng(seed)
    grid = np.mgrid[tuple(slice(n) for n in shape)].astype(np.float32)
    labels = np.zeros(shape, np.uint16)
    nearest = np.ones(shape, np.float32)
    for number in range(1, count + 1):
        centre, size = rng.uniform((0, 0, 0), shape), rng.uniform(*radius)
        z, y, x = (axis - c for axis, c in zip(grid, centre, strict=True))
        distance = np.sqrt((3 * z) ** 2 + y**2 + x**2) / size
        closer = distance < nearest
        labels[closer], nearest[closer] = number, distance[closer]
    return labels


def rod(shape: tuple[int, int, int], radius: int = 4) -> Labels:
    """A bar from corner to corner of every slice, drifting in z: through every block on its way."""
    labels = np.zeros(shape, np.uint16)
    depth, height, width = shape
    rows, columns = np.indices((height, width))
    for z in range(depth):
        labels[z][np.abs(rows * width / height - columns + z - depth // 2) <= radius] = 1
    return labels


def sheet(shape: tuple[int, int, int]) -> Labels:
    """A sheet, 5 pixels thick, through all slices and all tile columns."""
    labels = np.zeros(shape, np.uint16)
    labels[:, shape[1] // 2 - 2 : shape[1] // 2 + 3] = 1
    return labels


def corners(shape: tuple[int, int, int], tile: int) -> Labels:
    """Cubes centred on the corners of tiles; every other corner is left empty."""
    labels = np.zeros(shape, np.uint16)
    number = 0
    for y in range(tile, shape[1], tile):
        for x in range(tile, shape[2], 2 * tile):
            number += 1
            labels[1:6, y - 4 : y + 5, x - 4 : x + 5] = number
    return labels


def predict(labels: Labels, noise: float = 0.05, seed: int = 0) -> npt.NDArray[np.float32]:
    """Foreground, centre distance and boundary distance (3, z, y, x) of labels, with noise."""
    foreground = (labels > 0).astype(np.float32)
    centre, boundary = np.ones_like(foreground), np.ones_like(foreground)
    for z, image in enumerate(labels):
        for number, place in enumerate(ndimage.find_objects(image), start=1):
            if place is None:
                continue
            mask = image[place] == number
            inside = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
            # Distance to the medial axis stands for both, so that long objects have one seed too.
            boundary[z][place][mask] = centre[z][place][mask] = 1 - (inside / inside.max())[mask]
    rng = np.random.default_rng(seed)
    stack = np.stack([foreground, centre, boundary])
    stack += noise * rng.standard_normal(stack.shape, dtype=np.float32)
    return stack.clip(0, 1).astype(np.float32)


def write_scene(folder: Path, labels: Labels, noise: float = 0.05, seed: int = 0) -> None:
    """Image, predictions and truth of a scene."""
    folder.mkdir(parents=True, exist_ok=True)
    predictions = predict(labels, noise, seed)
    z, y, x = labels.shape
    array = zarr.create_array(
        folder / "predictions.zarr", shape=(3, z, y, x), dtype="f4", chunks=(3, 1, y, x)
    )
    array[:] = predictions
    image = (predictions[0] * 1000).astype(np.uint16)
    tifffile.imwrite(folder / "image.tif", image, photometric="minisblack")
    tifffile.imwrite(folder / "truth.tif", labels, photometric="minisblack")


def settings(
    folder: Path, results: Path, *, tile: int = 24, halo: int = 8, **sections: Mapping[str, Any]
) -> dict[str, Any]:
    """Plain configuration of a scene; `sections` replace keys of the sections."""
    data: dict[str, Any] = {
        "results": str(results),
        "model": f"predictions:{folder / 'predictions.zarr'}",
        "tiles": {"size": tile, "halo": halo},
        "samples": {
            SAMPLE: {
                "image": str(folder / "image.tif"),
                "axes": "zyx",
                "voxel_size": {"z": 3, "y": 1, "x": 1},
            }
        },
    }
    for name, section in sections.items():
        if name == "sample":
            data["samples"][SAMPLE].update(section)
        else:
            data[name] = {**data.get(name, {}), **section}
    return data


def make_stage(config: Config, name: str, order: Order | None = None) -> Stage[Any]:
    """A stage whose blocks start in the given order."""
    stage = stage_class(name)(Job(config, SAMPLE))
    if order is not None:
        natural = stage.blocks
        stage.blocks = lambda: order(list(natural()))  # type: ignore[method-assign]
    return stage


def run_pipeline(
    data: dict[str, Any],
    *,
    stages: Sequence[str] = STAGES,
    order: Order | None = None,
    **options: Any,
) -> SamplePaths:
    """Run stages in this process (or with `cluster="local"`)."""
    config = validate(data)
    for name in stages:
        chosen = options if options and name not in ("ingest", "plan", "partition") else {}
        run_stage(make_stage(config, name, order), **{"cluster": "inline", **chosen})
    return SamplePaths(config.results, SAMPLE)


def read_labels(paths: SamplePaths, level: int = 0) -> npt.NDArray[Any]:
    """Labels of a run."""
    return np.asarray(zarr.open_array(paths.store / "labels" / "objects" / str(level), mode="r"))


def tree_digest(folder: Path) -> dict[str, str]:
    """Hash of every file of a folder, by relative path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def result_digest(paths: SamplePaths) -> dict[str, str]:
    """Hash of what users open: every file of the label store, and the table of objects."""
    digest = tree_digest(paths.store / "labels")
    return digest | {"objects.parquet": hashlib.sha256(paths.objects.read_bytes()).hexdigest()}


def ledger_lines(paths: SamplePaths) -> dict[str, dict[str, Any]]:
    """Ledger records by stage and block."""
    return {
        f"{path.stem}/{record['block']}": record
        for path in sorted((paths.work / "ledger").glob("*.jsonl"))
        for line in path.read_bytes().splitlines(keepends=True)
        if line.endswith(b"\n")
        for record in [json.loads(line)]
        if "block" in record
    }
