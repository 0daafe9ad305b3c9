"""Few-shot fine-tuning on another kind of image: mitochondria in electron microscopy.

As in Figure 5b of the µSAM paper (Archit et al. 2025): from the embedded model, fine-tuned on 1, 2, 5
and 10 slices of `em_vnc_sstem`, all weights or LoRA, and with 10 also from scratch for as many steps,
which is the same CPU time. The stack is inverted: mitochondria are dark, and the embedded model knows
bright objects (all ways see the same images). Slices 0-9 train and 10-19 score, and the other way round.
``VOLSAM_SEEDS`` says how many seeds (5), ``VOLSAM_STEPS`` how many steps of 2 crops (100). Every finished
point is kept in ``points.jsonl``, so that a benchmark that was stopped goes on.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Unavailable

DATA = Path(os.environ.get("VOLSAM_DATA", "../shared/data")) / "em_vnc_sstem"
SLICES = (1, 2, 5, 10)
ORDER = (10, 1, 5, 2)  # the ends of the curve first, for those who stop early
WAYS = ("full", "scratch", "lora")
SCALE = 0.3  # mitochondria of 59 pixels become as large as the nuclei of the embedded model


def main(folder: Path) -> str:
    """Train and score all points; returns a table."""
    if not DATA.is_dir():
        raise Unavailable(f"no data at {DATA}; set VOLSAM_DATA")
    seeds = int(os.environ.get("VOLSAM_SEEDS", "5"))
    steps = int(os.environ.get("VOLSAM_STEPS", "100"))
    log = folder / "points.jsonl"
    known = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {point_key(point) for point in known}
    for count, way, seed, fold in product(ORDER, WAYS, range(seeds), (0, 1)):
        if way == "scratch" and count < SLICES[-1]:
            continue
        wanted = {"seed": seed, "slices": count, "fold": fold, "way": way, "steps": steps}
        if point_key(wanted) in done:
            continue
        command = [sys.executable, "-m", "benchmarks.few_shot", json.dumps(wanted), str(folder)]
        line = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        known.append(json.loads(line.splitlines()[-1]))
        with log.open("a") as file:
            file.write(json.dumps(known[-1]) + "\n")
        print(f"{len(known)} points: {known[-1]}", file=sys.stderr, flush=True)
    draw(known, folder / "few-shot.png")
    return table(known)


def point_key(point: dict[str, Any]) -> tuple[Any, ...]:
    """What tells points apart."""
    return tuple(point[key] for key in ("seed", "slices", "fold", "way", "steps"))


def chosen(wanted: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Slices to learn from and slices to score."""
    halves = list(range(10)), list(range(10, 20))
    pool, rest = halves if wanted["fold"] == 0 else halves[::-1]
    rng = np.random.default_rng((wanted["seed"], wanted["slices"]))
    return sorted(int(z) for z in rng.choice(pool, wanted["slices"], replace=False)), rest


