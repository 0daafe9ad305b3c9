"""Grid search over the parameters of automatic segmentation, on predictions that are made once.

`search` knows nothing of what the parameters mean: it is given a function from parameters to scores.
`AisEvaluator` is that function for AIS, `evaluate.amg.AmgEvaluator` for automatic mask generation.

Invariants
----------
- Every combination is evaluated once; those in the store of the same data are not evaluated again.
- Combinations are ordered, and of equally good ones the first is the best, so that the result does
  not depend on the number of processes or on interruptions.
- The store is append-only JSON lines, keyed by a digest of data and parameters; a torn line, which
  a kill leaves, is skipped.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import xxhash
from numpy.typing import NDArray

from volsam.errors import VolsamError
from volsam.evaluate.metrics import segmentation_accuracy
from volsam.segment.ais import AisParameters, segment_ais
from volsam.volume.store import writing

Parameters = dict[str, float]
Scores = dict[str, float]
Evaluate = Callable[[Mapping[str, float]], dict[str, float]]
Prediction = TypeVar("Prediction")
Kind = TypeVar("Kind")

MEANS = ("mSA", "SA50", "SA75", "precision", "recall")
"""Scores that are averaged over images."""

AIS_GRID: dict[str, tuple[float, ...]] = {
    "center_threshold": (0.3, 0.4, 0.5, 0.6, 0.7),
    "boundary_threshold": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    "distance_smoothing": (0.0, 0.8, 1.2, 1.6, 2.0),
    "foreground_threshold": (0.4, 0.45, 0.5, 0.55, 0.6),
    "foreground_smoothing": (0.0, 0.5, 1.0),
    "min_size": (0, 10, 20, 30, 40, 50, 100, 200),
    "min_foreground": (0.0, 0.65, 0.7, 0.75, 0.8, 0.85),
    "max_center": (0.25, 0.3, 0.35, 0.4, 0.5, 1.0),
}
"""The ranges of micro-sam's grid, and the parameters that it holds fixed or lacks; for coordinate
search."""

AIS_GRID_FULL: dict[str, tuple[float, ...]] = {
    "center_threshold": (0.3, 0.4, 0.5, 0.6, 0.7),
    "boundary_threshold": (0.3, 0.4, 0.5, 0.6, 0.7),
    "distance_smoothing": (1.0, 1.2, 1.4, 1.6, 1.8, 2.0),
    "min_size": (50, 100, 200),
}
"""micro-sam's grid of AIS, 450 combinations; small enough to be searched exhaustively."""

AMG_GRID: dict[str, tuple[float, ...]] = {
    "pred_iou_thresh": tuple(round(0.6 + 0.025 * i, 3) for i in range(13)),
    "stability_score_thresh": tuple(round(0.6 + 0.025 * i, 3) for i in range(15)),
}
"""micro-sam's grid of automatic mask generation: quality and stability below which masks go."""


@dataclass(frozen=True)
class GridResult:
    """What a search found.

    Attributes
    ----------
    best : dict
        Parameters of the highest metric.
    scores : dict
        Their scores.
    metric : str
        What was maximised.
    table : list of dict
        Parameters and scores of every combination, in the order of evaluation.
    """

    best: Parameters
    scores: Scores
    metric: str
    table: list[dict[str, float]]

    def to_json(self) -> dict[str, Any]:
        """For a file."""
        return {
            "best": self.best,
            "scores": self.scores,
            "metric": self.metric,
            "table": self.table,
        }


