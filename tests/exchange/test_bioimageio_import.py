"""Packages from others: ours and micro-sam's come in whole, everything else not at all."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from seeded import seeded_state

from volsam.errors import VolsamError
from volsam.exchange.bioimageio import export_package
from volsam.exchange.bioimageio_import import import_package
from volsam.models import load_model, sam
from volsam.models.card import describe
from volsam.models.registry import file_hash
from volsam.models.store import ModelStore
from volsam.models.unetr import UNETR

Change = Callable[[dict[str, Any], dict[str, bytes]], object]


def unpacked(package: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    with zipfile.ZipFile(package) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    return yaml.safe_load(files.pop("rdf.yaml")), files


def packed(path: Path, rdf: Any, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        if rdf is not None:
            archive.writestr("rdf.yaml", yaml.safe_dump(rdf))
    return path


@pytest.mark.parametrize("folder", [False, True])
def test_round_trip(package: Path, embedded: Path, tmp_path: Path, folder: bool) -> None:
    source = package
    if folder:
        source = tmp_path / "unpacked"
        with zipfile.ZipFile(package) as archive:
            archive.extractall(source)
    version = import_package(source, tmp_path / "models", "nuclei")
    assert version.number == 1
    assert import_package(source, tmp_path / "models", "nuclei") == version
    before, after = load_model(str(embedded)), load_model(str(version.path))
    image = torch.rand(1, 3, 256, 256) * 255
    assert torch.equal(*(model.decode(model.embed(image)) for model in (before, after)))
    facts = [(m.ais, m.diameter, m.normalisation, m.embedding_shape) for m in (before, after)]
    assert facts[0] == facts[1]
    description = version.description()
    stated = json.loads(embedded.read_text())
    assert description["data"] == stated["data"]
    assert (description["licence"], description["authors"]) == ("MIT", ["A. Uthor"])
    assert description["package"]["name"] == "volsam embedded"


@pytest.fixture
def micro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """State of a vit_b in miniature with micro-sam's decoder."""
    small = sam.VitArchitecture("vit_b", 32, 2, 2, (1,), image_size=64)
    monkeypatch.setattr(sam, "VIT_B", small)
    whole = seeded_state(sam.build_sam(small.encoder(), 64))
    return whole | {f"decoder.{key}": value for key, value in seeded_state(UNETR()).items()}


def test_prompts_come_along(micro: dict[str, torch.Tensor], tmp_path: Path) -> None:
    models = ModelStore(tmp_path / "models")
    told = describe("sam", normalisation="minmax", licence="MIT", authors=["A"], training="t")
    first = models.publish("sam", told, micro)
    package = export_package(first.path, tmp_path / "sam.zip")
    again = import_package(package, tmp_path / "models", "other")
    names = ("weights.safetensors", "checkpoint.pt")
    assert all(file_hash(first.folder / n) == file_hash(again.folder / n) for n in names)
    assert import_package(package, tmp_path / "models", "sam") == first


@pytest.mark.parametrize("combined", [False, True])
def test_package_of_micro_sam(
    micro: dict[str, torch.Tensor], tmp_path: Path, combined: bool
) -> None:
    """The weights are a SAM's, and the decoder is attached or in the same file, or both."""
    folder = tmp_path / "package"
    folder.mkdir()
    decoder = {k.removeprefix("decoder."): v for k, v in micro.items() if k.startswith("decoder.")}
    plain = {k: v for k, v in micro.items() if not k.startswith("decoder.")}
    both = {"model_state": plain, "decoder_state": decoder}
    torch.save(both if combined else plain, folder / "vit_b.pt")
    torch.save(decoder, folder / "vit_b_decoder.pt")

    def file(name: str) -> dict[str, str]:
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        return {"source": name, "sha256": digest}

    network = {"source": "a.py", "callable": "PredictorAdaptor", "kwargs": {"model_type": "vit_b"}}
    rdf = {
        "type": "model", "format_version": "0.5.3", "name": "SAM LM", "license": "CC-BY-4.0",
        "authors": [{"name": "B"}], "attachments": [file("vit_b_decoder.pt")],
        "weights": {"pytorch_state_dict": {**file("vit_b.pt"), "architecture": network}},
    }  # fmt: skip
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf))
    version = import_package(folder, tmp_path / "models", "lm")
    description = version.description()
    assert (description["normalisation"], description["licence"]) == ("minmax", "CC-BY-4.0")
    torch.save(both, tmp_path / "reference.pt")
    specs = (str(version.path), str(tmp_path / "reference.pt"))
    image = torch.rand(1, 3, 64, 64) * 255
    maps = [model.decode(model.embed(image)) for model in map(load_model, specs)]
    assert torch.equal(*maps)
    assert (version.folder / "checkpoint.pt").is_file()


