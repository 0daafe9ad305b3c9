"""A dish of three cells, one of which divides, as a sequence on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scenes
import tifffile
import zarr

from volsam.exchange.ctc import write_ctc
from volsam.track.lineage import Lineage, Objects

SHAPE = (80, 90)
FRAMES = 8
LINKING = ("observe", "link", "tracks", "export")
STAGES = (*scenes.STAGES, *LINKING)
GIVEN = ("ingest", "plan", "number", "label", "measure", *LINKING)


def cells(frame: int) -> list[tuple[float, float, float, int]]:
    """Centre, radius and track of the cells of a frame: two go on, one divides in frame 4."""
    found = [(15 + 2.0 * frame, 15 + 1.0 * frame, 7.0, 1), (60 - 1.0 * frame, 20, 7.0, 2)]
    if frame < 4:
        found.append((40, 60 + 1.0 * frame, 8.0, 3))
    else:
        for number, side in ((4, -1), (5, 1)):
            found.append((40 + side * (6 + 1.5 * (frame - 4)), 64.0, 6.0, number))
    return found


def write_sequence(folder: Path, depth: int = 1, scramble: bool = True) -> None:
    """Image, predictions, true tracks, and labels whose numbers mean nothing."""
    rows, columns = np.indices(SHAPE)
    truth = np.zeros((FRAMES, depth, *SHAPE), np.uint16)
    for frame in range(FRAMES):
        for y, x, radius, track in cells(frame):
            truth[frame, :, (rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = track
    rng = np.random.default_rng(0)
    image = (300 * (truth > 0) + 100 + 10 * rng.standard_normal(truth.shape)).astype(np.uint16)
    labels = np.zeros_like(truth)
    for frame in range(FRAMES):
        labels[frame] = np.concatenate([[0], rng.permutation(9) + 1])[truth[frame]]
    predictions = np.stack([scenes.predict(part, noise=0.02) for part in truth], axis=1)
    if depth == 1:
        image, labels, truth = image[:, 0], labels[:, 0], truth[:, 0]
        predictions = predictions[:, :, 0]
    folder.mkdir(parents=True, exist_ok=True)
    for name, stack in (("image", image), ("labels", labels), ("truth", truth)):
        tifffile.imwrite(folder / f"{name}.tif", stack, photometric="minisblack")
    array = zarr.create_array(
        folder / "predictions.zarr", shape=predictions.shape, dtype="f4", chunks=predictions.shape
    )
    array[:] = predictions


def settings(folder: Path, results: Path, depth: int = 1, **sections: Any) -> dict[str, Any]:
    sample = {"axes": "tyx" if depth == 1 else "tzyx", **sections.pop("sample", {})}
    sample |= {"voxel_size": {"z": 2.0, "y": 0.5, "x": 0.5}, "frame_interval": 60.0}
    return {**scenes.settings(folder, results, sample=sample, **sections), "task": "track"}


def write_truth(folder: Path) -> Path:
    """The true lineage as the Cell Tracking Challenge has it; the sequence is of planes."""
    truth = tifffile.imread(folder / "truth.tif").astype(np.uint64)
    rows = [(t, int(n)) for t in range(FRAMES) for n in np.unique(truth[t])[1:]]
    ids = {row: number for number, row in enumerate(rows, start=1)}
    objects = Objects.sort(
        list(ids.values()), [t for t, _ in rows], np.zeros((len(rows), 3)), np.ones(len(rows))
    )
    links = [(ids[t, n], ids[t + 1, n]) for t, n in rows if (t + 1, n) in ids]
    links += [(ids[3, 3], ids[4, n]) for n in (4, 5)]

    def frame(t: int) -> Any:
        table = np.zeros(6, np.uint64)
        for (when, n), number in ids.items():
            if when == t:
                table[n] = number
        return table[truth[t]]

    write_ctc(folder / "01_GT" / "TRA", Lineage.of(objects, links), frame, FRAMES, truth=True)
    return folder / "01_GT"
