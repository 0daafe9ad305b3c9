"""All scores of a model on annotated images: automatic, interactive, and of dense segmentations.

Invariants
----------
- Predictions are made once per image, whatever is computed from them.
- Ignored pixels are removed from labels and truth before anything is scored.
- Means are over images, each counting once (as in the papers of Cellpose and Segment Anything for
  Microscopy); only the mean IoU of interactive segmentation is over objects.
- Results hold numbers, strings, lists and dicts only, ready for JSON.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from volsam.errors import VolsamError
from volsam.evaluate.amg import AmgEvaluator, loosest
from volsam.evaluate.contingency import Contingency
from volsam.evaluate.grid import (
    AIS_GRID,
    AMG_GRID,
    MEANS,
    AisEvaluator,
    Evaluator,
    ais_parameters,
    search,
)
from volsam.evaluate.interactive import SETTINGS, Curve, interact
from volsam.evaluate.metrics import score
from volsam.evaluate.neurites import Background, neurite_scores
from volsam.geometry import TileGrid
from volsam.segment.ais import grid_in_pixels, in_pixels
from volsam.segment.amg import AmgParameters, predict_candidates
from volsam.segment.predict import predict_tiles

if TYPE_CHECKING:
    from volsam.models import Model

Maps = NDArray[np.float32]
Progress = Callable[[str, int, int], None]
Method = Literal["ais", "amg"]


@dataclass(frozen=True, eq=False)
class Pair:
    """An image and its truth.

    Attributes
    ----------
    name : str
        Unique among the images of an evaluation.
    image : (h, w) float32 array
        Normalised intensities, as `volsam.train.data.normalise` gives them: 0 and 1 are the
        percentiles, what lies outside is clipped, and the network sees 255 times that.
    labels : (h, w) integer array
        Objects, 0 is background.
    ignore : (h, w) bool array or None
        Pixels without truth.
    extremes : (float, float) or None
        Least and greatest intensity of the volume that the image is a part of, None if it is whole.
    """

    name: str
    image: NDArray[np.float32]
    labels: NDArray[Any]
    ignore: NDArray[np.bool_] | None = None
    extremes: tuple[float, float] | None = None

    @property
    def known(self) -> NDArray[np.bool_] | None:
        """Pixels that count, None for all."""
        return None if self.ignore is None else ~self.ignore


def as_trained(images: Sequence[Pair], model: Model) -> list[Pair]:
    """Images with intensities as the model was trained; they come scaled by percentiles."""
    if model.normalisation != "minmax":
        return list(images)
    stretched = []
    for pair in images:
        low, high = pair.extremes or (float(pair.image.min()), float(pair.image.max()))
        image = (pair.image - np.float32(low)) / np.float32(max(high - low, 1e-6))
        stretched.append(replace(pair, image=image))
    return stretched


def evaluate_model(
    model: Model,
    images: Sequence[Pair],
    *,
    interactive: bool,
    rounds: int = 8,
    grid: bool,
    neurites: bool,
    seed: int,
    automatic: bool = True,
    method: Method = "ais",
    tuning: Sequence[Pair] = (),
    scale: float = 1.0,
    batch: int = 32,
    background: Background = "segment",
    store: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate a model.

    Parameters
    ----------
    model : Model
        With the parts that are asked of it.
    images : sequence of Pair
        What is scored.
    interactive : bool
        Simulate interactive segmentation from point and box, with and without mask prompt.
    rounds : int
        Corrections of it.
    grid : bool
        Search the parameters of automatic segmentation on `tuning` and score with the best. Without
        `tuning` the search is on the scored images themselves; the model's own parameters are then
        scored, and the result of the search is an upper bound, not a score.
    neurites : bool
        Variation of information and adapted Rand error of the automatic segmentation.
    seed : int
        Of the prompts, together with the names of the images.
    automatic : bool
        Segment automatically; without it neither `grid` nor `neurites`.
    method : {"ais", "amg"}
        How: with the decoder, or by automatic mask generation. Models have no parameters of their own
        for the latter; its defaults count as such.
    tuning : sequence of Pair
        Images of the grid search, none of them in `images`.
    scale : float
        Pixels of the network's input per pixel of the images.
    batch : int
        Objects, or points of automatic mask generation, prompted at once.
    background : {"segment", "singletons", "ignore"}
        Of the labels in `neurite_scores`.
    store : Path, optional
        Of the grid search, see `grid.search`.
    progress : function of (what, done, total), optional
        Called after each step.

    Returns
    -------
    dict
        ``model``, ``hash``, ``images``, ``scale``, ``seed``; where asked for ``automatic`` (and in it
        ``method``, ``parameters``, ``per_image``, ``mean``, ``deviation``), ``neurites`` (the last
        three), ``grid`` (`GridResult`, and ``on``, whether ``tuning`` or ``scored`` images) and
        ``interactive``: ``rounds`` and ``curves``, of each setting ``start``, ``with_mask``,
        ``name``, ``objects`` and, per number of corrections, ``iou`` and ``iou_deviation`` over
        objects, ``mSA``, ``SA50``, ``SA75``, ``precision`` and ``recall`` over images. Deviations
        are of a single image or object.

    Raises
    ------
    VolsamError
        If there is no image, an image and its truth differ in shape, or the model lacks a part.
    """
    _check(images, tuning)
    report = progress or (lambda what, done, total: None)
    result: dict[str, Any] = {
        "model": model.name,
        "hash": model.hash,
        "images": len(images),
        "scale": scale,
        "seed": seed,
    }
    if automatic:
        way = _way(model, method, grid, scale, batch)
        predictions = _predict_all(way, images, report, "predict")
        parameters: Mapping[str, float] = way.own
        if grid:
            on = _predict_all(way, tuning, report, "predict for tuning")
            pairs, predicted = (tuning, on) if tuning else (images, predictions)
            found = search(
                way.evaluator(predicted, [p.labels for p in pairs], [p.ignore for p in pairs]),
                way.grid,
                exhaustive=way.exhaustive,
                start=way.own,
                store=store,
                progress=lambda done, total: report("search parameters", done, total),
            )
            parameters = found.best if tuning else parameters
            result["grid"] = {"on": "tuning" if tuning else "scored", **found.to_json()}
        used = {"method": method, "parameters": dict(parameters)}
        labels = (way.evaluator.segment(prediction, parameters) for prediction in predictions)
        result |= _automatic(images, labels, used, background if neurites else None)
    if interactive:
        per_image = []
        for number, pair in enumerate(images, start=1):
            own = zlib.crc32(f"{seed} {pair.name}".encode())
            per_image.append(
                interact(
                    model,
                    pair.image,
                    pair.labels,
                    ignore=pair.ignore,
                    rounds=rounds,
                    seed=own,
                    batch=batch,
                    scale=scale,
                )
            )
            report("interact", number, len(images))
        result["interactive"] = {"rounds": rounds, "curves": _curves(per_image)}
    return result


