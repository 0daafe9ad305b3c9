"""One iteration of joint training on the same batch and prompts: this project beside micro-sam.

Random-weight ``vit_b`` with decoder, one image of 512 x 512 pixels, stretched to 1024 by both, 5
objects, 3 rounds of prompting, fp32. The prompts that micro-sam's trainer draws are recorded and given
to ours. An iteration is the step for prompts and the one for automatic segmentation, each with its
backward pass and optimiser (learning rate 0). The first is a warm-up; prompts start from points and
boxes in turn. Limits: losses within 1e-3, CPU seconds <= 0.7 x the peer's, memory <= the peer's.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import REPOSITORY, peer, table
from benchmarks.measure import Cost, run
from volsam.models.memory import keep_freed_memory
from volsam.segment.prompts import Prompts
from volsam.train.joint import (
    JointNetwork,
    Prompting,
    automatic_step,
    build,
    prompt_step,
    trainable,
)
from volsam.train.loop import learn
from volsam.train.targets import distance_targets

Record = Mapping[str, np.ndarray]

ITERATIONS = 3  # with the warm-up
SIDE, BLOBS = 512, 24
PEER = REPOSITORY / "benchmarks" / "peer"
LOSSES = ("dice", "iou", "automatic")


def main(folder: Path) -> str:
    """Measure, and return the table."""
    checkpoint, batch = folder / "vit_b_random.pt", folder / "batch.npz"
    if not checkpoint.exists():
        maker = str(PEER / "random_checkpoint.py")
        run([peer(), maker, str(checkpoint)], log=folder / "checkpoint.log")
    _write_batch(batch)
    theirs, ours = folder / "peer.npz", folder / "ours.npz"
    files = [str(checkpoint), str(batch)]
    script = [peer(), str(PEER / "train_iterations.py"), *files, str(ITERATIONS), str(theirs)]
    costs = {"micro-sam": run(script, log=folder / "peer.log")}
    script = [sys.executable, "-m", "benchmarks.training", *files, str(theirs), str(ours)]
    costs["volsam"] = run(script, log=folder / "ours.log")
    records = [np.load(path) for path in (theirs, ours)]
    return "\n\n".join((_cost_table(costs, records), _loss_table(*records)))


def _cost_table(costs: Mapping[str, Cost], records: Sequence[Record]) -> str:
    seconds = [record["seconds"][1:] for record in records]
    base = next(iter(costs.values()))
    rows = [
        (
            name,
            ", ".join(f"{s:.1f}" for s in each),
            f"{each.mean() / seconds[0].mean():.2f}",
            f"{cost.largest:.0f}",
            f"{cost.largest / base.largest:.2f}",
        )
        for (name, cost), each in zip(costs.items(), seconds, strict=True)
    ]
    header = ("", "CPU s per iteration", "ratio", "peak memory, MiB", "ratio")
    return table(header, rows)


def _loss_table(theirs: Record, ours: Record) -> str:
    rows = [
        (
            f"{number}, {'box' if number % 2 else 'point'}",
            *(f"{float(theirs[k]):.5f} / {float(ours[k]):.5f}" for k in keys),
        )
        for number in range(ITERATIONS)
        for keys in [[f"{number}_{loss}" for loss in LOSSES]]
    ]
    keys = [f"{number}_{loss}" for number in range(ITERATIONS) for loss in LOSSES]
    worst = max(abs(float(theirs[key] - ours[key])) for key in keys)
    text = table(("iteration, start", *(f"{loss}, theirs / ours" for loss in LOSSES)), rows)
    return f"{text}\n\nLargest difference of a loss: {worst:.1e}\n\n{_gradients(theirs, ours)}"


def _gradients(theirs: Record, ours: Record) -> str:
    lines = []
    for step in ("prompts", "automatic"):
        differences = gradient_differences(theirs, ours, step)
        name = max(differences, key=lambda key: differences[key])
        lines.append(
            f"Norms of {len(differences)} gradients, step {step}: largest difference "
            f"{differences[name]:.1e} of the largest norm ({name})"
        )
    return "\n\n".join(lines)


def gradient_differences(theirs: Record, ours: Record, step: str) -> dict[str, float]:
    """Differences of the norms of gradients as a share of the largest; a missing one counts as 0."""
    sides = [dict(zip(r[f"names_{step}"], r[f"norms_{step}"], strict=True)) for r in (theirs, ours)]
    largest = max(sides[0].values())
    names = sorted(sides[0].keys() | sides[1].keys())
    return {n: float(abs(sides[0].get(n, 0) - sides[1].get(n, 0)) / largest) for n in names}


def _write_batch(path: Path) -> None:
    """Blobs on noise with their instances and targets."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    labels = np.zeros((SIDE, SIDE), np.int32)
    for number in range(1, BLOBS + 1):
        cy, cx, (ry, rx) = *rng.uniform(30, SIDE - 30, 2), rng.uniform(12, 40, 2)
        inside = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
        labels[inside & (labels == 0)] = number
    signal = np.where(labels > 0, 150 + 3 * labels, 40) + rng.normal(0, 15, labels.shape)
    image = np.repeat(signal.clip(0, 255).astype(np.float32)[None], 3, axis=0)
    np.savez(path, image=image, labels=labels, targets=distance_targets(labels))


