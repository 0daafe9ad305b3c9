"""The models that can be had by name: where they lie, what they are, and how they were tuned.

Files come from their authors' servers on first use, are kept in the user's cache and never shipped.

Invariants
----------
- A file is used only if its hash is the registered one; whatever else lies in its place is removed.
- A download appears under its final name only when it is complete and its hash agrees.
"""

from __future__ import annotations

import os
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

import xxhash

from volsam.errors import VolsamError

_BIOIMAGE = "https://uk1s3.embassy.ebi.ac.uk/public-datasets/bioimage.io"
_GWDG = "https://owncloud.gwdg.de/index.php/s"
_META = "https://dl.fbaipublicfiles.com/segment_anything"
_PIECE = 2**20
_PATIENCE = 60.0  # seconds without a byte


@dataclass(frozen=True)
class Remote:
    """A file to fetch.

    Attributes
    ----------
    url : str
        Where it lies.
    xxh128 : str
        Hash of its content, hexadecimal.
    """

    url: str
    xxh128: str


@dataclass(frozen=True)
class Entry:
    """A registered model.

    Attributes
    ----------
    encoder : Remote
        A SAM checkpoint.
    decoder : Remote or None
        Decoder for automatic instance segmentation, where the model has one.
    licence : str
        SPDX identifier, or where the authors state the terms.
    normalisation : {"minmax", "percentile"}
        How intensities became 0..1 in training.
    ais : dict
        Parameters of `segment.ais.AisParameters` tuned by the authors.
    """

    encoder: Remote
    decoder: Remote | None = None
    licence: str = "CC-BY-4.0"
    normalisation: str = "minmax"
    ais: Mapping[str, float] = field(default_factory=dict)


def _zoo(model: str, kind: str, encoder: str, decoder: str) -> tuple[Remote, Remote]:
    folder = f"{_BIOIMAGE}/{model}/files"
    return (
        Remote(f"{folder}/{kind}.pt", encoder),
        Remote(f"{folder}/{kind}_decoder.pt", decoder),
    )


def _cloud(encoder: tuple[str, str], decoder: tuple[str, str]) -> tuple[Remote, Remote]:
    first, second = (
        Remote(f"{_GWDG}/{share}/download", hash_) for share, hash_ in (encoder, decoder)
    )
    return first, second


def _tuned(center: float, boundary: float, smoothing: float) -> dict[str, float]:
    return {
        "center_threshold": center,
        "boundary_threshold": boundary,
        "distance_smoothing": smoothing,
        "min_size": 100,
    }


_PATHO = "see https://github.com/computational-cell-analytics/patho-sam"
_MEDICO = "see https://github.com/computational-cell-analytics/medico-sam"

