"""Automatic 3D segmentation of real EM slices: this pipeline beside micro-sam, same weights.

The same random-weight ``vit_b`` with decoder, one tile per slice, the same number of encoder passes.
Everything counts: start of Python, reading, all stages, Snakemake and Dask on our side.
Limits: CPU seconds <= 0.6 x the peer's in fp32 and <= 0.45 x in bf16, with SA50 >= 0.99 to fp32;
largest single process <= 0.85 x the peer's.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import tifffile
import yaml

from benchmarks.common import REPOSITORY, SNAKEMAKE, data, peer, table
from benchmarks.measure import Cost, run

SLICES = 5
PEER = REPOSITORY / "benchmarks" / "peer"
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "8589934592", "MALLOC_TRIM_THRESHOLD_": "17179869184"}


def main(folder: Path) -> str:
    """Measure, and return the table."""
    stack = data("em_vnc_sstem/image.tif")
    checkpoint = folder / "vit_b_random.pt"
    if not checkpoint.exists():
        maker = str(PEER / "random_checkpoint.py")
        run([peer(), maker, str(checkpoint)], log=folder / "checkpoint.log")
    script = str(PEER / "segment_em.py")
    command = [peer(), script, str(stack), str(SLICES), str(checkpoint), str(folder / "peer.npy")]
    costs: dict[str, Cost] = {
        "micro-sam": run(command, log=folder / "peer.log"),
        "micro-sam, our allocator settings": run(command, env=MALLOC, log=folder / "peer2.log"),
    }
    crop = folder / "slices.tif"
    tifffile.imwrite(crop, tifffile.imread(stack)[:SLICES])
    labels = {}
    for precision in ("fp32", "bf16"):
        costs[f"volsam {precision}"] = _ours(folder, crop, checkpoint, precision)
        labels[precision] = _labels(folder / precision)
    from volsam.evaluate.metrics import segmentation_accuracy

    agreement = segmentation_accuracy(labels["bf16"], labels["fp32"])["SA50"]
    base = costs["micro-sam"]
    rows = [
        (
            name,
            f"{cost.cpu:.1f}",
            f"{cost.cpu / base.cpu:.2f}",
            f"{cost.wall:.1f}",
            f"{cost.largest:.0f}",
            f"{cost.largest / base.largest:.2f}",
        )
        for name, cost in costs.items()
    ]
    header = ("", "CPU s", "ratio", "wall s", "largest process, MiB", "ratio")
    return (
        f"{SLICES} slices of {tifffile.imread(crop).shape[1:]} pixels, one tile each.\n\n"
        + table(header, rows)
        + f"\n\nbf16 against fp32: SA50 {agreement:.4f}"
    )


def _ours(folder: Path, image: Path, checkpoint: Path, precision: str) -> Cost:
    side = tifffile.imread(image).shape[-1]
    config = {
        "results": str(folder / precision),
        "model": str(checkpoint),
        "samples": {
            "em": {
                "image": str(image),
                "axes": "zyx",
                "voxel_size": {"z": 45, "y": 4.6, "x": 4.6},
                "unit": "nanometer",
            }
        },
        # What micro-sam does: the slice is stretched to the network's 1024 pixels.
        "scale": {"pixel_size": 4.6 * side / 1024},
        "tiles": {"size": side, "halo": 0},
        "compute": {"precision": precision, "threads": 2, "batch": 1, "block_slices": SLICES},
    }
    path = folder / f"{precision}.yaml"
    path.write_text(yaml.safe_dump(config))
    # Finished blocks of an earlier benchmark would not be computed again.
    shutil.rmtree(folder / precision, ignore_errors=True)
    command = [str(SNAKEMAKE), "--snakefile", str(REPOSITORY / "workflow" / "Snakefile")]
    command += ["--workflow-profile", str(REPOSITORY / "profiles" / "local")]
    command += ["--configfile", str(path), "--directory", str(folder), "--forceall"]
    return run(command, log=folder / f"{precision}.log")


def _labels(results: Path) -> np.ndarray:
    from volsam.volume.labels import open_level

    return np.asarray(open_level(results / "em" / "em.ome.zarr", "objects", 0, "r")[:])
