"""The configuration: what is refused and how, and which stage depends on which key."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from volsam.cli.configdocs import documents
from volsam.config import Config, load, validate
from volsam.dependence import (
    COPY_VERSION,
    OBJECT_CORRECTIONS,
    STAGE_LIMITS,
    STAGE_SECTIONS,
    evaluate_config,
    stage_config,
    stage_settings,
    train_config,
)
from volsam.errors import VolsamError
from volsam.stages import STAGES

REPOSITORY = Path(__file__).resolve().parents[1]
LEAST: dict[str, Any] = {"samples": {"a": {"image": "a.tif"}}}

# Values to try for a key until one is valid and differs from what is there.
CANDIDATES: tuple[Any, ...] = (
    *(True, False, 3, 37, 0.125, 0.875, 97.5, "otsu", "cuda", "cpu", "bf16", "0.4", "input"),
    *("uint16", "micro-sam", "minmax", "slice", "zyx", "other", [2, 4, 4], [32, 2048, 2048]),
    *({"z": [0, 2]}, {"z": 2.0, "y": 3.0, "x": 4.0}, "fast", "points", ["csv"], {"backward": True}),
)


def changed(data: dict[str, Any], *path: str, to: Any) -> dict[str, Any]:
    """A copy of `data` with one key set."""
    data = copy.deepcopy(data)
    target = data
    for part in path[:-1]:
        target = target.setdefault(part, {})
    target[path[-1]] = to
    return data


def keys() -> Iterator[tuple[str, ...]]:
    """Every key of the configuration: sections' keys, top-level values, keys of a sample."""
    whole = validate(LEAST).model_dump(mode="json")
    for name, value in whole.items():
        if name == "samples":
            yield from (("samples", "a", key) for key in value["a"] if key != "overrides")
        elif isinstance(value, dict):
            yield from ((name, key) for key in value)
        else:
            yield (name,)


def other_value(path: tuple[str, ...]) -> Config | None:
    """The least configuration with another valid value at `path`."""
    before = validate(LEAST)
    for candidate in CANDIDATES:
        try:
            config = validate(changed(LEAST, *path, to=candidate))
        except VolsamError:
            continue
        if config != before:
            return config
    return None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed(LEAST, "stich", to=1), "Key stich is unknown; see config/README.md"),
        (changed(LEAST, "stitch", "max_gaps", to=1), "Key stitch.max_gaps is unknown"),
        (changed(LEAST, "samples", "a", "imgae", to="x"), "Key samples.a.imgae is unknown"),
        ({}, r"^The configuration is wrong: samples is empty; name at least one image\.$"),
        ({"samples": {}}, "samples is empty; name at least one image"),
        ({"task": "train"}, "task is train and the section train is missing"),
        ({"train": {}, "task": "train"}, "Key train.name is missing"),
        (
            {"task": "train", "train": {"name": "a", "validation": 0.6, "held_out": 0.5}},
            "validation and held_out leave nothing to train on",
        ),
        (
            {"task": "train", "train": {"name": "a", "held_out": 0}},
            "held_out is 0, so promotion.when must be always or never",
        ),
        ({"samples": {"a": {}}}, "Key samples.a.image is missing"),
        ({"samples": {"../a": {"image": "x"}}}, "Key samples."),
        (changed(LEAST, "tiles", "size", to="big"), r"Key tiles.size is wrong \(given: 'big'\)"),
        (changed(LEAST, "tiles", "size", to=8), r"Key tiles.size is wrong \(given: 8\)"),
        (changed(LEAST, "stitch", "tile_threshold", to=1.5), "Key stitch.tile_threshold is wrong"),
        (changed(LEAST, "compute", "batch", to=0), "Key compute.batch is wrong"),
        (changed(LEAST, "compute", "device", to="tpu"), "Key compute.device is wrong"),
        (changed(LEAST, "output", "shard", to=[16, 1000, 1024]), "whole number of chunks"),
        (changed(LEAST, "output", "chunk", to=[0, 8, 8]), "Key output is wrong"),
        (changed(LEAST, "normalise", to={"lower": 90, "upper": 10}), "lower must be below upper"),
        (changed(LEAST, "scale", to={"diameter": 9, "pixel_size": 1}), "not both"),
        (changed(LEAST, "objects", to={"min_size": 9, "max_size": 1}), "max_size is below"),
        (changed(LEAST, "samples", "a", "region", to={"z": [1]}), "Key samples.a.region.z"),
        (
            {"samples": {"a": {"image": "x", "region": {"t": [0, 2]}, "truth_tracks": "01_GT"}}},
            "samples.a names truth_tracks, which score whole sequences",
        ),
    ],
)
def test_faults_are_one_sentence_with_the_key(data: dict[str, Any], message: str) -> None:
    with pytest.raises(VolsamError, match=message) as caught:
        validate(data)
    assert "\n" not in str(caught.value)