def search(
    evaluate: Evaluate,
    grid: Mapping[str, Sequence[float]],
    *,
    metric: str = "mSA",
    exhaustive: bool = True,
    rounds: int = 2,
    start: Mapping[str, float] | None = None,
    store: Path | None = None,
    data: str = "",
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> GridResult:
    """Find the best parameters of a grid.

    Parameters
    ----------
    evaluate : function of a mapping of parameters to a dict of scores
        Pure; with several `workers` it is pickled once for each.
    grid : mapping of str to sequence of float
        Values of each parameter.
    metric : str
        Score to maximise.
    exhaustive : bool
        Evaluate all combinations; else search one parameter after the other, the rest held at the
        best so far.
    rounds : int
        Passes over the parameters if not exhaustive; it stops early when nothing changes.
    start : mapping, optional
        What is evaluated first, and holds for parameters that are not in the grid; it need not lie
        on the grid. A search of one parameter after the other starts in the middle of each list
        where it is silent; of all combinations they are the first if it is.
    store : Path, optional
        JSON lines of what was evaluated; the search goes on from there.
    data : str
        Digest of the data that `evaluate` holds; results of other data in the store do not count.
        By default the attribute ``digest`` of `evaluate`, if it has one.
    workers : int
        Processes; started anew, so a script that asks for several needs its ``__main__`` guard.
    progress : function of (done, total), optional
        Called after each combination; the total is an upper bound.

    Returns
    -------
    GridResult

    Raises
    ------
    VolsamError
        If the grid is empty, or a result lacks the metric.
    """
    if not grid or not all(len(values) for values in grid.values()):
        raise VolsamError("The grid has no values to search; give each parameter at least one.")
    data, held = data or str(getattr(evaluate, "digest", "")), dict(start or {})
    with _evaluation(evaluate, workers) as compute:
        table = _Table(compute, metric, _Store(store, data), progress)
        if exhaustive:
            combinations = [held] if held.keys() >= grid.keys() else []
            for values in product(*map(tuple, grid.values())):
                combinations.append({**held, **dict(zip(grid, values, strict=True))})
            table.total = len(combinations)
            table.add(combinations)
        else:
            _by_coordinates(table, grid, rounds, held)
    return table.result()


class Evaluator(ABC, Generic[Prediction]):
    """Scores of the parameters of a method on images whose predictions are made.

    Parameters
    ----------
    predictions : sequence
        What the network made of each image.
    truths : sequence of (h, w) integer array
        Objects.
    ignore : sequence of (h, w) bool array or None, optional
        Pixels without truth.

    Attributes
    ----------
    digest : str
        Of all of these.
    """

    def __init__(
        self,
        predictions: Sequence[Prediction],
        truths: Sequence[NDArray[np.integer[Any]]],
        ignore: Sequence[NDArray[np.bool_] | None] | None = None,
    ) -> None:
        unknown = [None] * len(predictions) if ignore is None else list(ignore)
        self._items = list(zip(predictions, truths, unknown, strict=True))
        state = xxhash.xxh128()
        for prediction, *truth in self._items:
            for array in (*self.arrays(prediction), *truth):
                if array is None:
                    state.update(b"-")
                    continue
                state.update(f"{array.dtype}{array.shape}".encode())
                state.update(np.ascontiguousarray(array).data)
        self.digest = state.hexdigest()

    def __call__(self, parameters: Mapping[str, float]) -> Scores:
        """Average mSA, SA50, SA75, precision and recall over the images, each counting once."""
        scores = []
        for prediction, truth, ignore in self._items:
            labels = self.segment(prediction, parameters)
            known = None if ignore is None else ~ignore
            scores.append(segmentation_accuracy(labels, truth, mask=known))
        return {name: float(np.mean([s[name] for s in scores])) for name in MEANS}

    @staticmethod
    @abstractmethod
    def segment(prediction: Prediction, parameters: Mapping[str, float]) -> NDArray[np.uint32]:
        """Labels of one image; unknown parameters are refused."""

    @staticmethod
    @abstractmethod
    def arrays(prediction: Prediction) -> Iterable[NDArray[Any]]:
        """All that a prediction consists of, for the digest."""


class AisEvaluator(Evaluator[NDArray[np.float32]]):
    """`Evaluator` of AIS; predictions are (3, h, w): foreground, centre and boundary distances."""

    @staticmethod
    def segment(
        prediction: NDArray[np.float32], parameters: Mapping[str, float]
    ) -> NDArray[np.uint32]:
        """See `segment_ais`."""
        foreground, center, boundary = prediction
        return segment_ais(foreground, center, boundary, ais_parameters(parameters))

    @staticmethod
    def arrays(prediction: NDArray[np.float32]) -> Iterable[NDArray[Any]]:
        """The maps."""
        return (prediction,)


def ais_parameters(values: Mapping[str, float]) -> AisParameters:
    """Turn names and numbers into `AisParameters`; unknown names are refused."""
    return parameters_of(AisParameters, "AIS", values)


def parameters_of(kind: type[Kind], method: str, values: Mapping[str, float]) -> Kind:
    """Turn names and numbers into parameters of a method; unknown names are refused."""
    types: dict[str, Any] = {f.name: type(f.default) for f in fields(kind)}  # type: ignore[arg-type]
    if strange := sorted(set(values) - set(types)):
        raise VolsamError(
            f"{method} has no parameter {strange[0]!r}; search over {', '.join(sorted(types))}."
        )
    # JSON and NumPy give numbers of any type.
    return kind(**{name: types[name](value) for name, value in values.items()})


class _Store:
    """Scores by key, in memory and, with a path, on disk."""

    def __init__(self, path: Path | None, data: str) -> None:
        self._path, self._data = path, data
        self._known: dict[str, Scores] = {}
        self._whole = True  # whether the file ends with a line break
        if path is not None and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            self._whole = not text or text.endswith("\n")
            for line in text.splitlines():
                try:
                    entry = json.loads(line)
                    self._known[str(entry["key"])] = dict(entry["scores"])
                except (ValueError, KeyError, TypeError):
                    continue

    def key(self, parameters: Mapping[str, float]) -> str:
        # 1 and 1.0 are the same parameter.
        numbers = {name: float(value) for name, value in parameters.items()}
        text = json.dumps([self._data, numbers], sort_keys=True)
        return xxhash.xxh128(text.encode()).hexdigest()

    def get(self, parameters: Mapping[str, float]) -> Scores | None:
        return self._known.get(self.key(parameters))

    def put(self, parameters: Mapping[str, float], scores: Scores) -> None:
        key = self.key(parameters)
        self._known[key] = scores
        if self._path is None:
            return
        line = json.dumps({"key": key, "parameters": dict(parameters), "scores": scores})
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(("" if self._whole else "\n") + line + "\n")
        self._whole = True


class _Table:
    """The combinations seen so far, evaluated at most once each."""

    def __init__(
        self,
        compute: Callable[[Sequence[Parameters]], Iterator[Scores]],
        metric: str,
        store: _Store,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._compute, self._metric = compute, metric
        self._store, self._progress = store, progress
        self._rows: dict[str, tuple[Parameters, Scores]] = {}
        self.total = 0

    def add(self, combinations: Sequence[Parameters]) -> None:
        """Evaluate those that are new."""
        new = {self._store.key(c): c for c in combinations}
        new = {key: c for key, c in new.items() if key not in self._rows}
        missing = [c for c in new.values() if self._store.get(c) is None]
        results = self._compute(missing)
        for key, combination in new.items():
            scores = self._store.get(combination)
            if scores is None:
                scores = {name: float(value) for name, value in next(results).items()}
                self._check(scores)
                self._store.put(combination, scores)
            self._check(scores)
            self._rows[key] = (combination, scores)
            if self._progress is not None:
                self._progress(len(self._rows), max(self.total, len(self._rows)))

    def best(self) -> tuple[Parameters, Scores]:
        """The first of the highest metric."""
        return max(self._rows.values(), key=lambda row: row[1][self._metric])

    def result(self) -> GridResult:
        best, scores = self.best()
        rows = [{**parameters, **found} for parameters, found in self._rows.values()]
        return GridResult(dict(best), scores, self._metric, rows)

    def _check(self, scores: Scores) -> None:
        if not math.isfinite(scores.get(self._metric, math.nan)):
            raise VolsamError(
                f"The evaluation gave no number for the metric {self._metric!r}; choose one of "
                f"{', '.join(scores)}."
            )


def _by_coordinates(
    table: _Table, grid: Mapping[str, Sequence[float]], rounds: int, start: Mapping[str, float]
) -> None:
    best = {name: start.get(name, values[len(values) // 2]) for name, values in grid.items()}
    best = {**start, **best}
    table.total = 1 + max(1, rounds) * sum(len(values) for values in grid.values())
    table.add([best])
    for _ in range(max(1, rounds)):
        before = table.best()[0]
        for name, values in grid.items():
            table.add([{**table.best()[0], name: value} for value in values])
        if table.best()[0] == before:
            return


@contextmanager
def _evaluation(
    evaluate: Evaluate, workers: int
) -> Iterator[Callable[[Sequence[Parameters]], Iterator[Scores]]]:
    """Many evaluations in order: here, or in processes that get `evaluate` once each."""
    if workers <= 1:
        yield lambda combinations: map(evaluate, combinations)
        return
    # Not fork: the threads of torch do not survive it.
    pool = ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_install, initargs=(evaluate,)
    )
    try:
        yield lambda combinations: pool.map(_evaluate, combinations)
    finally:
        pool.shutdown(cancel_futures=True)


_installed: Evaluate | None = None


def _install(evaluate: Evaluate) -> None:
    global _installed
    _installed = evaluate


def _evaluate(parameters: Parameters) -> Scores:
    assert _installed is not None
    return _installed(parameters)
