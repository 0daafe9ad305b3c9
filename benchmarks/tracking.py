"""From raw images to lineages: sequences of the Cell Tracking Challenge, as scored by its measures.

The embedded model as it is, and fine-tuned on frames that are not scored, later ones of the same
sequence. Beside each result stands laptrack (centroids,
splitting and gap closing) on the same objects. ``VOLSAM_SEQUENCES`` chooses among them. What is done is
kept in the folder, so that a benchmark that was stopped goes on.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.by_laptrack import laptrack_links
from benchmarks.common import data, table
from volsam.blocks.runner import run_stage
from volsam.blocks.stage import Job
from volsam.config import Config, validate
from volsam.evaluate.tracking import tracking_scores
from volsam.exchange.ctc import CtcSequence
from volsam.models.names import resolve
from volsam.stages import SEGMENTATION, stage_class
from volsam.stages.frames import ObjectFrames
from volsam.stages.runplan import RunPlan
from volsam.track.lineage import Lineage
from volsam.track.tables import read_lineage

LINKING = ("observe", "link", "compare")
STEPS = 150
DIAMETER = 16.4  # of the objects that the embedded model knows
SCORES = ("SEG", "DET", "TRA", "LNK", "CHOTA", "division_f1")


@dataclass(frozen=True)
class Sequence:
    """What is scored and what is learnt from: sequence, first frame, and the one after the last."""

    folder: str
    scored: tuple[str, int, int]
    learnt: tuple[str, int, int]
    diameter: float  # median, pixels
    pixel: float  # micrometres
    cutoff: float  # of laptrack, pixels
    kind: str = "auto"


SEQUENCES = {
    "HeLa nuclei": Sequence("ctc_fluo_hela", ("01", 0, 30), ("01", 30, 45), 26, 0.645, 25),
    "HeLa DIC": Sequence("ctc_dic_hela", ("01", 0, 42), ("01", 42, 84), 114, 0.19, 40),
    "stem cells": Sequence("ctc_phc_psc", ("01", 0, 60), ("01", 60, 101), 12.4, 1.6, 20),
    "simulated": Sequence("ctc_fluo_sim", ("01", 0, 16), ("01", 16, 24), 52, 0.125, 40),
}


def main(folder: Path) -> str:
    """Track, score, and return the table."""
    chosen = os.environ.get("VOLSAM_SEQUENCES", ",".join(SEQUENCES)).split(",")
    rows = []
    for name in chosen:
        sequence = SEQUENCES[name]
        place = folder / sequence.folder
        images, truth = cut(sequence, place)
        for way in ("embedded", "fine-tuned"):
            done = place / f"{way}.json"
            if not done.exists():
                done.write_text(json.dumps(one(sequence, way, place, images, truth), indent=1))
            found = json.loads(done.read_text())
            for tool in ("volsam", "laptrack"):
                scores = found[tool]
                cells = ["–" if scores[s] is None else f"{scores[s]:.3f}" for s in SCORES]
                rows.append([name, way, tool, *cells])
            print(name, way, found, file=sys.stderr, flush=True)
    return table(("sequence", "model", "linked by", *SCORES), rows)


def cut(sequence: Sequence, place: Path) -> tuple[Path, Path]:
    """Images and truth of the scored frames, numbered from 0: links to files, and a table."""
    number, first, stop = sequence.scored
    root = data(sequence.folder)
    images, truth = place / "images", place / "01_GT"
    for frame in range(first, stop):
        new = frame - first
        wanted = {
            images / f"t{new:03}.tif": root / number / f"t{frame:03}.tif",
            truth / "TRA" / f"man_track{new:03}.tif": _marker(root, number, frame),
            truth / "SEG" / f"man_seg{new:03}.tif": (
                root / f"{number}_GT" / "SEG" / f"man_seg{frame:03}.tif"
            ),
        }
        for link, file in wanted.items():
            link.parent.mkdir(parents=True, exist_ok=True)
            if file.exists() and not link.exists():
                link.symlink_to(file.resolve())
    if not any((truth / "SEG").iterdir()):
        (truth / "SEG").rmdir()
    tracks = np.loadtxt(root / f"{number}_GT" / "TRA" / "man_track.txt", np.int64, ndmin=2)
    tracks = tracks[(tracks[:, 1] < stop) & (tracks[:, 2] >= first)]
    tracks[:, 1:3] = tracks[:, 1:3].clip(first, stop - 1) - first
    tracks[~np.isin(tracks[:, 3], tracks[:, 0]), 3] = 0
    np.savetxt(truth / "TRA" / "man_track.txt", tracks, "%d")
    return images, truth


def _marker(root: Path, number: str, frame: int) -> Path:
    return root / f"{number}_GT" / "TRA" / f"man_track{frame:03}.tif"


def _masks(root: Path, number: str, frame: int) -> Path:
    silver = root / f"{number}_ST" / "SEG" / f"man_seg{frame:03}.tif"
    return silver if silver.exists() else _marker(root, number, frame)


def one(sequence: Sequence, way: str, place: Path, images: Path, truth: Path) -> dict[str, Any]:
    """Scores of our lineages, and of laptrack's on the same objects."""
    started = time.process_time()
    config = _config(sequence, way, place, images, truth)
    if way == "fine-tuned":
        train(config)
    learnt = time.process_time() - started
    for name in (*SEGMENTATION, *LINKING):
        run_stage(stage_class(name)(Job(config, "a")), cluster="inline")
    job = Job(config, "a")
    ours = json.loads(job.paths.tracking.read_text())
    lineage, plan = read_lineage(job.paths.lineage), RunPlan.of(job)
    pixels = lineage.objects.position[:, 1:] / sequence.pixel
    theirs = Lineage.of(
        lineage.objects,
        laptrack_links(lineage.objects.id, lineage.objects.frame, pixels, sequence.cutoff, gaps=2),
    )
    frames = ObjectFrames(job, plan)
    compared = CtcSequence.of(theirs, frames, plan.frames or 1, "laptrack")
    return {
        "volsam": ours,
        "laptrack": tracking_scores(str(truth), compared),
        "cpu": {"training": learnt, "tracking": time.process_time() - started - learnt},
    }


