"""Write a model as a BioImage.IO package, and have the official library judge it.

A package (https://github.com/bioimage-io/spec-bioimage-io, format 0.5) is a zip with ``rdf.yaml`` and the
files that it names. What its network sees is what volsam's does: raw intensities to percentiles, to
0..255, then the image encoder and the decoder for automatic instance segmentation. Prompt encoder and
mask decoder, which that network lacks, travel as ``prompts.safetensors``, so that a package that is
imported again is the whole model.

Invariants
----------
- Every file is named with its SHA-256.
- The bytes are a function of model, image and arguments (and of the version of torch).
- The package appears under its name when it is complete.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from safetensors.torch import save as to_safetensors

from volsam import __version__
from volsam.errors import VolsamError
from volsam.exchange.architecture import Network, network
from volsam.exchange.sample import blobs, cover, fitted
from volsam.models.card import card_text
from volsam.models.checkpoint import Checkpoint, read_checkpoint, read_json
from volsam.models.model import Source
from volsam.models.registry import MODELS
from volsam.paths import replace

FORMAT = "0.5.12"
RDF, WEIGHTS, SOURCE, PROMPTS = "rdf.yaml", "weights.pt", "network.py", "prompts.safetensors"
DESCRIPTION = "model.json"
_MAPS = ["foreground", "center_distance", "boundary_distance"]
_EPS = 1e-6
_HALO = 32
_CITE = (
    ("Archit et al. 2025, Segment Anything for Microscopy", "10.1038/s41592-024-02580-4"),
    ("Kirillov et al. 2023, Segment Anything", "10.48550/arXiv.2304.02643"),
)


def export_package(
    model: str | Path,
    output: Path,
    *,
    authors: Sequence[str] = (),
    licence: str | None = None,
    image: NDArray[np.generic] | None = None,
) -> Path:
    """Write a BioImage.IO package.

    Parameters
    ----------
    model : path
        The model's description, ``model.json`` beside its weights.
    output : Path
        Zip file to write.
    authors : sequence of str
        Names; those of the description by default.
    licence : str, optional
        SPDX identifier; that of the description by default.
    image : (h, w) array, optional
        Picture to test and show the model with, in the model's pixel size. Its middle is used. By
        default a synthetic one.

    Returns
    -------
    Path
        `output`.

    Raises
    ------
    VolsamError
        If the model has no decoder, its licence or authors are not known, the image is too small, or
        the file cannot be written.
    """
    path = Path(model)
    description = read_json(path)
    authors = list(authors) or description.get("authors") or []
    licence = licence or description.get("licence")
    for what, value in (("author", authors), ("licence", licence)):
        if not value:
            raise VolsamError(f"{path} names no {what}, and a package needs one; give --{what}.")
    if output.suffix != ".zip":
        raise VolsamError(f"A BioImage.IO package is a zip file; call {output} something.zip.")
    description = {**description, "authors": authors, "licence": licence}
    source = Source.described(path)
    checkpoint = read_checkpoint(*source.files)
    files = _files(source, checkpoint, description, image)
    replace(output, lambda partial: _write_zip(partial, files))
    return output


def has_validator() -> bool:
    """Whether the official library is installed."""
    return importlib.util.find_spec("bioimageio") is not None and (
        importlib.util.find_spec("bioimageio.core") is not None
    )


def validate_package(path: Path) -> None:
    """Run the official validator and test on a package; needs the extra ``bioimageio``.

    Raises
    ------
    VolsamError
        With the first complaint.
    """
    try:
        from bioimageio.core import test_description
    except ImportError:
        raise VolsamError(
            "The package bioimageio.core is missing; pip install 'volsam[bioimageio]'."
        ) from None
    summary = test_description(path)
    if summary.status == "failed":
        errors = [error for detail in summary.details for error in detail.errors]
        first = str(errors[0].msg).splitlines()[0] if errors else "no reason given"
        raise VolsamError(f"{path} fails the test of bioimageio.core: {first.rstrip('.')}.")


def _files(
    source: Source,
    checkpoint: Checkpoint,
    description: Mapping[str, Any],
    image: NDArray[np.generic] | None,
) -> dict[str, bytes]:
    """Content of the package by name; ``rdf.yaml`` is the last."""
    net = network(source, checkpoint)
    pixels = _pixels(net, source, image)
    state = _network_state(checkpoint)
    scaled = prepare(pixels, source.normalisation)
    maps = _run(net, state, scaled)
    prompts = {k: v for k, v in checkpoint.sam.items() if not k.startswith("image_encoder.")}
    files = {
        WEIGHTS: _saved(state),
        SOURCE: net.source().encode(),
        "input.npy": _npy(pixels[None, None]),
        "output.npy": _npy(maps[None]),
        "cover.png": cover(scaled / np.float32(255), maps),
        "README.md": card_text(description).encode(),
        DESCRIPTION: _json(description),
    }
    if prompts:
        files[PROMPTS] = to_safetensors(prompts)
    rdf = _rdf(net, source, description, files, pixels.shape)
    text = yaml.safe_dump(rdf, sort_keys=False, allow_unicode=True, width=100)
    return {**files, RDF: text.encode()}


def prepare(image: NDArray[np.float32], normalisation: str) -> NDArray[np.float32]:
    """Preprocess as the package says: percentiles to 0..1, clipped, times 255."""
    low, high = np.percentile(image, _percentiles(normalisation))
    scaled = (image - low) / (high - low + _EPS)
    result: NDArray[np.float32] = (scaled.clip(0, 1) * 255).astype(np.float32)
    return result


def _percentiles(normalisation: str) -> tuple[float, float]:
    return (0.0, 100.0) if normalisation == "minmax" else (1.0, 99.8)


def _pixels(net: Network, source: Source, image: NDArray[np.generic] | None) -> NDArray[np.float32]:
    if image is None:
        return blobs(net.image_size, source.diameter or net.image_size / 16)
    pixels = fitted(image, net.image_size, net.step) if image.ndim == 2 else None
    if pixels is None:
        side = 4 * net.step if net.step else net.image_size
        raise VolsamError(
            f"The image to test model {source.name} with has shape {image.shape}; give one of at "
            f"least {side} x {side} pixels and one channel."
        )
    return pixels


def _network_state(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    encoder = {k: v for k, v in checkpoint.sam.items() if k.startswith("image_encoder.")}
    decoder = checkpoint.decoder or {}
    return {**encoder, **{f"decoder.{key}": value for key, value in decoder.items()}}


def _run(
    net: Network, state: Mapping[str, torch.Tensor], scaled: NDArray[np.float32]
) -> NDArray[np.float32]:
    module = net.module({key: value.clone() for key, value in state.items()})
    with torch.inference_mode():
        maps: NDArray[np.float32] = module(torch.from_numpy(scaled)[None, None])[0].numpy()
    return maps


def _rdf(
    net: Network,
    source: Source,
    description: Mapping[str, Any],
    files: Mapping[str, bytes],
    shape: tuple[int, ...],
) -> dict[str, Any]:
    """Content of ``rdf.yaml``."""

    def file(name: str) -> dict[str, str]:
        return {"source": name, "sha256": hashlib.sha256(files[name]).hexdigest()}

    rdf: dict[str, Any] = {
        "type": "model",
        "format_version": FORMAT,
        "name": _title(description["name"]),
        "description": (
            "Automatic instance segmentation of microscopy images: foreground, distance to the "
            "centre and distance to the boundary of the objects, for a seeded watershed."
        ),
        "covers": [file("cover.png")],
        "authors": [{"name": name} for name in description["authors"]],
        "cite": [{"text": text, "doi": doi} for text, doi in _CITE],
        "license": description["licence"],
        "documentation": file("README.md"),
        "tags": ["instance-segmentation", "segment-anything", "microscopy", "volsam"],
        "attachments": [file(name) for name in (DESCRIPTION, PROMPTS) if name in files],
        "inputs": [_input(net, source, file("input.npy"))],
        "outputs": [_output(net, file("output.npy"))],
        "weights": {
            "pytorch_state_dict": {
                **file(WEIGHTS),
                "architecture": {**file(SOURCE), "callable": net.kind, "kwargs": net.kwargs},
                "pytorch_version": torch.__version__.split("+")[0],
                "comment": f"Written by volsam {__version__}.",
            }
        },
    }
    if description.get("version"):
        rdf["version"] = str(description["version"])
    if description.get("created"):
        rdf["timestamp"] = description["created"]
    parent = _zoo_parent(description.get("parent"))
    if parent:
        rdf["parent"] = parent
    return rdf


def _input(net: Network, source: Source, test: dict[str, str]) -> dict[str, Any]:
    low, high = _percentiles(source.normalisation)
    size = f"objects about {source.diameter:g} pixels across" if source.diameter else "any objects"
    steps: list[tuple[str, dict[str, Any]]] = [
        ("ensure_dtype", {"dtype": "float32"}),
        (
            "scale_range",
            {
                "axes": ["channel", "y", "x"],
                "min_percentile": low,
                "max_percentile": high,
                "eps": _EPS,
            },
        ),
        ("clip", {"min": 0.0, "max": 1.0}),
        ("scale_linear", {"gain": 255.0, "offset": 0.0}),
    ]
    return {
        "id": "image",
        "description": f"One channel of a microscopy image, {size}, any intensities.",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": ["intensity"]},
            *({"type": "space", "id": axis, "size": _extent(net)} for axis in "yx"),
        ],
        "test_tensor": test,
        "data": {"type": "float32"},
        "preprocessing": [{"id": kind, "kwargs": kwargs} for kind, kwargs in steps],
    }


def _output(net: Network, test: dict[str, str]) -> dict[str, Any]:
    halo = {"halo": _HALO} if net.step else {}
    return {
        "id": "maps",
        "description": (
            "Foreground; distances to the object's centre and boundary, 0 inside, 1 at its border "
            "and in the background."
        ),
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": _MAPS},
            *(
                {"type": "space", "id": axis, "size": {"tensor_id": "image", "axis_id": axis}}
                | halo
                for axis in "yx"
            ),
        ],
        "test_tensor": test,
        "data": {"type": "float32", "range": [0.0, 1.0]},
    }


def _extent(net: Network) -> int | dict[str, int]:
    return {"min": 4 * net.step, "step": net.step} if net.step else net.image_size


def _title(name: str) -> str:
    """Titles have letters, digits and a few signs, and at least five of them."""
    return f"volsam {name.replace('.', '-')}"


def _zoo_parent(parent: str | None) -> dict[str, str] | None:
    """BioImage.IO's own name of a model that lies there."""
    entry = MODELS.get(parent or "")
    parts = entry.encoder.url.split("/") if entry else []
    if "bioimage.io" not in parts:
        return None
    return {"id": parts[parts.index("bioimage.io") + 1]}


def _saved(state: Mapping[str, torch.Tensor]) -> bytes:
    stream = io.BytesIO()
    torch.save(dict(state), stream)
    return stream.getvalue()


def _npy(array: NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _json(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=1, sort_keys=True) + "\n").encode()


def _write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)  # of 1980, so that the same package has the same bytes
            packs = not name.endswith((".pt", ".safetensors"))  # floats hardly do
            entry.compress_type = zipfile.ZIP_DEFLATED if packs else zipfile.ZIP_STORED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
