"""Scores of tracking, as the Cell Tracking Challenge defines them, by the package py-ctcmetrics.

TRA, DET and LNK compare lineages as graphs (Matula et al. 2015), SEG masks (Maška et al. 2014), CHOTA
identities over whole families (Kaiser et al. 2024); divisions are matched as for the branching
correctness of Ulman et al. 2017. An object is found if a label covers more than half of its marker.

Invariants
----------
- Frames are matched here, one at a time, and only lists of labels reach the package: its own reader is
  several times slower and wraps 16-bit labels. traccuracy 0.3 holds both stacks in memory, and counts
  splits by object rather than by operation, so that it misses the official TRA where there are any.
- Tracks are those of the files: a parent with one child stays a parent, which the edges' meaning in TRA
  depends on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volsam.errors import VolsamError
from volsam.evaluate.chota import chota
from volsam.evaluate.contingency import Contingency
from volsam.evaluate.edges import f1_scores
from volsam.exchange.ctc import CtcSequence, open_ctc, read_labels, seg_masks
from volsam.track.lineage import Ints

SegTruth = Iterable[tuple[int, int | None, npt.NDArray[Any]]]

_ERRORS = {
    "NS": "splits",
    "FN": "missed_objects",
    "FP": "false_objects",
    "ED": "false_edges",
    "EA": "missed_edges",
    "EC": "wrong_edges",
}


def tracking_scores(
    truth: CtcSequence | str | Path,
    result: CtcSequence | str | Path,
    *,
    masks: SegTruth | None = None,
    tolerance: int = 0,
) -> dict[str, float | int | None]:
    """Score a result against the truth.

    Parameters
    ----------
    truth, result : CtcSequence or folder
        See `volsam.exchange.ctc`: `open_ctc` for folders, `CtcSequence.of` for a lineage with label
        images. They need the same frames.
    masks : iterable of (frame, slice or None, labels), optional
        Masks of whole objects for SEG. Of a folder ``01_GT``, by default, those in its ``SEG``.
    tolerance : int
        Frames by which a division may come early or late.

    Returns
    -------
    dict
        ``TRA``, ``DET``, ``LNK``, ``CHOTA`` and ``SEG`` (None without masks), ``division_precision``,
        ``division_recall``, ``division_f1``, ``true_divisions``, ``divisions``, and the operations that
        TRA counts: ``splits``, ``missed_objects``, ``false_objects``, ``false_edges``,
        ``missed_edges``, ``wrong_edges``. ``LNK`` is None if the truth has no edge.

    Raises
    ------
    VolsamError
        If the package is missing, or frames, images or tables do not fit.
    """
    metrics = _package()
    if not isinstance(truth, CtcSequence):
        masks = _seg_truth(Path(truth)) if masks is None else masks
        truth = open_ctc(truth)
    result = result if isinstance(result, CtcSequence) else open_ctc(result)
    if truth.frames != result.frames:
        raise VolsamError(
            f"{result.name} has frames {_span(result.frames)}, but {truth.name} has "
            f"{_span(truth.frames)}; score the same frames."
        )
    if len(truth.frames) == 1:
        raise VolsamError(f"{truth.name} has one frame only; score its segmentation, not tracks.")
    matched = _Matched.of(truth, result)
    if not any(matched.truth):
        raise VolsamError(f"{truth.name} has no objects; there is nothing to score against.")
    # Frames count from the first image, as the lists of labels do.
    first = np.array([0, truth.frames.start, truth.frames.start, 0])
    tables = result.table - first, truth.table - first
    scores = _graph_scores(metrics, tables, matched)
    seg = None if masks is None else _seg(metrics, result, masks)
    right, false, missed = metrics.divisions(
        *tables, matched.truth_matched, matched.result_matched, i=tolerance
    )
    return {
        **scores,
        "SEG": seg,
        "true_divisions": right + missed,
        "divisions": right + false,
        **f1_scores("division", right, right + missed, right + false),
    }


@dataclass
class _Matched:
    """Labels of every frame, and which of them match, as py-ctcmetrics has them: lists of lists."""

    truth: list[list[int]] = field(default_factory=list)
    result: list[list[int]] = field(default_factory=list)
    truth_matched: list[list[int]] = field(default_factory=list)
    result_matched: list[list[int]] = field(default_factory=list)

    @classmethod
    def of(cls, truth: CtcSequence, result: CtcSequence) -> _Matched:
        self = cls()
        for frame in truth.frames:
            true, found = truth.read(frame), result.read(frame)
            _check_shape(result, frame, found, true)
            self.truth.append(truth.check(frame, true).tolist())
            self.result.append(result.check(frame, found).tolist())
            markers, labels, _ = _cover(true, found)
            self.truth_matched.append(markers.tolist())
            self.result_matched.append(labels.tolist())
        return self


def _graph_scores(
    metrics: _Package, tables: tuple[Ints, Ints], matched: _Matched
) -> dict[str, float | int | None]:
    """TRA, DET, LNK and CHOTA of tables of result and truth."""
    result, truth = tables
    edges = int((truth[:, 2] - truth[:, 1]).sum() + (truth[:, 3] > 0).sum())
    if not any(matched.result):  # the package cannot take an empty result
        counts = dict.fromkeys(_ERRORS.values(), 0)
        counts |= {"missed_objects": sum(map(len, matched.truth)), "missed_edges": edges}
        return {"TRA": 0.0, "DET": 0.0, "LNK": 0.0 if edges else None, "CHOTA": 0.0, **counts}
    hits = matched.truth_matched, matched.result_matched
    operations = metrics.operations(truth, result, matched.truth, matched.result, *hits)
    return {
        "TRA": metrics.tra(**operations)[0],
        "DET": metrics.det(**operations),
        "LNK": metrics.lnk(**operations) if edges else None,
        "CHOTA": chota(truth, result, (matched.truth, matched.result), hits),
        **{name: int(operations[key]) for key, name in _ERRORS.items()},
    }


def _seg(metrics: _Package, result: CtcSequence, masks: SegTruth) -> float | None:
    """Mean IoU over true objects, 0 for one of which no label covers more than half."""
    objects: list[list[int]] = []
    ious: list[list[float]] = []
    for frame, slice_, true in masks:
        if frame not in result.frames:
            raise VolsamError(f"{result.name} has no frame {frame}, of which there is a true mask.")
        found = result.read(frame)
        found = found[slice_] if slice_ is not None and found.ndim == 3 else found
        _check_shape(result, frame, found, true)
        present = np.unique(true)
        objects.append(present[present != 0].tolist())
        ious.append(_cover(true, found)[2].tolist())
    return float(metrics.seg(objects, ious)) if any(objects) else None


def _cover(
    true: npt.NDArray[Any], found: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Objects of which a label covers more than half, that label, and their IoU."""
    table = Contingency.of(found, true)
    truths, truth_size = table.truth_sizes()
    labels, label_size = table.label_sizes()
    size = truth_size[np.searchsorted(truths, table.truth)]
    kept = (table.label != 0) & (table.truth != 0) & (2 * table.count > size)
    other = label_size[np.searchsorted(labels, table.label)]
    iou = table.count / (size + other - table.count)
    order = np.argsort(table.truth[kept], kind="stable")
    return table.truth[kept][order], table.label[kept][order], iou[kept][order]