def predict_image(
    model: Model, image: NDArray[np.floating], scale: float = 1.0, halo: int | None = None
) -> Maps:
    """AIS maps of a whole image.

    An image that fits the network's input with a halo around it is predicted in one piece; a larger
    one in tiles whose halos are cut off, as in the pipeline. Beyond its border it is mirrored.

    Parameters
    ----------
    model : Model
        With a decoder.
    image : (h, w) array
        As of `Pair`.
    scale : float
        Pixels of the network's input per pixel of the image.
    halo : int, optional
        Least context of a tile in pixels of the image; an eighth of the input by default.

    Returns
    -------
    (3, h, w) float32 array
        Foreground, distances to the centre and to the boundary.
    """
    side, longest = max(1, int(model.image_size / scale)), max(image.shape)
    halo = side // 8 if halo is None else halo
    if not 0 <= 2 * halo < side:
        raise VolsamError(
            f"A halo of {halo} pixels leaves nothing of tiles of {side}; make it smaller."
        )
    if longest + 2 * halo <= side:
        grid = TileGrid((longest, longest), longest, (side - longest) // 2)
    else:
        grid = TileGrid((image.shape[0], image.shape[1]), side - 2 * halo, halo)
    extent = (n * grid.tile for n in grid.counts)
    pad = [(grid.halo, e + grid.halo - n) for e, n in zip(extent, image.shape, strict=True)]
    padded = np.pad(np.clip(image, 0, 1).astype(np.float32), pad, mode="symmetric")
    maps = np.empty((3, *image.shape), np.float32)
    for tile in range(len(grid)):
        outer = grid.outer(tile).shift((grid.halo, grid.halo))
        predicted = predict_tiles(model, padded[outer.slices][None], scale=scale)[0]
        part = maps[(slice(None), *grid.inner(tile).slices)]
        cut = (slice(grid.halo, grid.halo + n) for n in part.shape[1:])
        part[:] = predicted[(slice(None), *cut)]
    return maps


@dataclass(frozen=True)
class _Way:
    """A method of automatic segmentation: what is predicted once, and what is searched on that."""

    own: dict[str, float]
    predict: Callable[[NDArray[np.float32]], Any]
    evaluator: type[Evaluator[Any]]
    grid: Mapping[str, Sequence[float]]
    exhaustive: bool


def _way(model: Model, method: Method, grid: bool, scale: float, batch: int) -> _Way:
    if method == "ais":
        maps = partial(predict_image, model, scale=scale)
        own = asdict(ais_parameters(in_pixels(model.ais, scale)))
        return _Way(own, maps, AisEvaluator, grid_in_pixels(AIS_GRID, scale), exhaustive=False)
    least = loosest(AMG_GRID if grid else {}, AmgParameters())
    masks = partial(predict_candidates, model, loosest=least, scale=scale, batch=batch)
    return _Way(asdict(AmgParameters()), masks, AmgEvaluator, AMG_GRID, exhaustive=True)


def _predict_all(way: _Way, images: Sequence[Pair], report: Progress, what: str) -> list[Any]:
    predictions = []
    for number, pair in enumerate(images, start=1):
        predictions.append(way.predict(pair.image))
        report(what, number, len(images))
    return predictions


def _automatic(
    images: Sequence[Pair],
    labels: Iterable[NDArray[np.uint32]],
    used: Mapping[str, Any],
    background: Background | None,
) -> dict[str, Any]:
    instances, dense = [], []
    for pair, found in zip(images, labels, strict=True):
        table = Contingency.of(found, pair.labels, pair.known)
        scores = score(table)
        counts = {key: scores[key] for key in ("objects", "truth_objects")}
        instances.append({"name": pair.name, **{key: scores[key] for key in MEANS}, **counts})
        if background is not None:
            dense.append({"name": pair.name, **neurite_scores(table, background).to_json()})
    result = {"automatic": {**used, **_summary(instances, MEANS)}}
    if dense:
        names = [key for key in dense[0] if key not in ("name", "voxels")]
        result["neurites"] = {"background": background, **_summary(dense, names)}
    return result


def _summary(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    values = {name: [row[name] for row in rows] for name in names}
    return {
        "per_image": list(rows),
        "mean": {name: float(np.mean(v)) for name, v in values.items()},
        "deviation": {name: _deviation(v) for name, v in values.items()},
    }


def _curves(per_image: Sequence[Sequence[Curve]]) -> list[dict[str, Any]]:
    curves = []
    for setting, parts in zip(SETTINGS, zip(*per_image, strict=True), strict=True):
        iou = np.concatenate([part.iou for part in parts], axis=1)
        curve: dict[str, Any] = {
            "start": setting.start,
            "with_mask": setting.with_mask,
            "name": setting.name,
            "objects": iou.shape[1],
            "iou": [float(row.mean()) if row.size else None for row in iou],
            "iou_deviation": [_deviation(row) for row in iou],
        }
        for name in MEANS:
            by_round = np.array([[s[name] for s in part.scores] for part in parts])
            curve[name] = by_round.mean(axis=0).tolist()
        curves.append(curve)
    return curves


def _deviation(values: Sequence[float] | NDArray[np.float64]) -> float:
    """Sample standard deviation, 0 of fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _check(images: Sequence[Pair], tuning: Sequence[Pair]) -> None:
    if not images:
        raise VolsamError("There is no image to evaluate on; give at least one with its labels.")
    names = [pair.name for pair in (*images, *tuning)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise VolsamError(
            f"Image {twice[0]!r} is given twice, which would count it twice or tune on what is "
            "scored; give each image once, under a name of its own."
        )
    for pair in (*images, *tuning):
        shapes = {pair.image.shape, pair.labels.shape}
        shapes |= set() if pair.ignore is None else {pair.ignore.shape}
        if len(shapes) > 1 or pair.image.ndim != 2 or 0 in pair.image.shape:
            raise VolsamError(
                f"Image {pair.name!r} of shape {pair.image.shape} needs labels, and an ignore mask "
                f"if any, of that shape in 2D, not {pair.labels.shape}; bring them to one grid."
            )
        if not np.isfinite(pair.image).all():
            raise VolsamError(
                f"Image {pair.name!r} holds NaN or infinity; replace them before it is evaluated."
            )
