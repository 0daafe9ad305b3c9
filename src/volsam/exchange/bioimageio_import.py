"""Take a BioImage.IO package into the folder of trained models.

Two kinds are known: those that `bioimageio.export_package` writes, and micro-sam's, whose weights are a
SAM checkpoint with the decoder inside or attached. A package is data from a stranger:

Invariants
----------
- Its code is never run and its pickles are never loaded.
- No file outside of it is read, and none is written but the new version.
- What is used has the SHA-256 that ``rdf.yaml`` states.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from volsam.errors import VolsamError
from volsam.exchange.architecture import bounded, recognised
from volsam.models.card import describe
from volsam.models.checkpoint import State, read_checkpoint
from volsam.models.export import own_state
from volsam.models.registry import MODELS, file_hash
from volsam.models.store import ModelStore
from volsam.models.version import Version
from volsam.segment.ais import AisParameters

_RDFS = ("rdf.yaml", "bioimageio.yaml")
_MOST_BYTES = 20 * 2**30
_LONGEST_RDF = 2**20
_TOLD = (  # what a description says besides what the network is
    "parent", "parent_hash", "ancestors", "data", "licence", "authors", "metrics", "recipe", "tuning",
    "training", "use", "limits",
)  # fmt: skip
_MICRO_SAM = "PredictorAdaptor"


def import_package(package: str | Path, models_root: str | Path, name: str) -> Version:
    """Make a version of a model from a package.

    Parameters
    ----------
    package : path
        Zip file, or folder into which it was unpacked.
    models_root : path
        Folder of all trained models.
    name : str
        Name that the model gets.

    Returns
    -------
    Version
        The new one, or the one that this package became before.

    Raises
    ------
    VolsamError
        If the package is damaged, reaches outside of itself, or has a network that is not ours.
    """
    path = Path(package)
    with _opened(path) as folder:
        files = _Files(path, folder)
        rdf = files.rdf()
        try:
            description, state = _model(files, rdf, name)
            return ModelStore(models_root).publish(name, description, state)
        except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
            what = (str(error).splitlines() or [type(error).__name__])[0][:120].rstrip(".")
            raise VolsamError(
                f"{path} does not describe a model that volsam can build ({what}); get it again."
            ) from None


class _Files:
    """The files of a package in a folder, by the names that ``rdf.yaml`` gives them."""

    def __init__(self, package: Path, folder: Path) -> None:
        self.package, self.folder = package, folder.resolve()

    def rdf(self) -> Mapping[str, Any]:
        for name in _RDFS:
            path = self.folder / name
            if path.is_file() and path.stat().st_size <= _LONGEST_RDF:
                break
        else:
            raise VolsamError(f"{self.package} has no rdf.yaml; give a BioImage.IO package.")
        try:
            rdf = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
            rdf = None
        if not isinstance(rdf, dict) or rdf.get("type") != "model":
            raise VolsamError(
                f"The {path.name} of {self.package} describes no model; get it again."
            )
        return rdf

    def path(self, entry: object) -> Path:
        """Path of the file that an entry names, its hash checked."""
        if not isinstance(entry, dict) or not isinstance(entry.get("source"), str):
            raise VolsamError(f"The rdf.yaml of {self.package} names no file where one must be.")
        source: str = entry["source"]
        if "://" in source:
            raise VolsamError(
                f"{self.package} leaves {source} on the network; get the whole package as a zip."
            )
        path = (self.folder / source).resolve()
        if not path.is_relative_to(self.folder):
            raise VolsamError(
                f"{self.package} names {source}, a file outside of it; do not use it."
            )
        if not path.is_file():
            raise VolsamError(f"{self.package} lacks {source}; get the package again.")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != entry.get("sha256"):
            raise VolsamError(
                f"{source} of {self.package} is not what rdf.yaml says (SHA-256 {digest}); get the "
                "package again."
            )
        return path

    def attachments(self, rdf: Mapping[str, Any]) -> dict[str, Any]:
        """Entries of the attached files by file name."""
        entries = rdf.get("attachments")
        found = {}
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and isinstance(entry.get("source"), str):
                found[PurePosixPath(entry["source"]).name] = entry
        return found


def _model(files: _Files, rdf: Mapping[str, Any], name: str) -> tuple[dict[str, Any], State]:
    weights = rdf.get("weights")
    entry = weights.get("pytorch_state_dict") if isinstance(weights, dict) else None
    architecture = entry.get("architecture") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(architecture, dict):
        raise VolsamError(
            f"{files.package} has no weights of PyTorch with an architecture; import packages that "
            "volsam or micro-sam made."
        )
    kind, kwargs = architecture.get("callable"), architecture.get("kwargs")
    path = files.path(entry)
    told: dict[str, Any] = {"licence": _text(rdf.get("license")), "authors": _authors(rdf)}
    if kind == _MICRO_SAM:
        decoder = _micro_sam_decoder(files, rdf, kwargs)
        state = own_state(read_checkpoint(path, decoder))
        ais = _tuned(path)
        return describe(name, normalisation="minmax", ais=ais, **told, **_origin(rdf)), state
    encoder, head = recognised(kind, kwargs)
    state = own_state(read_checkpoint(path))
    attached = files.attachments(rdf)
    if "prompts.safetensors" in attached:
        from safetensors.torch import load_file

        prompts = load_file(files.path(attached["prompts.safetensors"]))
        if any(not key.startswith(("prompt_encoder.", "mask_decoder.")) for key in prompts):
            raise ValueError("prompts.safetensors holds other weights")
        state = {**state, **prompts}
    stated: dict[str, Any] = {}
    if "model.json" in attached:
        stated = json.loads(files.path(attached["model.json"]).read_text(encoding="utf-8"))
    told |= {key: stated[key] for key in _TOLD if stated.get(key) is not None}
    known = _settings(stated) | {"encoder": encoder, "decoder": head or None}
    return describe(name, **known, **told, **_origin(rdf)), state


def _settings(stated: Mapping[str, Any]) -> dict[str, Any]:
    """How the model is used, from an attached description; what it cannot mean is refused."""
    normalisation = stated.get("normalisation", "percentile")
    if normalisation not in ("percentile", "minmax"):
        raise ValueError(f"unknown normalisation {normalisation!r}")
    sizes = {key: stated.get(key) for key in ("diameter", "pixel_size")}
    prompts, ais = stated.get("prompts"), stated.get("ais") or {}
    numbers = [*(value for value in sizes.values() if value is not None), *ais.values()]
    if not all(isinstance(value, (int, float)) for value in numbers):
        raise ValueError("a diameter, pixel size or AIS parameter is no number")
    if not set(ais) <= {field.name for field in fields(AisParameters)}:
        raise ValueError(f"unknown AIS parameters {', '.join(map(str, ais))}")
    if not bounded(prompts or {}):
        raise ValueError("unknown prompt encoder")
    known = {"normalisation": normalisation, **sizes, "ais": ais, "prompts": prompts}
    rate = stated.get("learning_rate")
    return known if rate is None else known | {"learning_rate": float(rate)}


def _micro_sam_decoder(files: _Files, rdf: Mapping[str, Any], kwargs: object) -> Path | None:
    kind = kwargs.get("model_type") if isinstance(kwargs, dict) else None
    if kind not in ("vit_t", "vit_b", "vit_l", "vit_h"):
        raise VolsamError(f"{files.package} is of no SAM that volsam knows ({kind!r}).")
    entry = files.attachments(rdf).get(f"{kind}_decoder.pt")
    return None if entry is None else files.path(entry)


def _tuned(weights: Path) -> dict[str, float]:
    """AIS parameters of a model that volsam knows by its hash."""
    digest = file_hash(weights)
    for entry in MODELS.values():
        if entry.encoder.xxh128 == digest:
            return dict(entry.ais)
    return {}


def _origin(rdf: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: _text(rdf.get(key)) for key in ("name", "id", "version")}
    return {"package": {key: text for key, text in told.items() if text}}


def _authors(rdf: Mapping[str, Any]) -> list[str]:
    entries = rdf.get("authors")
    names = [e.get("name") for e in entries if isinstance(e, dict)] if entries else []
    return [name for name in names if isinstance(name, str)]


def _text(value: object) -> str | None:
    return str(value) if isinstance(value, (str, int, float)) else None


@contextmanager
def _opened(package: Path) -> Iterator[Path]:
    """The folder of a package; a zip is unpacked into a temporary one."""
    if package.is_dir():
        yield package
        return
    if not zipfile.is_zipfile(package):
        raise VolsamError(f"{package} is no zip file and no folder; give a BioImage.IO package.")
    with tempfile.TemporaryDirectory(prefix="volsam-") as folder:
        try:
            with zipfile.ZipFile(package) as archive:
                _check_members(package, archive)
                archive.extractall(folder)
        except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError) as error:
            raise VolsamError(f"{package} is damaged ({error}); get it again.") from None
        yield Path(folder)


def _check_members(package: Path, archive: zipfile.ZipFile) -> None:
    for member in archive.infolist():
        path = PurePosixPath(member.filename)
        drive = "\\" in member.filename or ":" in member.filename
        if path.is_absolute() or ".." in path.parts or drive:
            raise VolsamError(
                f"{package} holds {member.filename!r}, which would be written outside of it; do not "
                "use it."
            )
    if sum(member.file_size for member in archive.infolist()) > _MOST_BYTES:
        raise VolsamError(f"{package} unpacks to more than 20 GiB; it is no model.")
