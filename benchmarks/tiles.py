"""The embedded model in the pipeline, tile by tile, against the network run once on whole images.

The 62 validation images, at fixed pixel scale with the default tile and halo; target: a mean SA50 of
0.95. The same in bf16 against fp32; target: 0.99.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.common import data, table

STAGES = ("ingest", "plan", "segment", "overlap", "partition", "label")
Labels = list[np.ndarray]


def main(folder: Path) -> str:
    """Measure, and return the table."""
    import torch

    from volsam.train.data import load_dsb2018
    from volsam.train.evaluate_embedded import EMBEDDED, model_segmenter
    from volsam.train.tune import mean_scores

    torch.set_num_threads(2)
    images = load_dsb2018(data("dsb2018").parent, "val")
    paths = []
    for number, example in enumerate(images):
        paths.append(folder / f"{number}.tif")
        # The signal is scaled to 0..1 at the percentiles already; 16 bits keep it, headroom included.
        image = np.clip(example.image * 20000 + 10000, 0, 65535).astype(np.uint16)
        tifffile.imwrite(paths[-1], image)
    truth = [example.labels for example in images]
    segment = model_segmenter(EMBEDDED)
    whole = [segment(example.image) for example in images]
    tiled, bf16 = (_by_pipeline(folder / p, paths, p) for p in ("fp32", "bf16"))
    comparisons: dict[str, tuple[Sequence[np.ndarray], Sequence[np.ndarray]]] = {
        "tiles against whole images": (tiled, whole),
        "bf16 against fp32": (bf16, tiled),
        "whole images against the truth": (whole, truth),
        "tiles against the truth": (tiled, truth),
        "tiles in bf16 against the truth": (bf16, truth),
    }
    rows = []
    for name, (found, reference) in comparisons.items():
        scores = mean_scores(found, reference)  # type: ignore[arg-type]
        rows.append((name, *(f"{scores[key]:.3f}" for key in ("SA50", "SA75", "mSA"))))
    return table(("", "SA50", "SA75", "mSA"), rows)


def _by_pipeline(results: Path, paths: Sequence[Path], precision: str) -> Labels:
    """Labels through the stages of the pipeline, in this process."""
    from volsam.blocks.runner import run_stage
    from volsam.blocks.stage import Job
    from volsam.config import validate
    from volsam.stages import stage_class
    from volsam.volume.labels import open_level

    samples = {
        f"s{path.stem}": {"image": str(path), "axes": "yx", "voxel_size": {"y": 1, "x": 1}}
        for path in paths
    }
    config = validate(
        {
            "results": str(results),
            "model": "embedded",
            "samples": samples,
            "compute": {"precision": precision},
        }
    )
    labels = []
    for name in samples:
        for stage in STAGES:
            run_stage(stage_class(stage)(Job(config, name)), cluster="inline")
        image = open_level(results / name / f"{name}.ome.zarr", "objects", 0, "r")
        labels.append(np.asarray(image[:])[0])
    return labels
