"""The loop: segment, correct what is suggested, train, segment again; beside corrections at random.

Volumes of cells that look as if their membranes were stained, which the embedded model does not know:
all of the volume (``foreign``), or a third of it beside nuclei as it knows them (``mixed``), where three
crops may spoil what it knew. Corrections are the truth of `CROPS` crops. Scores are of all that is
annotated in neither arm, each slice counting once. New versions are put to use whatever they score on
the held-out part, so that the two choices of crops are compared and nothing else; what is in use by the
usual rule, the new version where it beat its parent on its held-out part and the parent otherwise, stands
beside.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.common import table
from volsam.annotate.candidates import Grid
from volsam.annotate.runs import FinishedRun
from volsam.annotate.store import AnnotationStore
from volsam.annotate.suggest import suggest
from volsam.blocks.runner import run_stage
from volsam.blocks.stage import Job
from volsam.config import Config, validate
from volsam.demo.generate import Scene, make_demo
from volsam.evaluate.metrics import segmentation_accuracy
from volsam.geometry import Box
from volsam.models.names import resolve
from volsam.stages import SEGMENTATION, stage_class
from volsam.train.data import normalise

SEEDS = range(10, 16)  # on seeds below, the settings of the training were chosen
CROPS, SIZE = 3, 128
SHAPE = (6, 256, 384)
SCENES = {"foreign": 0, "mixed": 256}  # the first column of the part that looks otherwise
SCORES = ("mSA", "SA50")


def main(folder: Path) -> str:
    """Measure, and return the table."""
    text = []
    for scene in SCENES:
        found = [one_seed(folder / scene / str(seed), seed, scene) for seed in SEEDS]
        (folder / f"{scene}.json").write_text(json.dumps(found, indent=1))
        text.append(f"Scene `{scene}`: {summary(found)}")
    return "\n\n".join(text)


def summary(found: Sequence[dict[str, Any]]) -> str:
    """Mean and standard deviation over seeds, and of the paired differences."""
    rows = []
    arms = ("suggested", "random")
    found = [
        one | {f"{arm}, by the rule": one[arm if one[arm]["better"] else "before"] for arm in arms}
        for one in found
    ]
    for name in ("before", *arms, *(f"{arm}, by the rule" for arm in arms)):
        rows.append([name, *(_spread([one[name][key] for one in found]) for key in SCORES)])
    for end in ("", ", by the rule"):
        suggested, random = (arm + end for arm in arms)
        for arm, other in ((suggested, "before"), (random, "before"), (suggested, random)):
            gains = [
                _spread([one[arm][key] - one[other][key] for one in found], sign="+")
                for key in SCORES
            ]
            rows.append([f"{arm} - {other}", *gains])
    wins = sum(one["suggested"]["mSA"] > one["random"]["mSA"] for one in found)
    agreed = [sum(one[arm]["better"] for one in found) for arm in arms]
    return (
        f"{CROPS} crops of {SIZE} px of a volume {SHAPE}, {len(found)} seeds, mean ± standard "
        "deviation of seeds.\n\n"
        + table(("", *SCORES), rows)
        + f"\n\nSuggested above random for {wins} of {len(found)} seeds. On its held-out part the new "
        f"version beat its parent {agreed[0]} times (suggested) and {agreed[1]} times (random)."
    )


def one_seed(
    folder: Path,
    seed: int,
    scene: str = "foreign",
    arms: Sequence[str] = ("suggested", "random"),
) -> dict[str, Any]:
    """Scores before and after, with corrections where it is suggested and elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    truth = _write(folder, seed, SCENES[scene])
    started = time.monotonic()
    first = _segment(folder, "before", "embedded")
    run = FinishedRun.of(Path(first.results) / "a")
    chosen = {
        "suggested": [
            one.box
            for one in suggest(
                Job(first, "a"), folder / "to-correct", folder / "none", count=CROPS, size=SIZE
            )
        ],
        "random": _anywhere(run, truth, seed),
    }
    rest = np.ones(truth.shape, np.bool_)
    for box in itertools.chain(*chosen.values()):
        rest[box.slices] = False
    result: dict[str, Any] = {"seed": seed, "scene": scene, "before": _scores(first, truth, rest)}
    for arm in arms:
        outcome = _train(folder, arm, run, chosen[arm], truth)
        again = _segment(folder, arm, "mine")
        assert resolve(again).endswith(f"mine/{outcome['version']}/model.json")
        result[arm] = {
            **_scores(again, truth, rest),
            "foreign": sum(box.start[2] >= SCENES[scene] for box in chosen[arm]),
            "better": outcome["after"]["mSA"] > outcome["before"]["mSA"],
        }
    result["minutes"] = round((time.monotonic() - started) / 60, 1)
    print(json.dumps(result), file=sys.stderr, flush=True)
    return result


