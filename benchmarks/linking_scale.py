"""Linking at length: tables of 3D+t detections up to a million objects, beside laptrack.

Points that drift, divide and die, some missed and some false. CPU seconds and the peak of resident memory
of a process of its own for each row; what a process needs before it links (imports and the table) is
beside. ``VOLSAM_LAPTRACK`` is the largest number of objects that laptrack gets (250000).
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

from benchmarks.common import table

POINTS = 1000
FRAMES = (25, 50, 100, 250, 500, 1000)
RADIUS = 0.3  # of laptrack, in mean distances of neighbours: the best of those tried


def main(folder: Path) -> str:
    """Measure all lengths, and draw."""
    largest = int(os.environ.get("VOLSAM_LAPTRACK", "250000"))
    found: list[dict[str, Any]] = []
    for frames in FRAMES:
        for tool in ("volsam", "fast", "laptrack"):
            if tool == "laptrack" and frames * POINTS > largest:
                continue
            command = [sys.executable, "-m", "benchmarks.linking_scale", tool, str(frames)]
            line = subprocess.run(command, capture_output=True, text=True, check=True).stdout
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
            f"{one['wrong']} + {one['missing']} of {one['edges']}",
            f"{one['division_f1']:.3f}",
        )
        for one in found
    ]
    return table(header, rows)


def measure(tool: str, frames: int) -> dict[str, Any]:
    """Link one sequence in this process."""
    from benchmarks.linking import score
    from benchmarks.tracking import laptrack_links
    from volsam.demo.cloud import Swarm, swarm
    from volsam.track.lineage import Objects
    from volsam.track.link import link
    from volsam.track.settings import Track

    cloud = swarm(Swarm(points=POINTS), frames)
    ids = np.arange(1, len(cloud.frame) + 1)
    objects = Objects.sort(ids, cloud.frame, cloud.position, np.ones(len(ids)))
    if tool == "laptrack":
        import laptrack  # noqa: F401
    before, started = _memory(), time.process_time()
    if tool == "laptrack":
        links = laptrack_links(objects.id, objects.frame, objects.position, RADIUS)
    else:
        links = link(objects, settings=Track(solver="fast" if tool == "fast" else "global"))
    cpu, peak = time.process_time() - started, _memory()
    wrong, missing, edges, true, found, right = score(objects, ids[cloud.links], links)
    return {
        "tool": tool,
        "frames": frames,
        "objects": len(ids),
        "cpu": cpu,
        "before": before,
        "peak": peak,
        "wrong": wrong,
        "missing": missing,
        "edges": edges,
        "division_f1": 2 * right / max(1, true + found),
    }


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """CPU time and memory against the number of objects."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    for tool in ("volsam", "fast", "laptrack"):
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
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
