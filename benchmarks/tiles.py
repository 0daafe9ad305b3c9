"""The network run per tile against the network run once on the whole image, on validation images.

At fixed pixel scale and with the default tile and halo. The target is a mean SA50 of 0.95; images with
a single tile agree by construction and are counted apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.common import data, table

STAGES = ("ingest", "plan", "segment", "overlap", "partition", "label")


def main(folder: Path) -> str:
    """Measure, and return the table."""
    import torch

    from volsam.evaluate.metrics import segmentation_accuracy
    from volsam.train.data import load_dsb2018
    from volsam.train.evaluate_embedded import EMBEDDED, model_segmenter

    torch.set_num_threads(2)
    images = load_dsb2018(data("dsb2018").parent, "val")
    whole = model_segmenter(EMBEDDED)
    paths = {}
    for example in images:
        paths[example.name] = folder / f"{example.name}.tif"
        # The signal is scaled to 0..1 at the percentiles already; 16 bits keep it, headroom included.
        image = np.clip(example.image * 20000 + 10000, 0, 65535).astype(np.uint16)
        tifffile.imwrite(paths[example.name], image)
    scores = {"agreement": [], "tiled": [], "whole": []}
    several = []
    for example, (tiles, tiled) in zip(images, _tiled(folder, paths), strict=True):
        reference = whole(example.image)
        scores["agreement"].append(segmentation_accuracy(tiled, reference))
        scores["tiled"].append(segmentation_accuracy(tiled, example.labels))
        scores["whole"].append(segmentation_accuracy(reference, example.labels))
        several.append(tiles > 1)
    names = {"agreement": "tiled against whole", "tiled": "tiled, truth", "whole": "whole, truth"}
    rows = []
    for key, name in names.items():
        for chosen, kind in (
            (np.ones(len(images), bool), "all"),
            (np.array(several), "tiled ones"),
        ):
            picked = [s for s, take in zip(scores[key], chosen, strict=True) if take]
            means = [f"{np.mean([s[k] for s in picked]):.3f}" for k in ("SA50", "SA75", "mSA")]
            rows.append((name, kind, len(picked), *means))
    return table(("", "images", "n", "SA50", "SA75", "mSA"), rows)


def _tiled(folder: Path, paths: dict[str, Path]) -> Iterator[tuple[int, np.ndarray]]:
    """Tiles per image and labels, through the stages of the pipeline."""
    from volsam.blocks.runner import run_stage
    from volsam.blocks.stage import Job
    from volsam.config import validate
    from volsam.stages import stage_class
    from volsam.stages.runplan import RunPlan
    from volsam.volume.labels import open_level

    samples = {
        f"s-{name}": {"image": str(path), "axes": "yx", "voxel_size": {"y": 1, "x": 1}}
        for name, path in paths.items()
    }
    results = str(folder / "results")
    config = validate({"results": results, "model": "embedded", "samples": samples})
    for name in samples:
        job = Job(config, name)
        for stage in STAGES:
            run_stage(stage_class(stage)(job), cluster="inline")
        plan = RunPlan.of(job)
        labels = open_level(folder / "results" / name / f"{name}.ome.zarr", "objects", 0, "r")
        yield len(plan.grid), np.asarray(labels[:])[0]