def test_defaults_fill_the_rest() -> None:
    config = validate(LEAST)
    assert config.results == "results"
    assert config.stitch.max_gap == 1
    with pytest.raises(Exception, match="frozen"):
        config.results = "elsewhere"  # type: ignore[misc]


def test_overrides_of_a_sample() -> None:
    data = changed(LEAST, "samples", "b", to={"image": "b.tif"})
    data["tiles"] = {"size": 64, "halo": 8}
    data["samples"]["b"]["overrides"] = {"tiles": {"size": 128}, "model": "other"}
    config = validate(data)
    assert config.of_sample("a").tiles.size == 64
    own = config.of_sample("b")
    assert (own.tiles.size, own.tiles.halo, own.model) == (128, 8, "other")
    assert set(own.samples) == {"b"}
    assert stage_settings(config, "b", "plan")["tiles"] == {"size": 128, "halo": 8}
    with pytest.raises(VolsamError, match=r"no sample 'c'.*it has a, b"):
        config.of_sample("c")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"results": "x"}, "overrides.results is no section"),
        ({"tile": {"size": 64}}, "overrides.tile is no section"),
        ({"tiles": {"sise": 64}}, "Key tiles.sise is unknown"),
        ({"tiles": {"size": 1}}, "Key tiles.size is wrong"),
        ({"tiles": 3}, "Key tiles is wrong"),
    ],
)
def test_wrong_overrides(overrides: dict[str, Any], message: str) -> None:
    config = validate(changed(LEAST, "samples", "a", "overrides", to=overrides))
    with pytest.raises(VolsamError, match=message):
        config.of_sample("a")


def test_load(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(LEAST))
    assert load(path) == load(json.dumps(LEAST)) == validate(LEAST)
    for text, message in (
        ("", "holds no keys"),
        ("- a", "holds no keys"),
        ("a: [", "no valid YAML at line"),
    ):
        path.write_text(text)
        with pytest.raises(VolsamError, match=message):
            load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(VolsamError, match="Cannot read the configuration"):
        load(path)
    with pytest.raises(VolsamError, match="No such file"):
        load(tmp_path / "none.yaml")


def test_every_stage_has_its_part() -> None:
    assert set(STAGE_SECTIONS) == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_stage_config_round_trip(stage: str) -> None:
    """What a stage is handed is a configuration that says of the stage what the whole one says."""
    config = validate(changed(LEAST, "samples", "a", "overrides", to={"ais": {"min_size": 7}}))
    text = stage_config(config, "a", stage)
    again = load(text)
    assert stage_settings(again, "a", stage) == stage_settings(config, "a", stage)
    assert stage_config(again, "a", stage) == text
    assert again.results == config.results
    assert again.samples["a"].image == "a.tif"


@pytest.mark.parametrize("path", list(keys()), ids=".".join)
def test_key_reruns_only_the_stages_that_read_it(path: tuple[str, ...]) -> None:
    if path[0] == "train":
        return  # read by the training, and by the plan where it is told which model stands in
    if path[0] == "evaluate" and path != ("evaluate", "baseline"):
        return  # read by the evaluation of models
    config = other_value(path)
    if path in (("task",), ("sheet",)):
        assert config is None  # the other task needs its section, and a sheet becomes samples
        return
    assert config is not None, f"no other valid value for {'.'.join(path)} among the candidates"
    entry = f"sample:{path[2]}" if path[0] == "samples" else ".".join(path)
    reading = {
        stage
        for stage, entries in STAGE_SECTIONS.items()
        if entry in entries or entry.split(".")[0] in entries
    }
    if entry == "sample:corrections":  # a table that cannot be read may be one of objects as well
        reading |= {s for s, entries in STAGE_SECTIONS.items() if OBJECT_CORRECTIONS in entries}
    if entry == "output.ome_zarr":  # the image is no OME-Zarr, so it is copied
        reading |= {s for s, entries in STAGE_SECTIONS.items() if COPY_VERSION in entries}
    if entry in ("results", "sample:image"):
        reading = set(STAGES)  # where all is, and what all of it is about
    before = validate(LEAST)
    differing = {
        stage
        for stage in STAGES
        if stage_config(config, "a", stage) != stage_config(before, "a", stage)
    }
    assert differing == reading


@pytest.mark.parametrize(
    ("stage", "path", "value"),
    [
        ("ingest", ("output", "labels_into"), "input"),
        ("plan", ("compute", "max_files"), 5),
        ("plan", ("compute", "max_memory_gb"), 3.0),
        ("plan", ("compute", "store_embeddings"), True),
        ("plan", ("output", "ome_zarr"), "0.4"),
        ("plan", ("models",), "elsewhere"),
    ],
)
def test_limits_are_handed_over_and_not_compared(
    stage: str, path: tuple[str, ...], value: Any
) -> None:
    before, after = validate(LEAST), validate(changed(LEAST, *path, to=value))
    if path == ("output", "ome_zarr"):
        assert stage_config(after, "a", "ingest") != stage_config(before, "a", "ingest")
    assert stage_config(after, "a", stage) == stage_config(before, "a", stage)
    text = stage_config(after, "a", stage, limits=True)
    found: Any = load(text).model_dump(mode="json")
    for part in path:
        found = found[part]
    assert found == value
    assert stage_settings(load(text), "a", stage) == stage_settings(after, "a", stage)