def weights(rdf: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = rdf["weights"]["pytorch_state_dict"]
    return entry


def replaced(name: str, content: bytes) -> Change:
    def change(rdf: dict[str, Any], files: dict[str, bytes]) -> None:
        files[name] = content
        for entry in (weights(rdf), *rdf["attachments"]):
            if entry["source"] == name:
                entry["sha256"] = hashlib.sha256(content).hexdigest()

    return change


def described(**keys: Any) -> Change:
    def change(rdf: dict[str, Any], files: dict[str, bytes]) -> None:
        stated = json.loads(files["model.json"]) | keys
        replaced("model.json", json.dumps(stated).encode())(rdf, files)

    return change


BAD: dict[str, tuple[Change, str]] = {
    "tampered": (
        lambda r, f: f.update({"weights.pt": f["weights.pt"] + b"0"}),
        "not what rdf.yaml says",
    ),
    "no hash": (lambda r, f: weights(r).pop("sha256"), "not what rdf.yaml says"),
    "outside": (lambda r, f: weights(r).update(source="../secret.pt"), "outside of it"),
    "absolute": (lambda r, f: weights(r).update(source="/etc/passwd"), "outside of it"),
    "remote": (lambda r, f: weights(r).update(source="https://x.org/w.pt"), "on the network"),
    "absent": (lambda r, f: f.pop("weights.pt"), "lacks weights.pt"),
    "foreign": (
        lambda r, f: weights(r)["architecture"].update(callable="Net"),
        "does not run the code",
    ),
    "onnx": (lambda r, f: r.update(weights={"onnx": {}}), "no weights of PyTorch"),
    "huge": (
        lambda r, f: weights(r)["architecture"]["kwargs"]["encoder"].update(embed_dims=[10**9] * 3),
        "does not run the code",
    ),
    "other kwargs": (
        lambda r, f: weights(r)["architecture"]["kwargs"]["encoder"].update(colour=1),
        "volsam can build",
    ),
    "other size": (
        lambda r, f: weights(r)["architecture"]["kwargs"]["encoder"].update(neck_channels=64),
        "do not fit",
    ),
    "no SAM": (
        lambda r, f: weights(r)["architecture"].update(
            callable="PredictorAdaptor", kwargs={"model_type": "resnet"}
        ),
        "no SAM that volsam knows",
    ),
    "no weights": (replaced("weights.pt", b"cos\nsystem\n(S'true'\ntR."), "weights"),
    "dataset": (lambda r, f: r.update(type="dataset"), "describes no model"),
    "description": (replaced("model.json", b"[1"), "volsam can build"),
    "normalisation": (described(normalisation="none"), "unknown normalisation"),
    "ais": (described(ais={"exit": 1}), "unknown AIS parameters"),
    "diameter": (described(diameter="x"), "is no number"),
    "metrics": (described(metrics="good"), "volsam can build"),
}


@pytest.mark.parametrize("what", BAD)
def test_refused_in_one_sentence(package: Path, tmp_path: Path, what: str) -> None:
    rdf, files = unpacked(package)
    change, says = BAD[what]
    change(rdf, files)
    path = packed(tmp_path / "bad.zip", rdf, files)
    with pytest.raises(VolsamError, match=says) as raised:
        import_package(path, tmp_path / "models", "nuclei")
    assert "\n" not in str(raised.value)
    assert ModelStore(tmp_path / "models").names() == []
    assert not list((tmp_path / "models").rglob("*.partial"))


@pytest.mark.parametrize("member", ["../evil.py", "/evil.py", "a\\..\\evil.py", "c:evil.py"])
def test_members_outside_are_refused(package: Path, tmp_path: Path, member: str) -> None:
    rdf, files = unpacked(package)
    path = packed(tmp_path / "bad.zip", rdf, files | {member: b""})
    with pytest.raises(VolsamError, match="outside of it"):
        import_package(path, tmp_path / "models", "nuclei")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bad.zip"]


def test_links_of_a_folder_are_not_followed(package: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(package) as archive:
        archive.extractall(folder)
    (folder / "weights.pt").rename(tmp_path / "weights.pt")
    (folder / "weights.pt").symlink_to(tmp_path / "weights.pt")
    with pytest.raises(VolsamError, match="outside of it"):
        import_package(folder, tmp_path / "models", "nuclei")


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"text"])
def test_no_package(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    with pytest.raises(VolsamError, match=r"no zip file|no rdf\.yaml"):
        import_package(path, tmp_path / "models", "nuclei")


def test_code_of_a_package_is_never_run(package: Path, tmp_path: Path) -> None:
    rdf, files = unpacked(package)
    evil = tmp_path / "evil"
    replaced("network.py", f"open({str(evil)!r}, 'w')".encode())(rdf, files)
    import_package(packed(tmp_path / "x.zip", rdf, files), tmp_path / "models", "nuclei")
    assert not evil.exists()