def _config(sequence: Sequence, way: str, place: Path, images: Path, truth: Path) -> Config:
    number, first, stop = sequence.learnt
    root = data(sequence.folder)
    pairs = [
        {
            "image": str(root / number / f"t{frame:03}.tif"),
            "labels": str(_masks(root, number, frame)),
            "axes": "yx",
            "licence": "CTC terms",
        }
        for frame in range(first, stop)
    ]
    train = {
        "name": "tuned",
        "parent": "embedded",
        "data": pairs,
        "parts": "automatic",
        "scale": round(DIAMETER / sequence.diameter, 3),
        "batch": 2,
        "augment": "strong",
        "decoder_loss": "dice+error",
        "precision": "bf16",
        "schedule": {
            "epochs": 3,
            "steps": STEPS // 3,
            "learning_rate": 1e-3,
            "decline": "cosine",
            "warmup": 0.05,
            "clip": 1.0,
            "average": 0.9,
        },
        "validation": 0.15,
        "held_out": 0.0,
        "promotion": {"when": "always"},
    }
    sample = {
        "image": str(images),
        "axes": "tyx",
        "voxel_size": {"y": sequence.pixel, "x": sequence.pixel},
        "truth_tracks": str(truth),
    }
    return validate(
        {
            "task": "track",
            "results": str(place / way),
            "models": str(place / "models"),
            "model": "embedded" if way == "embedded" else "tuned",
            "samples": {"a": sample},
            "train": train,
            "scale": {"diameter": sequence.diameter},
            "track": {"kind": sequence.kind},
        }
    )


def train(config: Config) -> None:
    """Fine-tune, unless that was done."""
    from volsam.train.run import train_model

    assert config.train is not None
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr)  # noqa: E731
    train_model(config.train, Path(config.models), resolve(config, "embedded"), threads=1, say=say)