def test_trained_models_matter_where_the_model_is_one(tmp_path: Path) -> None:
    """A name that is not in the folder of trained models means the same whichever folder it is."""
    (tmp_path / "mine" / "1").mkdir(parents=True)
    data = changed(LEAST, "train", to={"name": "other", "parent": "vit_b"})
    before = stage_config(validate({**data, "model": "mine"}), "a", "plan")
    found = stage_config(validate({**data, "model": "mine", "models": str(tmp_path)}), "a", "plan")
    assert found != before
    assert load(found).models == str(tmp_path)
    for folder in ("models", str(tmp_path)):
        config = validate({**data, "model": "vit_b", "models": folder})
        least = validate({**LEAST, "model": "vit_b"})
        assert stage_config(config, "a", "plan") == stage_config(least, "a", "plan")


def test_no_key_is_read_by_nobody() -> None:
    parts = (*STAGE_SECTIONS.values(), *STAGE_LIMITS.values())
    entries = {entry for part in parts for entry in part}
    unread = []
    for path in keys():
        entry = f"sample:{path[2]}" if path[0] == "samples" else ".".join(path)
        if entry not in entries and entry.split(".")[0] not in {*entries, "train", "evaluate"}:
            unread.append(entry)
    assert unread == ["results", "sheet"]


def test_training_depends_on_its_section_and_little_else() -> None:
    data = changed(LEAST, "train", to={"name": "mine", "parent": "embedded"})
    config = validate(data)
    assert load(train_config(config)).train == config.train
    for path, value, same in (
        (("train", "rank"), 8, False),
        (("models",), "elsewhere", False),
        (("stitch", "max_gap"), 0, True),
        (("samples", "a", "image"), "b.tif", True),
    ):
        other = validate(changed(data, *path, to=value))
        assert (train_config(other) == train_config(config)) is same, path


def test_evaluation_of_models_depends_on_its_section_and_little_else() -> None:
    data = changed(LEAST, "evaluate", to={"models": ["a", "b"], "rounds": 2})
    config = validate(data)
    again = load(evaluate_config(config))
    assert again.task == "evaluate"
    assert again.evaluate == config.evaluate
    assert evaluate_config(again) == evaluate_config(config)
    for path, value, same in (
        (("evaluate", "rounds"), 3, False),
        (("evaluate", "baseline"), True, True),
        (("models",), "elsewhere", False),
        (("model",), "vit_b", True),
        (("compute", "device"), "cpu", False),
        (("compute", "threads"), 4, True),
        (("samples", "a", "image"), "b.tif", True),
    ):
        other = validate(changed(data, *path, to=value))
        assert (evaluate_config(other) == evaluate_config(config)) is same, path
    del data["evaluate"]["models"]
    other = validate({**data, "model": "vit_b"})
    assert evaluate_config(other) != evaluate_config(validate(data))


def test_held_out_images_are_those_of_the_training() -> None:
    data = changed(LEAST, "evaluate", to={"data": "held-out"})
    data["train"] = {"name": "mine", "data": "notes", "held_out": 0.2, "rank": 8}
    config = validate(data)
    again = load(evaluate_config(config))
    assert again.train is not None
    assert again.train.data == "notes"
    assert again.train.held_out == 0.2
    for path, value, same in ((("train", "seed"), 1, False), (("train", "rank"), 4, True)):
        other = validate(changed(data, *path, to=value))
        assert (evaluate_config(other) == evaluate_config(config)) is same, path
    del data["train"]
    with pytest.raises(VolsamError, match="section train is missing"):
        validate(data)


def test_plan_knows_which_model_stands_in_until_one_is_trained() -> None:
    data = changed(LEAST, "train", to={"name": "mine", "parent": "vit_b", "rank": 8})
    again = load(stage_config(validate({**data, "model": "mine"}), "a", "plan"))
    assert again.model == "mine"
    assert again.train is not None
    assert (again.train.name, again.train.parent, again.train.rank) == ("mine", "vit_b", 4)


def test_generated_documents_are_fresh() -> None:
    """`volsam config-docs --check` in the checkout."""
    for path, text in documents().items():
        assert (REPOSITORY / path).read_text(encoding="utf-8") == text, f"run config-docs: {path}"


def test_documents_name_every_key() -> None:
    text = documents()[Path("config/README.md")]
    for path in keys():
        name = f"samples.<name>.{path[2]}" if path[0] == "samples" else ".".join(path)
        assert f"`{name}`" in text
