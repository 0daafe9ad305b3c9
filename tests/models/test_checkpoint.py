"""Every form of a checkpoint, and what is said of a file that is none."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from volsam.errors import VolsamError
from volsam.models.checkpoint import fit, read_checkpoint

ENCODER = {"image_encoder.a": torch.ones(2)}
SAM = ENCODER | {"prompt_encoder.b": torch.ones(3), "mask_decoder.c": torch.ones(4)}
DECODER = {
    "base.block.1.weight": torch.ones(1),
    "out_conv.weight": torch.ones(2),
    "decoder.samplers.0.conv.weight": torch.ones(1),
}


def saved(folder: Path, content: Any, name: str = "model.pt") -> Path:
    path = folder / name
    torch.save(content, path)
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_plain_sam(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "sam.pth"
    torch.save(SAM, path, _use_new_zipfile_serialization=zipped)
    checkpoint = read_checkpoint(path)
    assert checkpoint.sam.keys() == SAM.keys()
    assert checkpoint.decoder is None


def test_training_checkpoint(tmp_path: Path) -> None:
    state = {f"sam.{key}": value for key, value in SAM.items()}
    content = {"model_state": state, "decoder_state": DECODER, "epoch": 3, "optimizer_state": {}}
    checkpoint = read_checkpoint(saved(tmp_path, content))
    assert checkpoint.sam.keys() == SAM.keys()
    assert checkpoint.decoder is not None
    assert checkpoint.decoder.keys() == DECODER.keys()


def test_combined_export(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(saved(tmp_path, {"model_state": SAM, "decoder_state": DECODER}))
    assert checkpoint.sam.keys() == SAM.keys()
    assert checkpoint.decoder is not None


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: {"decoder_state": d}])
def test_separate_decoder(tmp_path: Path, wrap: Any) -> None:
    decoder = saved(tmp_path, wrap(DECODER), "decoder.pt")
    checkpoint = read_checkpoint(saved(tmp_path, SAM), decoder)
    assert checkpoint.decoder is not None
    assert checkpoint.decoder.keys() == DECODER.keys()


def test_instance_segmentation_training(tmp_path: Path) -> None:
    state = {"encoder.a": torch.ones(2)} | DECODER
    checkpoint = read_checkpoint(saved(tmp_path, {"model_state": state}))
    assert checkpoint.sam.keys() == ENCODER.keys()
    assert checkpoint.decoder is not None
    assert checkpoint.decoder.keys() == DECODER.keys()


def test_own_form_in_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(ENCODER | {f"decoder.{key}": value for key, value in DECODER.items()}, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.sam.keys() == ENCODER.keys()
    assert checkpoint.decoder is not None
    assert checkpoint.decoder.keys() == DECODER.keys()


def test_pickled_objects_need_consent(tmp_path: Path) -> None:
    path = saved(tmp_path, {"model_state": SAM, "init": argparse.Namespace(a=1)})
    with pytest.raises(VolsamError, match="allow_pickle=True"):
        read_checkpoint(path)
    assert read_checkpoint(path, allow_pickle=True).sam.keys() == SAM.keys()


def test_classes_that_are_not_installed_are_skipped(tmp_path: Path) -> None:
    path = saved(tmp_path, {"model_state": SAM, "init": argparse.Namespace(a=1)})
    data = path.read_bytes()
    path.write_bytes(data.replace(b"cargparse\n", b"cargparsf\n"))
    # The archive's checksum no longer agrees; torch does not look at it.
    assert read_checkpoint(path, allow_pickle=True).sam.keys() == SAM.keys()


def damaged(kind: str, folder: Path) -> Path:
    path = folder / "model.pt"
    match kind:
        case "absent":
            pass
        case "empty":
            path.touch()
        case "text":
            path.write_text("404: Not Found")
        case "truncated":
            torch.save({"image_encoder.a": torch.randn(10_000)}, path)
            path.write_bytes(path.read_bytes()[:20_000])
        case "safetensors":
            path = path.with_suffix(".safetensors")
            path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
        case "list":
            torch.save([torch.ones(1)], path)
        case "other":
            torch.save({"layer1.weight": torch.ones(1)}, path)
        case "decoder":
            torch.save(DECODER, path)
        case "number":
            torch.save({"image_encoder.a": 3}, path)
        case "state":
            torch.save({"model_state": 3}, path)
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("absent", "There is no checkpoint"),
        ("empty", "damaged"),
        ("text", "damaged"),
        ("truncated", "damaged"),
        ("safetensors", "damaged"),
        ("list", "no weights"),
        ("other", "no SAM checkpoint"),
        ("decoder", "without an image encoder"),
        ("number", "no weight"),
        ("state", "holds no weights"),
    ],
)
def test_one_sentence_for_a_bad_file(tmp_path: Path, kind: str, says: str) -> None:
    path = damaged(kind, tmp_path)
    with pytest.raises(VolsamError, match=says) as raised:
        read_checkpoint(path)
    assert str(path.name) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_decoder_file_without_decoder(tmp_path: Path) -> None:
    path = saved(tmp_path, SAM)
    with pytest.raises(VolsamError, match="no decoder weights"):
        read_checkpoint(path, path)


def test_fit_is_strict(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    state = {"weight": torch.ones(2, 3, dtype=torch.float16), "bias": torch.zeros(2)}
    layer = nn.Linear(3, 2)
    fit(layer, state, "layer", path)
    assert layer.weight.dtype == torch.float32
    with pytest.raises(VolsamError, match=r"1 keys missing \(such as bias\)"):
        fit(layer, {"weight": state["weight"]}, "layer", path)
    with pytest.raises(VolsamError, match=r"1 keys too many \(such as more\)"):
        fit(layer, state | {"more": torch.ones(1)}, "layer", path)
    with pytest.raises(VolsamError, match=r"weight has shape \(3, 2\) and \(2, 3\) is needed"):
        fit(layer, state | {"weight": torch.ones(3, 2)}, "layer", path)
    with pytest.raises(VolsamError, match="parameter-efficient"):
        fit(layer, {"qkv.qkv_proj.weight": torch.ones(1)}, "layer", path)