MODELS: dict[str, Entry] = {
    "vit_b": Entry(
        Remote(f"{_META}/sam_vit_b_01ec64.pth", "6923c33df3637b6a922d7682bfc9a86b"),
        licence="Apache-2.0",
    ),
    "vit_l": Entry(
        Remote(f"{_META}/sam_vit_l_0b3195.pth", "a82beb3c660661e3dd38d999cc860e9a"),
        licence="Apache-2.0",
    ),
    "vit_h": Entry(
        Remote(f"{_META}/sam_vit_h_4b8939.pth", "97698fac30bd929c2e6d8d8cc15933c2"),
        licence="Apache-2.0",
    ),
    "vit_t": Entry(
        Remote(f"{_GWDG}/TuDzuwVDHd1ZDnQ/download", "8eadbc88aeb9d8c7e0b4b60c3db48bd0"),
        licence="Apache-2.0",
    ),
    "vit_t_lm": Entry(
        *_zoo(
            "faithful-chicken/1.1",
            "vit_t",
            "72ec5074774761a6e5c05a08942f981e",
            "3e914a5f397b0312cdd36813031f8823",
        ),
        ais=_tuned(0.5, 0.5, 2.0),
    ),
    "vit_b_lm": Entry(
        *_zoo(
            "diplomatic-bug/1.2",
            "vit_b",
            "fe9252a29f3f4ea53c15a06de471e186",
            "708b15ac620e235f90bb38612c4929ba",
        ),
        ais=_tuned(0.4, 0.5, 2.0),
    ),
    "vit_l_lm": Entry(
        *_zoo(
            "idealistic-rat/1.2",
            "vit_l",
            "017f20677997d628426dec80a8018f9d",
            "2faeafa03819dfe03e7c46a44aaac64a",
        ),
        ais=_tuned(0.4, 0.4, 1.6),
    ),
    "vit_t_em_organelles": Entry(
        *_zoo(
            "greedy-whale/1",
            "vit_t",
            "253474720c497cce605e57c9b1d18fd9",
            "8f897c7bb93174a4d1638827c4dd6f44",
        ),
        ais=_tuned(0.4, 0.5, 1.2),
    ),
    "vit_b_em_organelles": Entry(
        *_zoo(
            "noisy-ox/1.2",
            "vit_b",
            "f3bf2ed83d691456bae2c3f9a05fb438",
            "bb6398956a6b0132c26b631c14f95ce2",
        ),
        ais=_tuned(0.3, 0.4, 1.2),
    ),
    "vit_l_em_organelles": Entry(
        *_zoo(
            "humorous-crab/1.2",
            "vit_l",
            "810b084b6e51acdbf760a993d8619f2d",
            "334877640bfdaaabce533e3252a17294",
        ),
        ais=_tuned(0.3, 0.4, 1.2),
    ),
    "vit_b_histopathology": Entry(
        *_cloud(
            ("sBB4H8CTmIoBZsQ", "ffd1a2cd84570458b257bd95fdd8f974"),
            ("KO9AWqynI7SFOBj", "6a66194dcb6e36199cbee2214ecf7213"),
        ),
        licence=_PATHO,
    ),
    "vit_l_histopathology": Entry(
        *_cloud(
            ("IZgnn1cpBq2PHod", "b591833c89754271023e901281dee3f2"),
            ("oIs6VSmkOp7XrKF", "46aab7765d4400e039772d5a50b55c04"),
        ),
        licence=_PATHO,
    ),
    "vit_h_histopathology": Entry(
        *_cloud(
            ("L7AcvVz7DoWJ2RZ", "bd1856dafc156a43fb3aa705f1a6e92e"),
            ("1qAKxy5H0jgwZvM", "3ed9f87e46ad5e16935bd8d722c8dc47"),
        ),
        licence=_PATHO,
    ),
    "vit_b_medical_imaging": Entry(
        *_cloud(
            ("f5Ol4FrjPQWfjUF", "40169f1e3c03a4b67bff58249c176d92"),
            ("ahd3ZhZl2e0RIwz", "9e498b12f526f119b96c88be76e3b2ed"),
        ),
        licence=_MEDICO,
    ),
}


def cache_folder() -> Path:
    """Folder of downloaded models: ``$VOLSAM_CACHE``, or the platform's cache of the user."""
    stated = os.environ.get("VOLSAM_CACHE")
    if stated:
        return Path(stated)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "volsam"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "volsam"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "volsam"


def file_hash(path: Path) -> str:
    """xxh128 of a file's content, hexadecimal."""
    digest = xxhash.xxh128()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def fetch(name: str, entry: Entry) -> tuple[Path, Path | None]:
    """Paths of a model's encoder and decoder, downloaded if they are not in the cache."""
    folder = cache_folder() / "models"
    encoder = _fetch(entry.encoder, folder / f"{name}.pt")
    if entry.decoder is None:
        return encoder, None
    return encoder, _fetch(entry.decoder, folder / f"{name}_decoder.pt")


def _fetch(remote: Remote, path: Path) -> Path:
    if path.is_file():
        if file_hash(path) == remote.xxh128:
            return path
        path.unlink()
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = _download(remote.url, part, path)
        if digest != remote.xxh128:
            raise VolsamError(
                f"What {remote.url} sent has hash {digest} and not {remote.xxh128}, so it was "
                f"removed; try again, or put the right file at {path}."
            )
        part.replace(path)
    except OSError as error:
        raise VolsamError(
            f"Cannot store {remote.url} at {path} ({error}); set VOLSAM_CACHE to a folder that has "
            "room."
        ) from None
    finally:
        with suppress(OSError):
            part.unlink()
    return path


def _download(url: str, part: Path, path: Path) -> str:
    """Stream `url` into `part` of `path`; returns the hash of what came.

    Raises
    ------
    VolsamError
        If the other side fails; what fails on this disk stays an `OSError`.
    """
    digest = xxhash.xxh128()
    with part.open("wb") as target, ExitStack() as stack:
        with _network(url, path):
            source = stack.enter_context(urllib.request.urlopen(url, timeout=_PATIENCE))
        while True:
            with _network(url, path):
                piece = source.read(_PIECE)
            if not piece:
                return digest.hexdigest()
            digest.update(piece)
            target.write(piece)


@contextmanager
def _network(url: str, path: Path) -> Iterator[None]:
    """Tell what the network does from what the disk does: both raise `OSError`."""
    try:
        yield
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise VolsamError(
            f"Cannot download {url} ({reason}); check the network and try again, or put the file "
            f"at {path}."
        ) from None
