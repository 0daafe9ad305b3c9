"""Versions of trained models: whole or absent, unchanged, and one of them in use."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from seeded import seeded_state

from volsam.errors import VolsamError
from volsam.models import load_model, store
from volsam.models.card import ancestry, card_text, describe
from volsam.models.checkpoint import read_checkpoint
from volsam.models.export import checkpoint_states, own_state, write_checkpoint
from volsam.models.registry import file_hash
from volsam.models.sam import VitArchitecture, build_sam
from volsam.models.store import ModelStore
from volsam.models.tiny_vit import TinyViT
from volsam.models.unetr import UNETR

ENCODER = {
    "image_size": 32, "embed_dims": [8, 8], "depths": [1, 1], "num_heads": [1, 1],
    "window_sizes": [4, 4], "patch_strides": [2, 1], "stage_strides": [2], "neck_channels": 8,
}  # fmt: skip
DECODER = {"embed_dim": 8, "features": [8, 4], "norm": "batch"}
SCORES = {"before": {"mSA": 0.5}, "after": {"mSA": 0.625}, "on": "4 held-out images"}


def tiny_state(seed: float = 0.0) -> dict[str, torch.Tensor]:
    encoder = {f"image_encoder.{k}": v for k, v in seeded_state(TinyViT(**ENCODER)).items()}
    decoder = {f"decoder.{k}": v for k, v in seeded_state(UNETR(**DECODER)).items()}
    encoder["image_encoder.neck.0.weight"] += seed
    return encoder | decoder


def tiny(**more: Any) -> dict[str, Any]:
    return describe("cells", encoder=ENCODER, decoder=DECODER, diameter=12.0, **more)


@pytest.fixture
def models(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def test_versions_count_up_and_load(models: ModelStore) -> None:
    assert models.names() == []
    assert models.next_version("cells") == 1
    first = models.publish("cells", tiny(ais={"min_size": 3}), tiny_state())
    second = models.publish("cells", tiny(), tiny_state(1))
    assert (first.number, second.number) == (1, 2)
    assert [version.number for version in models.versions("cells")] == [1, 2]
    assert models.names() == ["cells"]
    names = sorted(path.name for path in first.folder.iterdir())
    assert names == ["card.md", "model.json", "weights.safetensors"]  # no SAM that micro-sam knows
    model = load_model(str(first.path))
    assert model.hash == first.hash == file_hash(first.folder / "weights.safetensors")
    assert model.name == "cells"
    assert model.ais == {"min_size": 3}
    hashes = first.description()["hashes"]
    content = (first.folder / "weights.safetensors").read_bytes()
    assert hashes["sha256"] == hashlib.sha256(content).hexdigest()


def test_published_twice_is_one_version(models: ModelStore) -> None:
    first = models.publish("cells", tiny(training="abc", tuning={"seconds": 1}), tiny_state())
    again = models.publish("cells", tiny(training="abc", tuning={"seconds": 2}), tiny_state())
    assert again == first
    assert models.publish("cells", tiny(training="abd"), tiny_state()).number == 2
    assert models.publish("cells", tiny(), tiny_state()).number == 3
    assert models.publish("cells", tiny(), tiny_state()).number == 3
    assert models.publish("cells", tiny(limits="none"), tiny_state()).number == 4


def test_weights_in_any_memory(models: ModelStore) -> None:
    state = tiny_state()
    key = "image_encoder.neck.2.weight"
    state[key] = state[key].to(memory_format=torch.channels_last).requires_grad_()
    both = torch.zeros(2, *state["decoder.out_conv.bias"].shape)
    state["decoder.out_conv.bias"] = both[1]
    version = models.publish("cells", tiny(), state)
    read = own_state(read_checkpoint(version.folder / "weights.safetensors"))
    assert all(torch.equal(read[name], state[name]) for name in state)


def test_failure_leaves_nothing(models: ModelStore) -> None:
    def fail(folder: Path) -> None:
        (folder / "curves.csv").write_text("1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models.publish("cells", tiny(), tiny_state(), fail)
    state = tiny_state()
    del state["decoder.out_conv.bias"]
    with pytest.raises(VolsamError, match="1 keys missing"):
        models.publish("cells", tiny(), state)
    assert list((models.root / "cells").iterdir()) == []
    assert models.names() == []


def test_a_number_taken_meanwhile_is_not_overwritten(
    models: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = models.publish("cells", tiny(), tiny_state())
    numbers = iter([1, 2])
    monkeypatch.setattr(ModelStore, "next_version", lambda *_: next(numbers))
    second = models.publish("cells", tiny(), tiny_state(1))
    assert second.number == second.description()["version"] == 2
    assert first.check().description()["version"] == 1


def test_old_partial_folders_are_swept(models: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    home = models.root / "cells"
    (home / ".x.partial").mkdir(parents=True)
    models.publish("cells", tiny(), tiny_state())
    assert (home / ".x.partial").exists()  # perhaps of somebody who is at it
    monkeypatch.setattr(store, "_PARTIAL_LIFE", -1)
    models.publish("cells", tiny(), tiny_state(1))
    assert not (home / ".x.partial").exists()


def test_promotion_and_its_history(models: ModelStore) -> None:
    with pytest.raises(VolsamError, match="models there are none"):
        models.find("cells")
    models.publish("cells", tiny(metrics=SCORES), tiny_state())
    assert models.promoted("cells") is None
    with pytest.raises(VolsamError, match=r"it has 1, promote one with volsam models promote"):
        models.find("cells")
    models.promote("cells", 1, "beats its parent")
    assert models.find("cells") == models.root / "cells" / "1" / "model.json"
    second = models.publish("cells", tiny(), tiny_state(1))
    models.promote("cells", 2, "by hand", {"model": {"mSA": 0.7}})
    assert models.promoted("cells") == second
    history = models.history("cells")
    assert [entry["version"] for entry in history] == [1, 2]
    assert history[0]["scores"] == {"model": {"mSA": 0.625}, "parent": {"mSA": 0.5}}
    assert history[0]["why"] == "beats its parent"
    content = (models.root / "cells" / "promoted.json").read_bytes()
    assert json.loads(content)["version"] == 2
    models.promote("cells", 2, "by hand", {"model": {"mSA": 0.7}})
    assert (models.root / "cells" / "promoted.json").read_bytes() == content
    with pytest.raises(VolsamError, match=r"no version 3 of model cells in .*; it has 1, 2"):
        models.promote("cells", 3, "")


def test_numbers_are_given_once(models: ModelStore) -> None:
    version = models.publish("cells", tiny(), tiny_state())
    models.promote("cells", 1, "")
    for path in version.folder.iterdir():
        path.unlink()
    version.folder.rmdir()
    assert models.next_version("cells") == 2
    with pytest.raises(VolsamError, match="no version 1"):
        models.find("cells")


@pytest.mark.parametrize("what", ["weights", "gone", "edited", "torn", "exchanged", "promotion"])
def test_damaged_or_changed_is_refused(models: ModelStore, what: str) -> None:
    version = models.publish("cells", tiny(), tiny_state())
    models.promote("cells", 1, "")
    weights = version.folder / "weights.safetensors"
    match what:
        case "weights":
            data = bytearray(weights.read_bytes())
            data[-1] ^= 1
            weights.write_bytes(data)
        case "gone":
            weights.unlink()
        case "edited":
            version.path.write_text(version.path.read_text().replace("12.0", "13.0"))
        case "torn":
            version.path.write_text(version.path.read_text()[:50])
        case "exchanged":
            other = models.publish("cells", tiny(), tiny_state(1))
            for path in other.folder.iterdir():
                path.replace(version.folder / path.name)
        case "promotion":
            (models.root / "cells" / "promoted.json").write_text("[]")
    with pytest.raises(VolsamError) as raised:
        models.find("cells")
    assert "\n" not in str(raised.value)
    assert str(raised.value).count(". ") == 0


@pytest.mark.parametrize("name", ["", "a/b", "../a", "..", ".hidden", "a b", "x" * 101, "vit_b"])
def test_names(models: ModelStore, name: str) -> None:
    for action in (models.versions, models.next_version, models.promoted, models.find):
        with pytest.raises(
            VolsamError, match=r"cannot be called|name of a model that volsam knows"
        ):
            action(name)
    with pytest.raises(VolsamError):
        models.publish(name, tiny(), tiny_state())
    assert not models.root.exists()


def whole_sam(architecture: VitArchitecture) -> dict[str, torch.Tensor]:
    sam = seeded_state(build_sam(architecture.encoder(), architecture.image_size))
    return sam | {f"decoder.{key}": value for key, value in seeded_state(UNETR()).items()}


@pytest.mark.usefixtures("small_vit_b")
def test_a_sam_comes_with_a_checkpoint_for_micro_sam(
    models: ModelStore, small_vit: VitArchitecture
) -> None:
    state = whole_sam(small_vit)
    version = models.publish("sam", describe("sam", normalisation="minmax"), state)
    content = torch.load(version.folder / "checkpoint.pt", weights_only=True)
    assert content.keys() == {"model_state", "decoder_state"}
    read = read_checkpoint(version.folder / "checkpoint.pt")
    again = own_state(read)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], state[key]) for key in state)
    both = [load_model(str(version.folder / name)) for name in ("model.json", "checkpoint.pt")]
    image = torch.rand(1, 3, 64, 64) * 255
    first, second = (model.decode(model.embed(image)) for model in both)
    assert torch.equal(first, second)


def test_micro_sam_cannot_build_every_model(
    models: ModelStore, small_vit: VitArchitecture, tmp_path: Path
) -> None:
    sam, decoder = checkpoint_states(whole_sam(small_vit))
    assert decoder is not None
    path = tmp_path / "x.pt"
    bare = {key: value for key, value in sam.items() if key.startswith("image_encoder.")}
    with pytest.raises(VolsamError, match="it has no prompt_encoder"):
        write_checkpoint(path, bare)
    other = {f"decoder.{key}": value for key, value in UNETR(**DECODER).state_dict().items()}
    with pytest.raises(VolsamError, match="its decoder is not micro-sam's"):
        write_checkpoint(path, sam | other)
    assert not path.exists()
    write_checkpoint(path, sam)
    assert read_checkpoint(path).decoder is None


def test_card_tells_all() -> None:
    parent = tiny(parent="vit_b_lm", parent_hash="aa")
    description = tiny(
        parent="cells/1",
        parent_hash="bb",
        ancestors=ancestry(parent),
        data=["ours", {"name": "DSB", "licence": "CC0-1.0", "images": 3}],
        licence="MIT",
        authors=["A", "B"],
        metrics=SCORES,
        recipe={"objects": 5, "lora": {"rank": 4}},
        training="cc",
        use="cells",
        limits="not\nnuclei | others",
    )
    text = card_text(description | {"version": 2, "hashes": {"xxh128": "dd", "sha256": "ee"}})
    for part in (
        "# cells, version 2", "**For:** cells", "| licence | MIT |", "| authors | A, B |",
        "- DSB (licence: CC0-1.0, images: 3)", "## Validation", "| mSA | 0.5 | 0.625 |",
        "On 4 held-out images.", '| lora | {"rank": 4} |', "1. vit_b_lm (`aa`)", "2. cells/1 (`bb`)",
        "xxh128 of the weights: `dd`", "sha256 of the weights: `ee`", "12 pixels",
    ):  # fmt: skip
        assert part in text
    assert "No scores were recorded" in card_text(tiny())
    assert "not stated" in card_text(tiny())
