"""Which crops to correct next: where the model errs, and what stands for most of the volume.

The score follows uncertainty sampling (Settles, "Active learning literature survey", 2009). Crops that
resemble many others are worth more than outliers, such as the ends of a volume: the choice is greedy
facility location (Nemhauser, Wolsey & Fisher 1978; for the choice of training data Wei, Iyer & Bilmes
2015), where every crop has to have a chosen one near it, one of high score more than others.

Invariants
----------
- The choice is a function of the run, the annotations and the settings.
- A suggestion that lies in the folder is never overwritten, nor suggested again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from volsam.annotate.candidates import Grid, coarse, examine
from volsam.annotate.crops import (
    SUFFIX,
    Provenance,
    content_digest,
    crop_kind,
    read_provenance,
    write_crop,
)
from volsam.annotate.runs import FinishedRun
from volsam.annotate.seams import Seams
from volsam.annotate.store import AnnotationStore
from volsam.blocks.stage import Job
from volsam.errors import VolsamError
from volsam.geometry import Box

Floats = NDArray[np.floating]
_SHORT_LIST = 8  # crops looked at for each one chosen
_LOOKED_AT = 2000  # crops whose mutual distances are held


@dataclass(frozen=True)
class Suggestion:
    """A crop to correct.

    Attributes
    ----------
    path : Path
    box : Box
        Voxels of the volume.
    score, uncertainty, disagreement : float
        Among the short list from 0 to 1; entropy of the foreground in bits (NaN without a network)
        and probability against the partition, means over the pixels.
    """

    path: Path
    box: Box
    score: float
    uncertainty: float
    disagreement: float


def score_crops(uncertainty: Floats, disagreement: Floats) -> NDArray[np.float64]:
    """One score from two measures: the mean of both, each relative to its largest value.

    Parameters
    ----------
    uncertainty, disagreement : float (n,)
        Means over the pixels of each crop, so that an error of few pixels counts little. A measure
        that is NaN does not count.

    Returns
    -------
    float64 (n,)
        0 to 1.
    """
    known = [
        v / (v.max() or 1.0)
        for v in (uncertainty, disagreement)
        if v.size and not np.isnan(v).any()
    ]
    return np.mean(known, axis=0, dtype=np.float64) if known else np.zeros(len(disagreement))


def to_one_scale(*groups: Floats) -> NDArray[np.float64]:
    """Groups of descriptors (n, d), each column by its deviation, each group with equal weight."""
    scaled = []
    for group in groups:
        spread = group.std(axis=0, dtype=np.float64)
        centred = (group - group.mean(axis=0)) / np.where(spread > 0, spread, 1)
        scaled.append(centred / np.sqrt(group.shape[1]))
    return np.concatenate(scaled, axis=1)


def choose(
    scores: Floats,
    descriptors: Floats,
    count: int,
    balance: float = 0.5,
    clash: NDArray[np.bool_] | None = None,
    alike: NDArray[np.integer] | None = None,
) -> list[int]:
    """Choose crops of high score that together stand for all.

    Each has the largest weighted mean of its score and of how much nearer it brings the chosen ones to
    all crops, as a fraction of the largest such gain. Crops count by score.

    Parameters
    ----------
    scores : float (n,)
        0 to 1.
    descriptors : float (n, d)
        Points whose distance says how different crops are; see `to_one_scale`.
    count : int
    balance : float
        Weight of standing for others: 0 chooses by score, 1 by that.
    clash : bool (n, n), optional
        Which crops share voxels: of these one is chosen at most, or the same voxels could be learnt
        from and held out.
    alike : integer (n,), optional
        How many crops of the volume each one stands for already; 1 by default.

    Returns
    -------
    list of int
        At most `count` indices, in the order of choice; of equally good ones the first.
    """
    if not 0 <= balance <= 1:
        raise VolsamError(f"The balance is {balance}; choose a number from 0 to 1.")
    if not len(scores) or count < 1:
        return []
    distance = cdist(descriptors, descriptors)
    need = (scores if scores.any() else np.ones(len(scores))) * (1.0 if alike is None else alike)
    nearest = np.full(len(scores), distance.max())
    gone = np.zeros(len(scores), np.bool_)
    chosen: list[int] = []
    while len(chosen) < count and not gone.all():
        nearer = np.maximum(nearest[:, None] - distance, 0)
        covered = need @ nearer
        gain = (1 - balance) * scores + balance * covered / (covered[~gone].max() or 1.0)
        gain[gone] = -np.inf
        # Equally good to the last digit of a sum is equally good, on every machine.
        chosen.append(int(np.argmax(gain.round(9))))
        nearest = np.minimum(nearest, distance[chosen[-1]])
        gone[chosen[-1]] = True
        if clash is not None:
            gone |= clash[chosen[-1]]
    return chosen


def suggest(
    job: Job,
    out: Path,
    annotations: Path,
    *,
    count: int = 3,
    size: int = 256,
    balance: float = 0.5,
    network: bool = True,
) -> list[Suggestion]:
    """Write the crops of a finished run that are worth correcting next.

    Parameters
    ----------
    job : Job
        Sample of a finished run whose intermediates were not cleaned away.
    out : Path
        Folder for ``<sample>-<n>.ome.zarr``: image, and ``labels/objects`` to correct.
    annotations : Path
        Store of the annotations there are; their regions are left out.
    count, size : int
        How many crops, and their edge in pixels.
    balance : float
        Weight of diversity, see `choose`.
    network : bool
        Judge uncertainty by predicting the crops of the short list again.

    Raises
    ------
    VolsamError
        If the run is not finished, or everything is annotated.
    """
    if count < 1 or size < 16:
        raise VolsamError(
            f"{count} crops of {size} pixels cannot be suggested; take at least 1 of at least 16."
        )
    run = FinishedRun.of(job.paths.folder)
    seams = Seams.of(job)
    grid = Grid(run.plan.region_box, size)
    known = _known(run, annotations, out)
    free = np.flatnonzero(grid.free([p.region or Box.of(run.plan.shape) for p in known]))
    if not free.size:
        raise VolsamError(
            f"All of {run.source} is annotated or suggested in {annotations} and {out}; correct what "
            "was suggested, or take another sample."
        )
    rough, *groups = (values[free] for values in coarse(grid, seams))
    scores = score_crops(rough * np.nan, rough)
    kept = _thin(scores)
    looks = to_one_scale(*groups)
    short = kept[choose(scores[kept], looks[kept], _SHORT_LIST * count, balance)]
    alike = np.bincount(cdist(looks[kept], looks[short]).argmin(1), minlength=len(short))
    boxes = [grid.box(int(free[i])) for i in short]
    uncertainty, disagreement, *groups = _examine(run, seams, boxes, network)
    scores = score_crops(uncertainty, disagreement)
    found = []
    clash = np.array([[one.intersect(other).size > 0 for other in boxes] for one in boxes])
    for i in choose(scores, to_one_scale(*groups), count, balance, clash, alike):
        path = _next(out, job.sample)
        why = (float(scores[i]), float(uncertainty[i]), float(disagreement[i]))
        _write(run, path, boxes[i])
        found.append(Suggestion(path, boxes[i], *why))
    return found


def _thin(scores: Floats) -> NDArray[np.intp]:
    """Of too many crops the best, and as many at equal distances; in order."""
    if len(scores) <= _LOOKED_AT:
        return np.arange(len(scores))
    best = np.argsort(-scores, kind="stable")[: _LOOKED_AT // 2]
    even = np.linspace(0, len(scores) - 1, _LOOKED_AT // 2).astype(np.intp)
    return np.union1d(best, even)


def _examine(
    run: FinishedRun, seams: Seams, boxes: Sequence[Box], network: bool
) -> tuple[Floats, Floats, Floats, Floats]:
    try:
        return examine(run, seams, boxes, network=network)
    except (VolsamError, MemoryError) as error:
        if not network:
            raise
        print(
            f"warning: the model of the run cannot be used ({error}); crops are chosen by their "
            "seams alone.",
            file=sys.stderr,
        )
        return examine(run, seams, boxes, network=False)


def _known(run: FinishedRun, annotations: Path, out: Path) -> list[Provenance]:
    """What is annotated, or waits to be."""
    waiting = [
        read_provenance(path)
        for path in sorted(out.glob(f"*{SUFFIX}"))
        if not path.name.startswith(".") and crop_kind(path)
    ]
    done = [annotation.provenance for annotation in AnnotationStore(annotations)]
    here = Provenance(source=run.source, reading=run.reading)
    return [p for p in (*done, *waiting) if p.same_source(here)]


def _next(out: Path, sample: str) -> Path:
    number = 1
    while (path := out / f"{sample}-{number}{SUFFIX}").exists():
        number += 1
    return path


def _write(run: FinishedRun, path: Path, box: Box) -> None:
    labels = run.labels(box)
    labels = labels.astype(np.uint32) if labels.max(initial=0) < 2**32 else labels
    z, y, x = box.shape
    provenance = run.provenance(box).model_copy(
        update={"tool": f"volsam, model {run.plan.model}", "shape": (z, y, x)}
    )
    more = {"prediction": content_digest(labels.astype(np.uint32))}
    write_crop(path, run.volume().read(box), {"objects": labels}, "suggestion", provenance, more)
