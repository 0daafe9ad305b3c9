"""What the key `model` means: the version in use, else the parent, else what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import test_model_store

from volsam.config import Config
from volsam.errors import VolsamError
from volsam.models.names import described, resolve
from volsam.models.store import ModelStore


def config(models: Path, model: str = "mine", **train: Any) -> Config:
    data: dict[str, Any] = {"samples": {"a": {"image": "a.tif"}}, "model": model}
    if train:
        data["train"] = {"name": "mine", **train}
    return Config.model_validate({**data, "models": str(models)})


def publish(models: Path, name: str = "mine", *, promote: bool = True) -> Path:
    store = ModelStore(models)
    seed = float(store.next_version(name))
    version = store.publish(name, test_model_store.tiny(), test_model_store.tiny_state(seed))
    if promote:
        store.promote(name, version.number, "test")
    return version.path


def test_version_in_use(tmp_path: Path) -> None:
    first = publish(tmp_path)
    assert resolve(config(tmp_path)) == str(first)
    publish(tmp_path, promote=False)
    assert resolve(config(tmp_path, parent="embedded")) == str(first)
    third = publish(tmp_path)
    assert resolve(config(tmp_path)) == str(third)
    assert described(config(tmp_path)) == [third.parent]


def test_parent_until_a_version_is_in_use(tmp_path: Path) -> None:
    assert resolve(config(tmp_path, parent="embedded")) == "embedded"
    assert resolve(config(tmp_path, parent="vit_b_lm")) == "vit_b_lm"
    older = publish(tmp_path, "older")
    assert resolve(config(tmp_path, parent="older")) == str(older)
    publish(tmp_path, promote=False)  # made, but not better
    assert resolve(config(tmp_path, parent="older")) == str(older)


def test_parent_of_a_training(tmp_path: Path) -> None:
    publish(tmp_path)
    chosen = config(tmp_path, parent="embedded")
    assert chosen.train is not None
    assert resolve(chosen, chosen.train.parent) == "embedded"


@pytest.mark.parametrize(
    "model", ["embedded", "vit_b", "predictions:p.zarr", "a/b.pt", "./mine", "a.pt::b.pt", "absent"]
)
def test_what_is_no_trained_model_stays(model: str, tmp_path: Path) -> None:
    assert resolve(config(tmp_path, model)) == model


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(VolsamError, match=r"Model mine has itself as train.parent"):
        resolve(config(tmp_path, parent="mine"))
    publish(tmp_path, promote=False)
    with pytest.raises(
        VolsamError, match=r"No version of model mine .* is promoted; it has 1, prom"
    ):
        resolve(config(tmp_path))


def test_files_of_a_model(tmp_path: Path) -> None:
    (embedded,) = described(config(tmp_path, "embedded"))
    assert (embedded / "model.json").is_file()
    assert described(config(tmp_path, "predictions:p.zarr")) == [Path("p.zarr")]
    assert described(config(tmp_path, "vit_b")) == []
    files = [tmp_path / "a.pt", tmp_path / "b.pt"]
    for path in files:
        path.touch()
    assert described(config(tmp_path, "::".join(map(str, files)))) == files
