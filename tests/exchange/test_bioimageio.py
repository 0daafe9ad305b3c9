"""BioImage.IO packages: what is in them, and that the official library agrees where it is installed."""

from __future__ import annotations

import hashlib
import io
import json
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from seeded import seeded_state

from volsam.errors import VolsamError
from volsam.exchange.bioimageio import export_package, has_validator, prepare, validate_package
from volsam.exchange.sample import fitted
from volsam.models import load_model, sam
from volsam.models.card import describe
from volsam.models.store import ModelStore
from volsam.models.unetr import UNETR


def read(package: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    with zipfile.ZipFile(package) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    return yaml.safe_load(files["rdf.yaml"]), files


def run_shipped(rdf: dict[str, Any], files: dict[str, bytes], image: np.ndarray) -> np.ndarray:
    """Do as a BioImage.IO program does: the package's own source with the package's weights."""
    entry = rdf["weights"]["pytorch_state_dict"]
    architecture = entry["architecture"]
    module = types.ModuleType("shipped")
    exec(compile(files[architecture["source"]], "network.py", "exec"), module.__dict__)
    network = getattr(module, architecture["callable"])(**architecture["kwargs"])
    state = torch.load(io.BytesIO(files[entry["source"]]), weights_only=True)
    network.load_state_dict(state)
    with torch.inference_mode():
        maps: np.ndarray = network.eval()(torch.from_numpy(image)).numpy()
    return maps


def named(entry: Any) -> list[dict[str, str]]:
    """Every file that a description names."""
    if isinstance(entry, dict):
        own = [entry] if "source" in entry else []
        return own + [file for value in entry.values() for file in named(value)]
    return [file for value in entry for file in named(value)] if isinstance(entry, list) else []


def test_files_and_hashes(package: Path) -> None:
    rdf, files = read(package)
    stated = {file["source"]: file["sha256"] for file in named(rdf)}
    assert stated.keys() == files.keys() - {"rdf.yaml"}
    assert all(hashlib.sha256(files[name]).hexdigest() == stated[name] for name in stated)
    assert rdf["license"] == "MIT"
    assert rdf["authors"] == [{"name": "A. Uthor"}]
    assert {"10.1038/s41592-024-02580-4"} < {entry["doi"] for entry in rdf["cite"]}
    assert "## Validation" in files["README.md"].decode()
    assert Image.open(io.BytesIO(files["cover.png"])).size == (512, 256)
    assert "volsam." not in files["network.py"].decode().split('"""')[2].replace("# volsam.", "")


def test_shipped_network_is_the_model(package: Path, embedded: Path) -> None:
    rdf, files = read(package)
    image, expected = (np.load(io.BytesIO(files[f"{name}.npy"])) for name in ("input", "output"))
    scaled = prepare(image[0, 0], "percentile")
    shipped = run_shipped(rdf, files, scaled[None, None])
    np.testing.assert_allclose(shipped, expected, atol=1e-6)
    model = load_model(str(embedded))
    used = model.decode(model.embed(torch.from_numpy(scaled)[None, None].expand(-1, 3, -1, -1)))
    np.testing.assert_allclose(used.numpy(), expected, atol=1e-4)
    assert expected[0, 0].max() > 0.9  # it found something


def test_same_package_same_bytes(package: Path, embedded: Path, tmp_path: Path) -> None:
    again = export_package(embedded, tmp_path / "again.zip", authors=["A. Uthor"])
    assert again.read_bytes() == package.read_bytes()


def test_own_image(embedded: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 4000, (300, 140)).astype(np.uint16)
    path = export_package(
        embedded, tmp_path / "p.zip", authors=["A"], licence="BSD-3-Clause", image=image
    )
    rdf, files = read(path)
    assert np.load(io.BytesIO(files["input.npy"])).shape == (1, 1, 288, 128)
    assert rdf["license"] == "BSD-3-Clause"
    with pytest.raises(VolsamError, match="at least 128 x 128 pixels"):
        export_package(embedded, tmp_path / "q.zip", authors=["A"], image=image[:100])
    assert fitted(image, 64, None) is not None
    assert fitted(image, 256, None) is None


def test_what_a_package_needs(embedded: Path, tmp_path: Path) -> None:
    with pytest.raises(VolsamError, match=r"names no author.*--author"):
        export_package(embedded, tmp_path / "p.zip")
    with pytest.raises(VolsamError, match=r"call .* something\.zip"):
        export_package(embedded, tmp_path / "p", authors=["A"])
    description = json.loads(embedded.read_text()) | {"licence": None}
    bare = tmp_path / "model.json"
    bare.write_text(json.dumps(description))
    with pytest.raises(VolsamError, match="names no licence"):
        export_package(bare, tmp_path / "p.zip", authors=["A"])
    assert list(tmp_path.iterdir()) == [bare]


@pytest.mark.parametrize("tiny", [False, True])
def test_models_of_sam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: bool) -> None:
    """A ViT, or MobileSAM's encoder, with micro-sam's decoder, both in miniature."""
    if tiny:
        small: Any = sam.TinyArchitecture(image_size=64)
        monkeypatch.setattr(sam, "VIT_T", small)
    else:
        small = sam.VitArchitecture("vit_b", 32, 2, 2, (1,), image_size=64)
        monkeypatch.setattr(sam, "VIT_B", small)
    whole = seeded_state(sam.build_sam(small.encoder(), 64))
    state = whole | {f"decoder.{key}": value for key, value in seeded_state(UNETR()).items()}
    told = describe("sam", normalisation="minmax", licence="MIT", authors=["A"], parent="vit_b_lm")
    version = ModelStore(tmp_path / "models").publish("sam", told, state)
    rdf, files = read(export_package(version.path, tmp_path / "sam.zip"))
    assert rdf["parent"] == {"id": "diplomatic-bug"}
    assert rdf["version"] == "1"
    assert rdf["inputs"][0]["axes"][-1]["size"] == 64
    assert "prompts.safetensors" in files
    image, expected = (np.load(io.BytesIO(files[f"{name}.npy"])) for name in ("input", "output"))
    scaled = prepare(image[0, 0], "minmax")
    np.testing.assert_allclose(run_shipped(rdf, files, scaled[None, None]), expected, atol=1e-5)
    model = load_model(str(version.path))
    used = model.decode(model.embed(torch.from_numpy(scaled)[None, None].expand(-1, 3, -1, -1)))
    np.testing.assert_allclose(used.numpy(), expected, atol=1e-3)


def test_official_validator_and_test(package: Path, tmp_path: Path) -> None:
    if not has_validator():
        pytest.skip("bioimageio.core is not installed")
    validate_package(package)
    _, files = read(package)
    data = bytearray(files["output.npy"])
    data[-1] ^= 64
    broken = tmp_path / "broken.zip"
    with zipfile.ZipFile(broken, "w") as archive:
        for name, content in (files | {"output.npy": bytes(data)}).items():
            archive.writestr(name, content)
    with pytest.raises(VolsamError, match="fails the test"):
        validate_package(broken)


def test_without_the_official_library(package: Path) -> None:
    if has_validator():
        pytest.skip("bioimageio.core is installed")
    with pytest.raises(VolsamError, match=r"pip install 'volsam\[bioimageio\]'"):
        validate_package(package)
