"""Pictures of lineages: family trees over time, lengths of tracks, divisions over time."""

from __future__ import annotations

import base64
import io
from collections import defaultdict

import numpy as np
import numpy.typing as npt

from volsam.report.charts import Chart, histogram
from volsam.track.lineage import Lineage

MOST = 30  # families that are drawn, the largest ones
TALLEST = 160  # leaves that are drawn
BINS = 24


def tree_rows(lineage: Lineage, families: npt.NDArray[np.int64]) -> dict[int, float]:
    """Where tracks of some families lie across time: leaves one below the other, mothers in between.

    Parameters
    ----------
    lineage : Lineage
    families : (n,) int64
        Numbers of their first tracks, in the order in which they are drawn.

    Returns
    -------
    dict of int to float
        Row of each track.
    """
    daughters: dict[int, list[int]] = defaultdict(list)
    for number, parent in enumerate(lineage.parent, start=1):
        if parent:
            daughters[int(parent)].append(number)
    rows: dict[int, float] = {}
    leaf = 0.0
    for family in families:
        # From the leaves up, without recursion: a family may be as deep as the sequence is long.
        order, stack = [], [int(family)]
        while stack:
            track = stack.pop()
            order.append(track)
            stack.extend(reversed(daughters[track]))
        for track in order:
            if not daughters[track]:
                rows[track] = leaf
                leaf += 1
        for track in reversed(order):
            if daughters[track]:
                rows[track] = float(np.mean([rows[daughter] for daughter in daughters[track]]))
        leaf += 0.5
    return rows


def tree_picture(lineage: Lineage) -> str:
    """The largest families as a PNG, base64; empty if nothing divides."""
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    family = lineage.family()
    if not lineage.parent.any():
        return ""
    numbers, sizes = np.unique(family, return_counts=True)
    chosen = numbers[np.lexsort((numbers, -sizes))][:MOST]
    chosen = chosen[sizes[np.searchsorted(numbers, chosen)] > 1]
    leaves = np.cumsum((sizes[np.searchsorted(numbers, chosen)] + 1) // 2)
    chosen = chosen[: max(1, int(np.searchsorted(leaves, TALLEST)))]
    rows = tree_rows(lineage, chosen)
    first, last = lineage.frames()
    colours = {number: colormaps["tab10"](n % 10) for n, number in enumerate(chosen)}
    lines: list[list[tuple[float, float]]] = []
    shades: list[tuple[float, ...]] = []
    for track, row in rows.items():
        start, stop, parent = first[track - 1], last[track - 1], int(lineage.parent[track - 1])
        lines.append([(start, row), (stop + 0.5, row)])
        if parent:
            branch = last[parent - 1] + 0.5
            lines[-1][0] = (branch, row)
            lines.append([(branch, rows[parent]), (branch, row)])
        shades += [colours[family[track - 1]]] * (len(lines) - len(shades))
    height = float(np.clip(0.09 * max(rows.values()) + 0.8, 1.6, 12))
    figure = Figure(figsize=(9, height), layout="constrained")
    axes = figure.subplots()
    axes.add_collection(LineCollection(lines, colors=shades, linewidths=1.4))
    axes.set_xlim(min(first), max(last) + 1)
    axes.set_ylim(max(rows.values()) + 1, -1)
    axes.set_yticks([])
    axes.set_xlabel("frame")
    axes.spines[["left", "right", "top"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()


def length_chart(lineage: Lineage) -> Chart | None:
    """How many frames tracks last."""
    first, last = lineage.frames()
    length = last - first + 1
    longest = int(length.max(initial=0))
    bins = min(BINS, longest)
    counts, _ = np.histogram(length, bins=max(1, bins), range=(0.5, longest + 0.5))
    return histogram(counts.tolist(), 0.5, longest + 0.5, "frames of a track")


def division_chart(lineage: Lineage) -> Chart | None:
    """When tracks divide."""
    _, last = lineage.frames()
    frames = last[np.asarray(sorted(lineage.divisions()), np.int64) - 1]
    stop = int(lineage.objects.frame.max(initial=0)) + 1
    counts, _ = np.histogram(frames, bins=min(BINS, stop), range=(0, stop))
    return histogram(counts.tolist(), 0, stop, "frame of a division")


def summary(lineage: Lineage) -> list[tuple[str, str]]:
    """A few numbers, by name."""
    first, last = lineage.frames()
    family = lineage.family()
    return [
        ("tracks", f"{len(lineage):,}"),
        ("families", f"{len(np.unique(family)):,}"),
        ("divisions", f"{len(lineage.divisions()):,}"),
        ("median length", f"{np.median(last - first + 1):g} frames" if len(lineage) else "–"),
        ("in all frames", f"{int(np.sum((first == 0) & (last == last.max(initial=0)))):,} tracks"),
    ]