def _write(folder: Path, seed: int, foreign: int) -> NDArray[Any]:
    """Write a volume that looks otherwise from a column on; returns the truth."""
    demo = make_demo(seed, SHAPE, Scene(radius=(4.5, 6.5)))
    known = normalise(demo.image)
    edges = normalise(
        np.stack([ndimage.gaussian_gradient_magnitude(slice_, 1.5) for slice_ in known])
    )
    image = np.concatenate([known[..., :foreign], edges[..., foreign:]], axis=2)
    pixels = (1000 + 4000 * np.clip(image, -0.2, 2)).astype(np.uint16)
    tifffile.imwrite(folder / "image.tif", pixels, photometric="minisblack")
    return demo.truth


def _config(folder: Path, arm: str, model: str) -> Config:
    sample = {"image": str(folder / "image.tif"), "axes": "zyx"}
    sample |= {"voxel_size": {"z": 2.0, "y": 0.5, "x": 0.5}}  # type: ignore[dict-item]
    train = {
        "name": "mine",
        "data": str(folder / arm / "annotations"),
        "parts": "automatic",
        "batch": 2,
        "objects": 10,
        "augment": "strong",
        "schedule": {"epochs": 6, "steps": 10, "learning_rate": 5e-4},
        "promotion": {"when": "always"},
    }
    data = {"samples": {"a": sample}, "model": model, "train": train}
    places = {"results": str(folder / arm / "results"), "models": str(folder / arm / "models")}
    return validate({**data, **places})


def _segment(folder: Path, arm: str, model: str) -> Config:
    """Run the pipeline; returns its configuration."""
    config = _config(folder, arm, model)
    for name in SEGMENTATION:
        run_stage(stage_class(name)(Job(config, "a")), cluster="inline")
    return config


def _anywhere(run: FinishedRun, truth: NDArray[Any], seed: int) -> list[Box]:
    """As many crops of the same grid, drawn from those that hold an object at all."""
    grid = Grid(run.plan.region_box, SIZE)
    boxes = [grid.box(number) for number in range(int(np.prod(grid.shape)))]
    boxes = [box for box in boxes if truth[box.slices].any()]
    numbers = np.random.default_rng(seed).choice(len(boxes), CROPS, replace=False)
    return [boxes[number] for number in numbers]


def _train(
    folder: Path, arm: str, run: FinishedRun, boxes: Sequence[Box], truth: NDArray[Any]
) -> dict[str, Any]:
    """Annotate the boxes with the truth, train, and put the version to use."""
    from volsam.train.run import train_model

    config = _config(folder, arm, "mine")
    assert config.train is not None
    store = AnnotationStore(str(config.train.data))
    for box in boxes:
        where = run.provenance(box).model_copy(update={"complete": True, "tool": "truth"})
        store.add(run.volume().read(box), truth[box.slices].astype(np.uint32), None, where)
    return train_model(
        config.train, Path(config.models), resolve(config, "embedded"), threads=1, say=_quiet
    )


def _scores(config: Config, truth: NDArray[Any], rest: NDArray[np.bool_]) -> dict[str, float]:
    """Mean over slices of the scores of what is annotated in no arm."""
    labels = FinishedRun.of(Path(config.results) / "a").labels(Box.of(truth.shape))
    found = [
        segmentation_accuracy(labels[z], truth[z], mask=rest[z])
        for z in range(len(truth))
        if (truth[z] * rest[z]).any()
    ]
    return {name: float(np.mean([one[name] for one in found])) for name in SCORES}


def _spread(values: Sequence[float], sign: str = "") -> str:
    return f"{np.mean(values):{sign}.3f} ± {np.std(values, ddof=1):.3f}"


def _quiet(text: str) -> None:
    """Progress of a training is of no interest here."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scene", choices=SCENES, default="foreign")
    parser.add_argument("--arms", nargs="+", default=["suggested", "random"])
    asked = parser.parse_args()
    print(json.dumps(one_seed(asked.folder, asked.seed, asked.scene, asked.arms)))
