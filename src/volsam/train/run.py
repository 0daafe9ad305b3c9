"""From annotations to a model in use: train, tune, compare with the parent, publish, promote.

Invariants
----------
- A training is named by a digest of its settings, its data and its parent's weights. One that is
  published already is not run again, one that was killed goes on.
- Thresholds are tuned on the validation part, models are compared on the held-out part, and neither is
  learnt from.
- Nothing appears under a version's number before all of it is there.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import xxhash
from safetensors.torch import save_file

from volsam import __version__
from volsam.blocks.lease import lease
from volsam.errors import VolsamError
from volsam.evaluate.grid import AIS_GRID, AisEvaluator, ais_parameters, search
from volsam.evaluate.progress import Told
from volsam.evaluate.suite import Pair, as_trained, evaluate_model, predict_image
from volsam.models.card import WEIGHTS, ancestry, describe
from volsam.models.memory import keep_freed_memory
from volsam.models.model import Model, load_model
from volsam.models.registry import file_hash
from volsam.models.store import ModelStore
from volsam.models.version import Version
from volsam.paths import write_json
from volsam.segment.ais import grid_in_pixels, in_pixels, of_stacks
from volsam.train.adapt import adapt, additions, merge, restrict
from volsam.train.crops import Crop, crop, reduce
from volsam.train.data import Example
from volsam.train.devices import agreed, own_device, ranks
from volsam.train.gather import Parts, as_pairs, gather
from volsam.train.joint import JointNetwork, build
from volsam.train.loop import STATE, Loop
from volsam.train.presets import Preset, choose
from volsam.train.promotion import AUTOMATIC, check_measurable, check_metric, promote, untrained
from volsam.train.report import write_report
from volsam.train.settings import Train
from volsam.train.sources import data_digests, data_sources
from volsam.train.start import prepare_prompts

Say = Callable[[str], None]
STARTING_IMAGES = 32  # whose embeddings tell how large its channels are


def train_model(
    settings: Train,
    models: Path,
    parent: str,
    *,
    allow_pickle: bool = False,
    threads: int | None = None,
    say: Say = print,
) -> dict[str, Any]:
    """Train, publish and perhaps promote a model.

    Parameters
    ----------
    settings : Train
        What to do.
    models : Path
        Folder of trained models.
    parent : str
        The parent, resolved: a name of the registry or a path.
    allow_pickle : bool
        See `volsam.models.checkpoint.read_checkpoint`.
    threads : int, optional
        CPU threads; part of what makes a run repeatable.
    say : callable
        Receives lines of progress.

    Returns
    -------
    dict
        Version, whether it is promoted and why, scores of it and of its parent.
    """
    check_metric(settings)
    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()
    _join()
    say = say if ranks()[0] == 0 else lambda text: None
    torch.manual_seed(settings.seed)  # parts that the parent lacks start at random
    network = build(parent, scale=settings.scale, allow_pickle=allow_pickle)
    hashes = [file_hash(path) for path in network.source.files]
    check_measurable(network, settings)
    digest = training_digest(settings, hashes)
    store = ModelStore(models)
    known = [v for v in store.versions(settings.name) if v.description().get("training") == digest]
    if known and ranks()[0]:
        return {}
    if known:
        say(f"version {known[-1].number} of {settings.name} is this training already")
        return promote(store, known[-1], settings, say)
    work = models / settings.name / ".training" / digest
    with _alone(work, settings.name):
        parts = gather(settings)
        _say_parts(parts, say)
        preset = choose(settings, network.image_size)
        trained = _fit(network, settings, parts, preset, work, say)
        if ranks()[0]:
            return {}
        before = _load_parent(parent, allow_pickle)
        description = _describe(trained, settings, preset, parts, parent, hashes, digest)
        version = _publish(store, trained, settings, parts, description, before, work, say)
    shutil.rmtree(work)
    return promote(store, version, settings, say)


def training_digest(settings: Train, parent_hashes: Sequence[str]) -> str:
    """Name of a training: what its weights are a function of."""
    recipe = settings.model_dump(mode="json", exclude={"promotion", "when", "name", "licence"})
    parts = [recipe, data_digests(settings), list(parent_hashes)]
    return xxhash.xxh128(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _fit(
    network: JointNetwork, settings: Train, parts: Parts, preset: Preset, work: Path, say: Say
) -> JointNetwork:
    if settings.crop and settings.crop * settings.scale > network.image_size:
        raise VolsamError(
            f"Key train.crop is {settings.crop} at scale {settings.scale:g}, and the model takes "
            f"{network.image_size} pixels; lower train.crop or train.scale."
        )
    if settings.scale < 1:
        parts, settings = _reduced(parts, settings)
        network.scale = 1.0
    first = [example for _, group in parts.train for example in group][:STARTING_IMAGES]
    prepare_prompts(network, (_fullest_crop(one, network, settings).image for one in first))
    restrict(network, settings.parts)
    adapt(network, settings.adapt, rank=settings.rank, blocks=settings.blocks)
    say(
        f"{preset.batch} crops a step, {preset.objects} objects each, {preset.precision}; "
        f"{sum(p.numel() for p in network.parameters() if p.requires_grad):,} weights to train"
    )
    loop = Loop(
        network,
        settings,
        preset,
        parts.train,
        [_fullest_crop(example, network, settings) for example in parts.validation],
        work,
        learning_rate=network.source.learning_rate,
        report=say,
    )
    return loop.run()


def _reduced(parts: Parts, settings: Train) -> tuple[Parts, Train]:
    """Examples in pixels of the network, and settings that go with them."""
    scale = settings.scale

    def smaller(examples: Sequence[Example]) -> list[Example]:
        return [reduce(example, scale) for example in examples]

    changes = {
        "scale": 1.0,
        "min_size": round(settings.min_size * scale**2),
        "crop": settings.crop and round(settings.crop * scale),
    }
    train = [(share, smaller(examples)) for share, examples in parts.train]
    less = Parts(train, smaller(parts.validation), smaller(parts.held_out))
    return less, settings.model_copy(update=changes)


def _fullest_crop(example: Example, network: JointNetwork, settings: Train) -> Crop:
    """The part of an image with most objects, as large as the network takes."""
    side = int(network.image_size / settings.scale)
    starts = [
        range(0, max(1, n - side + side // 2), max(1, side // 2)) for n in example.labels.shape
    ]
    boxes = [
        tuple(
            slice(max(0, min(start, n - side)), min(n, max(0, min(start, n - side)) + side))
            for start, n in zip(corner, example.labels.shape, strict=True)
        )
        for corner in product(*starts)
    ]
    box = max(boxes, key=lambda box: len(np.unique(example.labels[box])))
    return crop(example.image[box], example.labels[box], settings.min_size)


def _publish(
    store: ModelStore,
    network: JointNetwork,
    settings: Train,
    parts: Parts,
    description: dict[str, Any],
    before: tuple[Model, bool],
    work: Path,
    say: Say,
) -> Version:
    low_rank = additions(network)
    merge(network)
    left_out = tuple(f"{part}." for part in untrained(network, settings))
    state = {
        key: value.detach().contiguous()
        for key, value in network.state_dict().items()
        if not key.startswith(left_out)
    }
    candidate = work / "candidate"
    candidate.mkdir(exist_ok=True)
    save_file(state, candidate / WEIGHTS)
    write_json(candidate / "model.json", description)
    validation, held_out = as_pairs(parts.validation), as_pairs(parts.held_out)
    automatic = "decoder" not in untrained(network, settings)
    model = load_model(str(candidate / "model.json"), need_decoder=automatic)
    older, comparable = before
    if validation and automatic:
        say(f"tunes thresholds on {len(validation)} validation images")
        told = Told("tunes thresholds", say)
        description["ais"], description["tuning"] = tune(model, validation, settings.scale, told)
        write_json(candidate / "model.json", description)
        model = load_model(str(candidate / "model.json"))
    if held_out:
        say(f"compares with the parent on {len(held_out)} held-out images")
        told = Told("compares", say)
        description["metrics"] = {
            "before": scores(older, held_out, settings, automatic=comparable, told=told),
            "after": scores(model, held_out, settings, automatic=automatic, told=told),
            "on": f"{len(held_out)} held-out images",
        }

    def extra(folder: Path) -> None:
        if low_rank:
            save_file({k: v.contiguous() for k, v in low_rank.items()}, folder / "lora.safetensors")
        shutil.copyfile(work / "progress.json", folder / "progress.json")
        if (work / "tensorboard").is_dir():
            shutil.copytree(work / "tensorboard", folder / "tensorboard")
        shown = older if comparable else None
        pictures = (held_out or validation) if automatic else []
        write_report(folder, description, shown, model, pictures)

    return store.publish(settings.name, description, state, extra)


def _describe(
    network: JointNetwork,
    settings: Train,
    preset: Preset,
    parts: Parts,
    parent: str,
    hashes: Sequence[str],
    digest: str,
) -> dict[str, Any]:
    source = network.source
    diameters = [e.diameter for _, group in parts.train for e in group]
    path = Path(parent)
    older = json.loads(path.read_text()) if path.suffix == ".json" else {}
    return describe(
        settings.name,
        normalisation="percentile",
        diameter=round(float(np.median(diameters)) * settings.scale, 1),
        pixel_size=source.pixel_size,
        ais=of_stacks(source.ais),
        encoder=source.encoder,
        decoder=source.decoder,
        prompts=source.prompts,
        parent=settings.parent,
        parent_hash=hashes[0],
        ancestors=[*ancestry(older)],
        data=data_sources(settings),
        licence=settings.licence,
        recipe=settings.model_dump(mode="json", exclude_defaults=True)
        | {
            "batch": preset.batch,
            "objects": preset.objects,
            "precision": preset.precision,
            "processes": ranks()[1],
            "volsam": __version__,
        },
        training=digest,
        held_out=[example.name for example in parts.held_out],
        learning_rate=source.learning_rate,
        adapt={"mode": settings.adapt, "rank": settings.rank, "blocks": settings.blocks},
    )


def tune(
    model: Model, images: Sequence[Pair], scale: float, told: Told | None = None
) -> tuple[dict[str, float], dict[str, Any]]:
    """AIS parameters with the best mean segmentation accuracy, and how they were found.

    The search is in pixels of the images, what is found in pixels of the network, as `Model.ais` is.
    Single objects are not judged: most images are slices of stacks, where that would not count. The
    search climbs from the model's values and from the defaults: other objects may have another summit.
    """
    maps = []
    for number, pair in enumerate(images, start=1):
        maps.append(predict_image(model, pair.image, scale))
        if told:
            told("predict", number, len(images))
    evaluator = AisEvaluator(maps, [p.labels for p in images], [p.ignore for p in images])
    heard = partial(told, "search parameters") if told else None
    grid = grid_in_pixels(of_stacks(AIS_GRID), scale)
    own, default = (asdict(ais_parameters(values)) for values in (of_stacks(model.ais), {}))
    summits = [
        search(evaluator, grid, exhaustive=False, start=in_pixels(start, scale), progress=heard)
        for start in ([own] if own == default else [own, default])
    ]
    found = max(summits, key=lambda summit: summit.scores["mSA"])
    return in_pixels(found.best, 1 / scale), {"images": len(images), **found.scores}


def scores(
    model: Model,
    images: Sequence[Pair],
    settings: Train,
    *,
    automatic: bool = True,
    told: Told | None = None,
) -> dict[str, float]:
    """What models are compared by: automatic segmentation, and mean IoU from one prompt."""
    prompts = settings.parts != "automatic" and model.sam is not None
    found = evaluate_model(
        model,
        as_trained(images, model),
        automatic=automatic,
        interactive=prompts,
        rounds=0,
        grid=False,
        neurites=False,
        seed=settings.seed,
        scale=settings.scale,
        progress=told,
    )
    result = {}
    if automatic:
        result = {key: float(found["automatic"]["mean"][key]) for key in AUTOMATIC}
    for curve in found.get("interactive", {}).get("curves", ()):
        if not curve["with_mask"] and curve["iou"][0] is not None:
            result[curve["start"]] = curve["iou"][0]
    return result


def _load_parent(parent: str, allow_pickle: bool) -> tuple[Model, bool]:
    """The parent as it is compared, see `tune`, and whether it can segment automatically."""
    try:
        model, automatic = load_model(parent, allow_pickle=allow_pickle), True
    except VolsamError:
        model = load_model(parent, need_decoder=False, allow_pickle=allow_pickle)
        automatic = False
    model.ais = of_stacks(model.ais)
    return model, automatic


@contextlib.contextmanager
def _alone(work: Path, name: str) -> Iterator[None]:
    """Hold the lease of a training; the first of several processes holds it for all."""
    holding = ranks()[0] == 0
    held = (
        lease(work / "lease.json", f"training of {name}") if holding else contextlib.nullcontext()
    )
    with held:
        agreed(0.0, own_device())  # the others wait for the first
        try:
            yield
        except BaseException:
            if holding and not (work / STATE).exists():
                _discard(work)  # nothing to go on with
            raise


def _discard(work: Path) -> None:
    """Remove the folder of a training, and those around it that are empty then."""
    shutil.rmtree(work)
    with contextlib.suppress(OSError):
        work.parent.rmdir()
        work.parent.parent.rmdir()


def _say_parts(parts: Parts, say: Say) -> None:
    images = sum(len(group) for _, group in parts.train)
    say(
        f"{images} images to learn from, {len(parts.validation)} to validate, "
        f"{len(parts.held_out)} held out"
    )


def _join() -> None:
    """Join the other processes where torchrun started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