def measure(wanted: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train and score one point in this process."""
    import torch

    from volsam.evaluate.suite import evaluate_model
    from volsam.models.model import load_model
    from volsam.train.gather import as_pairs, gather
    from volsam.train.run import train_model
    from volsam.train.settings import Train

    learnt, scored = chosen(wanted)
    way = wanted["way"]
    files = {
        "image": str(inverted(folder / "inverted.tif")),
        "axes": "zyx",
        "licence": "CC BY-NC-SA 3.0",
    }
    files["labels"] = str(DATA / "mitochondria_instances.tif")
    settings = Train.model_validate(
        {
            "name": "point",
            "parts": "automatic",
            "adapt": "lora" if way == "lora" else "full",
            "data": [{**files, "slices": learnt}],
            "scale": SCALE,
            "augment": "strong",
            "decoder_loss": "dice+error",
            "min_size": 100,
            "batch": 2,
            "precision": "bf16",
            "schedule": {
                "epochs": 5,
                "steps": wanted["steps"] // 5,
                "patience": 5,
                "learning_rate": 4e-3 if way == "lora" else 2e-3,
                "decline": "cosine",
                "warmup": 0.05,
                "clip": 1.0,
                "average": 0.9,
            },
            "validation": 0.1,
            "held_out": 0.0,
            "promotion": {"when": "always"},
            "seed": wanted["seed"],
        }
    )
    home = folder / "models" / "-".join(str(part) for part in point_key(wanted))
    parent = random_parent(folder / "scratch") if way == "scratch" else "embedded"
    said: list[str] = []
    train_model(settings, home, parent, threads=1, say=said.append)
    version = home / "point" / "1"
    progress = json.loads((version / "progress.json").read_text())
    torch.set_num_threads(1)
    test = settings.model_copy(
        update={
            "data": [settings.data[0].model_copy(update={"slices": scored})],  # type: ignore[union-attr]
            "validation": 0.0,
        }
    )
    images = as_pairs([e for _, group in gather(test).train for e in group])
    found = evaluate_model(
        load_model(str(version / "model.json")),
        images,
        interactive=False,
        grid=False,
        neurites=False,
        seed=0,
        scale=SCALE,
    )
    return {
        **wanted,
        **found["automatic"]["mean"],
        "cpu": round(progress["cpu"], 1),
        "mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def inverted(path: Path) -> Path:
    """The stack with dark and bright exchanged."""
    import tifffile

    if not path.exists():
        image = tifffile.imread(DATA / "image.tif")
        partial = path.with_suffix(".partial")
        tifffile.imwrite(partial, np.iinfo(image.dtype).max - image, photometric="minisblack")
        partial.replace(path)
    return path


def random_parent(folder: Path) -> str:
    """The embedded model's architecture with random weights."""
    import torch
    from safetensors.torch import save_file

    from volsam.models.model import EMBEDDED
    from volsam.models.tiny_vit import TinyViT
    from volsam.models.unetr import UNETR

    described = json.loads((EMBEDDED / "model.json").read_text())
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    parts = {
        "image_encoder": TinyViT(**described["encoder"]),
        "decoder": UNETR(**described["decoder"]),
    }
    state = {f"{k}.{n}": v for k, part in parts.items() for n, v in part.state_dict().items()}
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "weights.safetensors")
    described |= {"ais": {}, "name": "scratch", "weights": "weights.safetensors"}
    described.pop("prompts", None)
    (folder / "model.json").write_text(json.dumps(described))
    return str(folder / "model.json")


def rows(points: list[dict[str, Any]]) -> Iterator[tuple[str, int, list[dict[str, Any]]]]:
    """Points by way and number of slices."""
    groups = defaultdict(list)
    for point in points:
        groups[point["way"], point["slices"]].append(point)
    for way, count in product(WAYS, SLICES):
        if groups[way, count]:
            yield way, count, groups[way, count]


def table(points: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over seeds and folds."""
    text = "| from | slices | points | SA50 | mSA | CPU s | MiB |\n|---|---|---|---|---|---|---|\n"
    for way, count, group in rows(points):
        cells = [
            f"{np.mean([p[key] for p in group]):.3f} ± {np.std([p[key] for p in group]):.3f}"
            for key in ("SA50", "mSA")
        ]
        cpu = np.mean([p["cpu"] for p in group])
        memory = max(p["mib"] for p in group)
        text += f"| {way} | {count} | {len(group)} | {' | '.join(cells)} | {cpu:.0f} | {memory} |\n"
    return text


def draw(points: list[dict[str, Any]], path: Path) -> None:
    """SA50 against the number of slices."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    for way in WAYS:
        found = [(count, group) for name, count, group in rows(points) if name == way]
        if not found:
            continue
        values = [[p["SA50"] for p in group] for _, group in found]
        axes.errorbar(
            [count for count, _ in found],
            [np.mean(v) for v in values],
            yerr=[np.std(v) for v in values],
            marker="o",
            capsize=3,
            label={"full": "all weights", "lora": "LoRA", "scratch": "from scratch"}[way],
        )
    axes.set(xlabel="slices to learn from", ylabel="SA50, other 10 slices", ylim=(0, None))
    axes.set_xscale("log")
    axes.set_xticks(SLICES, [str(n) for n in SLICES])
    axes.minorticks_off()
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]), Path(sys.argv[2]))))