def _seg_truth(folder: Path) -> SegTruth | None:
    """Masks in the SEG of a folder of truth, in the order of their names."""
    masks = list(seg_masks(folder))
    if not masks:
        return None

    def read() -> Iterator[tuple[int, int | None, npt.NDArray[Any]]]:
        for mask in masks:
            yield int(mask.frame), mask.slice, read_labels(mask.path)

    return read()


def _check_shape(
    result: CtcSequence, frame: int, found: npt.NDArray[Any], true: npt.NDArray[Any]
) -> None:
    if found.shape != true.shape:
        raise VolsamError(
            f"Frame {frame} of {result.name} has shape {found.shape}, but its truth {true.shape}; "
            f"score labels on the grid of the truth."
        )


def _span(frames: range) -> str:
    return f"{frames.start} to {frames.stop - 1}"


@dataclass(frozen=True)
class _Package:
    """What is used of py-ctcmetrics."""

    operations: Any
    tra: Any
    det: Any
    lnk: Any
    seg: Any
    divisions: Any


def _package() -> _Package:
    try:
        from ctc_metrics.metrics import det, lnk, raw_division_metrics, seg, tra
        from ctc_metrics.utils.representations import count_acyclic_graph_correction_operations
    except ImportError as error:
        raise VolsamError(
            "Scores of tracking need the package py-ctcmetrics; install it with: "
            "pip install 'volsam[track]'."
        ) from error
    return _Package(
        count_acyclic_graph_correction_operations, tra, det, lnk, seg, raw_division_metrics
    )