class Replay(Prompting):
    """Draws prompts as ever, for what it costs, and gives the recorded ones of one iteration."""

    def __init__(self, record: Record, number: int, scale: float) -> None:
        masked = record[f"{number}_masked"]
        super().__init__(sub_iterations=len(masked) + 1)
        self.masked = list(masked)
        # The inverse of `Prompts.scaled`: the network is given what was recorded of its input.
        self.points = (torch.from_numpy(record[f"{number}_point_coords"]) + 0.5) / scale - 0.5
        self.labels = torch.from_numpy(record[f"{number}_point_labels"])
        self.boxes = None
        if f"{number}_boxes" in record:
            self.boxes = torch.from_numpy(record[f"{number}_boxes"]) / scale

    def start(self, truth: Tensor, box: bool, rng: np.random.Generator) -> Prompts:
        super().start(truth, box, rng)
        if box:
            return Prompts(boxes=self.boxes)
        return Prompts(self.points[:, :1], self.labels[:, :1])

    def correct(
        self, prompts: Prompts, truth: Tensor, logits: Tensor, low: Tensor, rng: np.random.Generator
    ) -> Prompts:
        super().correct(prompts, truth, logits, low, rng)
        start = 0 if prompts.points is None else prompts.points.shape[1]
        part = slice(start, start + 2)
        prompts = prompts.with_points(self.points[:, part], self.labels[:, part])
        return prompts.with_masks(low if self.masked.pop(0) else None)


def replay(network: JointNetwork, batch: Record, record: Record) -> dict[str, Any]:
    """Our iterations with recorded prompts: losses, norms of the first gradients, CPU seconds."""
    images, targets = (torch.from_numpy(batch[key])[None] for key in ("image", "targets"))
    labels, known = torch.from_numpy(batch["labels"]), torch.ones_like(targets[:, :1])
    learn(network)
    parameters = trainable(network)
    optimiser = torch.optim.AdamW(parameters.values(), lr=0.0)
    result: dict[str, Any] = {"seconds": []}
    rng = np.random.default_rng(0)

    def update(step: str) -> None:
        if not result["seconds"]:
            named = {k: p for k, p in parameters.items() if p.grad is not None}
            result[f"names_{step}"] = list(named)
            result[f"norms_{step}"] = [float(p.grad.norm()) for p in named.values()]
        optimiser.step()
        optimiser.zero_grad()

    for number in range(len(record["seconds"])):
        started = time.process_time()
        truth = labels[None] == torch.from_numpy(record[f"{number}_ids"])[:, None, None]
        prompting = Replay(record, number, network.scale)
        box = prompting.boxes is not None
        found = prompt_step(network, images, [truth], box, prompting, rng, torch.Tensor.backward)
        update("prompts")
        automatic = automatic_step(
            network, images, targets, known, errors=False, backward=torch.Tensor.backward
        )
        update("automatic")
        result["seconds"].append(time.process_time() - started)
        for loss, value in zip(LOSSES, (found["dice"], found["iou"], automatic), strict=True):
            result[f"{number}_{loss}"] = value
    return {key: np.asarray(value) for key, value in result.items()}


def _child(checkpoint: str, batch: str, record: str, output: str) -> None:
    keep_freed_memory()
    network = build(checkpoint, scale=1024 / SIDE).to(memory_format=torch.channels_last)
    np.savez(output, **replay(network, np.load(batch), np.load(record)))


if __name__ == "__main__":
    _child(*sys.argv[1:])
