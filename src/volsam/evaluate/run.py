"""Evaluation of models on annotated images, side by side: `task: evaluate`.

Invariants
----------
- What is known of a model (AIS, AMG, interactive) is kept as one file each, named by a digest of its
  weights, the images and the settings that matter. A kill loses at most the part in progress, and
  of a grid search nothing.
- What AMG gives stands under the name of the model with `AMG` added, beside what AIS gives.
- All models see the same images, objects and random choices.
- `scores.json` and the report are a function of those parts: the same evaluation again writes the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash

from volsam import __version__
from volsam.blocks.lease import lease
from volsam.config import Config
from volsam.dependence import evaluate_config
from volsam.errors import VolsamError
from volsam.evaluate.progress import Told
from volsam.evaluate.report import write_report
from volsam.evaluate.settings import HELD_OUT
from volsam.evaluate.suite import Method, Pair, as_trained, evaluate_model
from volsam.inputs import evaluation_inputs
from volsam.models.model import Model, Source, load_model
from volsam.models.names import described, resolve
from volsam.models.registry import file_hash
from volsam.paths import EvaluationPaths, sweep, write_json
from volsam.train.data import Example
from volsam.train.gather import as_pairs, gather, read
from volsam.volume.fingerprint import fingerprint

Say = Callable[[str], None]
AMG = " (AMG)"
_AUTOMATIC = {"auto": ("auto",), "amg": ("amg",), "both": ("auto", "amg")}


@dataclass(frozen=True)
class Candidate:
    """A model to evaluate.

    Attributes
    ----------
    name : str
        As the user calls it.
    spec : str
        As `load_model` takes it.
    digest : str
        Of its weights and what describes them.
    """

    name: str
    spec: str
    digest: str


def evaluate_models(
    config: Config, *, threads: int | None = None, say: Say = print
) -> dict[str, Any]:
    """Evaluate models and write scores, plots and report.

    Parameters
    ----------
    config : Config
        Its section `evaluate` says what to do.
    threads : int, optional
        CPU threads.
    say : callable
        Receives lines of progress.

    Returns
    -------
    dict
        What is in ``scores.json``: ``version``, ``settings``, ``inputs`` (fingerprints by path),
        ``images`` and ``tuning`` (names), and ``models``, the results of
        `volsam.evaluate.suite.evaluate_model` by name (in the order of the settings), each with
        ``path``, ``seconds`` of its parts, and ``gaps``, sentences on what it lacks. Of a model that
        is scored by both methods the interactive part is with the first.

    Raises
    ------
    VolsamError
        If images are missing or unfit, a model cannot be had, two models are the same, or memory
        runs out.
    """
    if threads:
        torch.set_num_threads(threads)
    settings = config.evaluate
    paths = EvaluationPaths(config.results, settings.name)
    with lease(paths.work / "lease.json", "an evaluation of models"):
        for folder in (paths.work, paths.work / "parts", paths.folder):
            sweep(folder)
        models = candidates(config)
        images, tuning = gather_images(config)
        tuned = f", {len(tuning)} to tune on" if tuning else ""
        say(f"{len(images)} images to score{tuned}; {', '.join(m.name for m in models)}")
        scores: dict[str, Any] = {
            "version": __version__,
            "settings": json.loads(evaluate_config(config)),
            "inputs": evaluation_inputs(config),
            "images": [pair.name for pair in images],
            "tuning": [pair.name for pair in tuning],
            "models": {},
        }
        for candidate in models:
            gaps = _learnt(candidate, images) if settings.data == HELD_OUT else []
            found = _evaluate(config, candidate, images, tuning, gaps, paths.work, say)
            scores["models"].update(found)
        write_json(paths.scores, scores)
        write_report(paths.folder, scores)
    say(f"report in {paths.report}")
    return scores


def candidates(config: Config) -> list[Candidate]:
    """The models of the configuration; no two of them may be the same.

    A name that is not trained yet stands for its parent, whose scores must not pass for its own.
    """
    found: dict[str, Candidate] = {}
    for name in config.evaluate.models or [config.model]:
        spec = resolve(config, name)
        if spec.startswith("predictions:"):
            raise VolsamError(
                f"Model {name} is stored predictions, which nothing can be predicted with; name "
                "models in evaluate.models."
            )
        parts = [fingerprint(path).content for path in described(config, name)]
        digest = _digest(parts or [file_hash(path) for path in Source.find(spec).files])
        if digest in found:
            raise VolsamError(
                f"Models {found[digest].name} and {name} are the same weights; train the one that is "
                "not trained yet, or take it out of evaluate.models."
            )
        found[digest] = Candidate(name, spec, digest)
    return list(found.values())


def gather_images(config: Config) -> tuple[list[Pair], list[Pair]]:
    """Images to score and to tune on.

    Raises
    ------
    VolsamError
        If there is none to score, or none was kept.
    """
    settings = config.evaluate
    tuning: list[Example] = []
    if settings.data == HELD_OUT:
        assert config.train is not None
        parts = gather(config.train)
        images = parts.held_out
        tuning = parts.validation if settings.grid else []
    else:
        images = _slices(settings.data)
    if settings.tuning is not None:
        tuning = _slices(settings.tuning)
    if not images:
        where = settings.data if isinstance(settings.data, str) else settings.data[0].labels
        raise VolsamError(
            f"There is no image with truth in {where}; name annotated images in evaluate.data."
        )
    return as_pairs(images), as_pairs(tuning)


def _learnt(candidate: Candidate, images: Sequence[Pair]) -> list[str]:
    """A warning of a model whose training held out others than the images that are scored."""
    path = Path(candidate.spec)
    known = json.loads(path.read_text(encoding="utf-8")) if path.suffix == ".json" else {}
    if not known.get("training"):
        return []
    others = {pair.name for pair in images} - set(known.get("held_out") or ())
    if not others:
        return []
    return [
        f"Model {candidate.name} may have learnt from {len(others)} of the {len(images)} images, which "
        "its own training did not hold out; train it anew, or score on other images."
    ]


def _slices(data: Any) -> list[Example]:
    """Slices of which something is known; one without objects counts, for what is found there."""
    return [e for _, group in read(data) for e in group if (e.labels >= 0).any()]


def _evaluate(
    config: Config,
    candidate: Candidate,
    images: Sequence[Pair],
    tuning: Sequence[Pair],
    gaps: Sequence[str],
    work: Path,
    say: Say,
) -> dict[str, dict[str, Any]]:
    """All parts of one model, by its name; those that are known are not computed again."""
    settings, compute = config.evaluate, config.compute

    @cache
    def model() -> Model:
        return load_model(
            candidate.spec,
            device=compute.device,
            precision=compute.precision,
            need_decoder=False,
            allow_pickle=compute.allow_pickle,
        )

    common = {
        "model": candidate.digest,
        "images": _contents(images),
        "scale": settings.scale,
        "version": __version__,
        "place": [compute.device, compute.precision],
    }
    heard = Told(candidate.name, say)

    def score(**asked: Any) -> dict[str, Any]:
        return evaluate_model(
            model(),
            as_trained(images, model()),
            seed=settings.seed,
            scale=settings.scale,
            batch=settings.batch,
            progress=heard,
            **asked,
        )

    def automatic(choice: str) -> dict[str, Any]:
        if choice == "amg" and model().sam is None:
            return {}
        method = _method(model(), choice)
        with _memory(settings.batch) if method == "amg" else nullcontext():
            return score(
                interactive=False,
                method=method,
                grid=settings.grid,
                neurites=True,
                tuning=as_trained(tuning, model()),
                store=work / "grid.jsonl",
            )

    def interactive() -> dict[str, Any]:
        if model().sam is None:
            return {}
        with _memory(settings.batch):
            return score(
                automatic=False,
                interactive=True,
                rounds=settings.rounds,
                grid=False,
                neurites=False,
            )

    search = {"grid": settings.grid, "tuning": _contents(tuning) if settings.grid else None}
    results: dict[str, dict[str, Any]] = {}
    for choice in _AUTOMATIC[settings.automatic]:
        if choice == "amg" and candidate.name + AMG in results:
            continue
        key = common | search | {"automatic": choice}
        result, seconds = _known(work, key, partial(automatic, choice))
        if not result:
            continue
        result |= {"path": candidate.spec, "seconds": {"automatic": seconds}, "gaps": [*gaps]}
        if not settings.neurites:
            del result["neurites"]
        results[candidate.name + (AMG if result["automatic"]["method"] == "amg" else "")] = result
    if not results:
        raise VolsamError(
            f"Model {candidate.name} takes no prompts, which AMG needs; set evaluate.automatic: auto."
        )
    if settings.interactive:
        first = next(iter(results.values()))
        prompts = {"rounds": settings.rounds, "seed": settings.seed, "batch": settings.batch}
        found, seconds = _known(work, common | prompts, interactive)
        if found:
            first["interactive"] = found["interactive"]
            first["seconds"]["interactive"] = seconds
        else:
            first["gaps"].append(f"Model {candidate.name} takes no prompts and is left out.")
    for name, result in results.items():
        for sentence in (f"mSA {result['automatic']['mean']['mSA']:.3f}", *result["gaps"]):
            say(f"{name}: {sentence}")
    return results


def _method(model: Model, choice: str) -> Method:
    return "ais" if choice == "auto" and model.has_decoder else "amg"


@contextmanager
def _memory(batch: int) -> Iterator[None]:
    """Say what helps when memory runs out."""
    try:
        yield
    except MemoryError:
        raise VolsamError(
            f"Memory ran out with {batch} objects at once; lower evaluate.batch."
        ) from None


def _known(
    work: Path, key: Mapping[str, Any], compute: Callable[[], dict[str, Any]]
) -> tuple[dict[str, Any], float]:
    """A part and the seconds it took; computed if its file is missing or damaged."""
    path = work / "parts" / f"{_digest(dict(key))}.json"
    kept = _read(path)
    if kept is None:
        started = time.monotonic()
        result = compute()
        write_json(path, {"result": result, "seconds": round(time.monotonic() - started, 1)})
        # What was read orders its keys as all later runs will see them.
        kept = _read(path)
        assert kept is not None
    return kept


def _read(path: Path) -> tuple[dict[str, Any], float] | None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return dict(kept["result"]), float(kept["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _contents(images: Sequence[Pair]) -> str:
    state = xxhash.xxh128()
    for pair in images:
        state.update(pair.name.encode("utf-8", "surrogateescape"))
        for array in (pair.image, pair.labels, pair.ignore):
            if array is not None:
                state.update(f"{array.dtype}{array.shape}".encode())
                state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()


def _digest(data: Any) -> str:
    return xxhash.xxh128(json.dumps(data, sort_keys=True).encode()).hexdigest()
