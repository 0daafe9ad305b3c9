"""How fast prompt parts of a small model learn from nothing: as in SAM, with our start, and drawn.

The embedded model's encoder, frozen, with new prompt parts; trained on the training split of DSB2018 for
``VOLSAM_STEPS`` (150) steps of 2 crops, 24 objects each and 2 rounds; mean IoU from one prompt on
the first 12 validation images. The encoder that is shipped now has a standardised embedding already: for
the first row as it was, run it with the model of commit 066e7f1.
"""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

from benchmarks.common import data, table

WAYS = {
    "as in SAM": (False, False),
    "embedding standardised, attention aligned": (True, False),
    "besides, prompts drawn": (True, True),
}


def main(folder: Path) -> str:
    """Train all ways; returns a table."""
    from volsam.train.data import load_dsb2018
    from volsam.train.embedded_data import write_examples

    root = data("dsb2018").parent
    write_examples(load_dsb2018(root, "train"), folder / "train")
    steps = int(os.environ.get("VOLSAM_STEPS", "150"))
    rows = []
    for number, (name, (prepared, drawn)) in enumerate(WAYS.items()):
        rows.append([name, *_one(folder / str(number), folder / "train", prepared, drawn, steps)])
    return table(("", "box", "point", "CPU s"), rows)


def _one(folder: Path, images: Path, prepared: bool, drawn: bool, steps: int) -> list[str]:
    """Mean IoU from a box and from a point, and CPU time of the training."""
    from volsam.evaluate.suite import Pair, evaluate_model
    from volsam.models import load_model
    from volsam.train.data import load_dsb2018
    from volsam.train.joint import SMALL_PROMPTS
    from volsam.train.run import train_model
    from volsam.train.settings import Train

    settings = Train.model_validate(
        {
            "name": "prompts",
            "data": [{"image": f"{images}/images/*.tif", "labels": f"{images}/labels/*.tif"}],
            "parts": "prompts",
            "adapt": "decoder",
            "batch": 2,
            "objects": 24,
            "min_size": 12,
            "precision": "bf16",
            "augment": "strong",
            "interactive": {"sub_iterations": 2},
            "schedule": {
                "epochs": 1,
                "steps": steps,
                "learning_rate": 2e-3,
                "decline": "cosine",
                "warmup": 0.1,
                "clip": 1.0,
            },
            "validation": 0.01,
            "held_out": 0.0,
            "promotion": {"when": "always"},
        }
    )
    start = nullcontext() if prepared else mock.patch("volsam.train.run.prepare_prompts")
    with start, mock.patch.dict(SMALL_PROMPTS, drawn=drawn):
        train_model(settings, folder, _bare(folder / "parent"), threads=1, say=lambda text: None)
    version = folder / "prompts" / "1"
    pairs = [
        Pair(example.name, example.image, example.labels)
        for example in load_dsb2018(data("dsb2018").parent, "val")[:12]
    ]
    model = load_model(str(version / "model.json"))
    found = evaluate_model(
        model,
        pairs,
        automatic=False,
        interactive=True,
        rounds=0,
        grid=False,
        neurites=False,
        seed=0,
    )
    iou = {c["start"]: c["iou"][0] for c in found["interactive"]["curves"] if not c["with_mask"]}
    cpu = json.loads((version / "progress.json").read_text())["cpu"]
    return [f"{iou['box']:.3f}", f"{iou['point']:.3f}", f"{cpu:.0f}"]


def _bare(folder: Path) -> str:
    """The embedded model without prompt parts."""
    from safetensors.torch import load_file, save_file

    from volsam.models.model import EMBEDDED

    folder.mkdir(parents=True, exist_ok=True)
    description = json.loads((EMBEDDED / "model.json").read_text())
    state = load_file(EMBEDDED / description["weights"])
    kept = {k: v for k, v in state.items() if k.startswith(("image_encoder.", "decoder."))}
    save_file(kept, folder / "weights.safetensors")
    (folder / "model.json").write_text(
        json.dumps({**description, "prompts": None, "weights": "weights.safetensors"})
    )
    return str(folder / "model.json")
