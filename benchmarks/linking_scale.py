"""Linking at length: tables of 3D+t detections up to a million objects, beside laptrack.

Points that drift, divide and die, some missed and some false. CPU seconds and the peak of resident memory
of a process of its own for each row; what a process needs before it links (imports and the table) is
beside. ``VOLSAM_LAPTRACK`` is the largest number of objects that laptrack gets (250000).

laptrack's radius is the best of those tried on this kind of data, of which ``volsam`` and ``fast`` know
nothing (default weights); ``fitted`` learnt from four other sequences of the kind, of 25 frames.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.by_laptrack import laptrack_links
from benchmarks.common import table
from benchmarks.linking import score
from volsam.demo.cloud import Swarm, swarm
from volsam.track.defaults import DEFAULTS
from volsam.track.fit import Example, fit
from volsam.track.lineage import Ids, Objects
from volsam.track.link import link
from volsam.track.scene import Scene
from volsam.track.settings import Track

POINTS = 1000
FRAMES = (25, 50, 100, 250, 500, 1000)
TOOLS = ("volsam", "fitted", "fast", "laptrack")
RADIUS = 0.3  # of laptrack, in mean distances of neighbours: the best of 0.25, 0.3 and 0.35


def main(folder: Path) -> str:
    """Measure all lengths, and draw."""
    largest = int(os.environ.get("VOLSAM_LAPTRACK", "250000"))
    weights = folder / "weights.json"
    _python("weights", str(weights))
    found: list[dict[str, Any]] = []
    for frames in FRAMES:
        for tool in TOOLS:
            if tool == "laptrack" and frames * POINTS > largest:
                continue
            line = _python(tool, str(frames), str(weights))
            found.append(json.loads(line.splitlines()[-1]))
            print(found[-1], file=sys.stderr, flush=True)
    (folder / "points.json").write_text(json.dumps(found, indent=1))
    draw(found, folder / "linking-scale.png")
    header = ("linked by", "frames", "objects", "CPU s", "ms per object", "MiB before", "MiB at most",
              "edges wrong + missing", "division F1")  # fmt: skip
    rows = [
        (
            one["tool"],
            one["frames"],
            f"{one['objects']:,}",
            f"{one['cpu']:.1f}",
            f"{1000 * one['cpu'] / one['objects']:.3f}",
            one["before"],
            one["peak"],
            f"{one['false_edges']} + {one['missed_edges']} of {one['true_edges']}",
            f"{one['division_f1']:.3f}",
        )
        for one in found
    ]
    return table(header, rows)


def _python(*arguments: str) -> str:
    """What this module says in a process of its own, whose memory is measured."""
    command = [sys.executable, "-m", "benchmarks.linking_scale", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def sequence(frames: int, seed: int) -> tuple[Objects, Ids]:
    """Objects of a sequence, and their true links."""
    cloud = swarm(Swarm(points=POINTS), frames, seed)
    ids = np.arange(1, len(cloud.frame) + 1, dtype=np.uint64)
    return Objects.sort(ids, cloud.frame, cloud.position, np.ones(len(ids))), ids[cloud.links]


def fit_weights(path: Path) -> None:
    """Fit weights to sequences that are not measured."""
    known = [sequence(25, seed) for seed in range(1, 5)]
    examples = [Example(Scene(objects), links) for objects, links in known]
    fit(examples, DEFAULTS["points"], strength=0.1).write(path)


def measure(tool: str, frames: int, weights: str) -> dict[str, Any]:
    """Link one sequence in this process."""
    objects, true = sequence(frames, seed=0)
    if tool == "laptrack":
        import laptrack  # noqa: F401
    before, started = _memory(), time.process_time()
    if tool == "laptrack":
        links = laptrack_links(objects.id, objects.frame, objects.position, RADIUS, gaps=2)
    else:
        chosen = {"fast": {"solver": "fast"}, "fitted": {"weights": weights}}.get(tool, {})
        links = link(objects, settings=Track.model_validate(chosen))
    cpu, peak = time.process_time() - started, _memory()
    scores = score(objects, true, links)
    return {
        "tool": tool,
        "frames": frames,
        "objects": len(objects),
        "cpu": cpu,
        "before": before,
        "peak": peak,
        **scores,
    }


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """CPU time and memory against the number of objects."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    for tool in TOOLS:
        rows = [one for one in found if one["tool"] == tool]
        objects = [one["objects"] for one in rows]
        time_axes.loglog(objects, [one["cpu"] for one in rows], "o-", label=tool)
        memory_axes.semilogx(objects, [one["peak"] - one["before"] for one in rows], "o-")
    time_axes.set(xlabel="objects", ylabel="CPU seconds")
    memory_axes.set(xlabel="objects", ylabel="MiB for linking", ylim=(0, None))
    time_axes.legend(frameon=False)
    for axes in (time_axes, memory_axes):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    if sys.argv[1] == "weights":
        fit_weights(Path(sys.argv[2]))
    else:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), sys.argv[3])))
