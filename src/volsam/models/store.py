"""Trained models by name and version, and which version of a name is in use.

::

    <models>/<name>/<version>/   weights.safetensors   our own form, see `checkpoint`
                                 model.json            description, see `card` and `model.Source`
                                 card.md               the same to read
                                 checkpoint.pt         for micro-sam, where it knows the architecture
                                 …                     what the training adds
    <models>/<name>/promoted.json                      the version in use, and those before

Invariants
----------
- A version appears whole: it is made in a partial folder, loaded once, and renamed to its number.
- A version never changes. Its description carries the hashes of its weights and of itself, and one
  that disagrees with them is refused.
- A number is given once, also when the version is removed later.
- The same training with the same weights is one version, however often it is published.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter, ValidationError

from volsam.errors import VolsamError
from volsam.models.card import WEIGHTS, card_text
from volsam.models.registry import MODELS, file_hash
from volsam.models.version import DESCRIPTION, Version, description_digest, read_json
from volsam.paths import write_json
from volsam.section import Name
from volsam.volume.store import writing

if TYPE_CHECKING:
    from torch import Tensor

CARD = "card.md"
CHECKPOINT = "checkpoint.pt"
PROMOTED = "promoted.json"
_ADDED = ("name", "weights", "version", "created", "hashes")  # by `ModelStore.publish`
_PARTIAL_LIFE = 24 * 3600  # seconds after which a partial folder cannot be a publication that runs
_NAME: TypeAdapter[str] = TypeAdapter(Name)


def check_name(name: str) -> str:
    """Return `name` if a model may be called so; names are those of samples."""
    try:
        _NAME.validate_python(name)
    except ValidationError:
        raise VolsamError(
            f"A model cannot be called {name!r}; use up to 100 letters, digits, '_', '-' and '.', "
            "the first a letter or digit."
        ) from None
    if name == "embedded" or name in MODELS:
        raise VolsamError(f"{name!r} is the name of a model that volsam knows; choose another.")
    return name


class ModelStore:
    """The folder of all trained models.

    Parameters
    ----------
    root : path
        The folder; it need not exist.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def names(self) -> list[str]:
        """Names that have a version, in order."""
        if not self.root.is_dir():
            return []
        names = (folder.name for folder in self.root.iterdir() if not folder.name.startswith("."))
        return sorted(name for name in names if self._numbers(name))

    def versions(self, name: str) -> list[Version]:
        """All versions of a name, oldest first."""
        check_name(name)
        return [self._version(name, number) for number in self._numbers(name)]

    def version(self, name: str, number: int) -> Version:
        """One version, checked."""
        if number not in self._numbers(check_name(name)):
            raise VolsamError(
                f"There is no version {number} of model {name} in {self.root}; {self._known(name)}."
            )
        return self._version(name, number).check()

    def next_version(self, name: str) -> int:
        """The number that the next version gets."""
        used = [entry["version"] for entry in self._entries(check_name(name))]
        return max([0, *self._numbers(name), *used]) + 1

    def publish(
        self,
        name: str,
        description: Mapping[str, Any],
        state: Mapping[str, Tensor],
        extra: Callable[[Path], object] | None = None,
    ) -> Version:
        """Make a version.

        Parameters
        ----------
        name : str
            Name of the model.
        description : mapping
            From `card.describe`.
        state : mapping of str to tensor
            Weights in our own form, see `checkpoint`.
        extra : callable, optional
            Is given the folder before it gets its number, to write more files into it.

        Returns
        -------
        Version
            The new one, or the one that holds the same weights of the same training already.

        Raises
        ------
        VolsamError
            If the weights do not fit the description or the disk refuses; nothing is left then.
        """
        home = self.root / check_name(name)
        with writing(home):
            home.mkdir(parents=True, exist_ok=True)
            _sweep(home)
            partial = Path(tempfile.mkdtemp(dir=home, prefix=".", suffix=".partial"))
            try:
                partial.chmod(0o755)
                hashes = _write_weights(partial / WEIGHTS, state)
                known = self._published(name, description, hashes["xxh128"])
                if known is not None:
                    return known
                data = {**description, "name": name, "weights": WEIGHTS, "created": _now()}
                _write_checkpoint(partial, data, state)
                if extra is not None:
                    extra(partial)
                return self._number(name, partial, data, hashes)
            finally:
                shutil.rmtree(partial, ignore_errors=True)

    def promoted(self, name: str) -> Version | None:
        """The version in use, if one was promoted."""
        entries = self._entries(check_name(name))
        if not entries:
            return None
        current = entries[-1]
        found = self.version(name, current["version"])
        if found.hash != current["hash"]:
            raise VolsamError(
                f"Version {found.number} of model {name} in {self.root} is not the one that was "
                "promoted (its hash differs); promote it again if you trust it."
            )
        return found

    def promote(
        self,
        name: str,
        version: int,
        reason: str,
        scores: Mapping[str, Any] | None = None,
        *,
        by: Literal["hand", "training"] = "hand",
    ) -> Version:
        """Put a version to use.

        Parameters
        ----------
        name : str
            Name of the model.
        version : int
            Its version.
        reason : str
            Why, for the record.
        scores : mapping, optional
            Scores of the ``model`` and of its ``parent``; those of its description by default.
        by : {"hand", "training"}
            Who decides.
        """
        found = self.version(name, version)
        if scores is None:
            metrics = found.description().get("metrics") or {}
            scores = {"model": metrics.get("after"), "parent": metrics.get("before")}
        newest = max(known.number for known in self.versions(name))
        entry = {"version": version, "hash": found.hash, "why": reason, "by": by}
        entry |= {"scores": dict(scores), "newest": newest}
        entries = self._entries(name)
        if entries and {k: v for k, v in entries[-1].items() if k != "when"} == entry:
            return found  # said before: a repeated run must not change the file
        write_json(self.root / name / PROMOTED, {**entry, "when": _now(), "history": entries})
        return found

    def history(self, name: str) -> list[dict[str, Any]]:
        """Promotions, oldest first: version, hash, scores, when, why, by, and the newest version then."""
        return self._entries(check_name(name))

    def find(self, name: str) -> Path:
        """Path of the description of the version in use.

        Raises
        ------
        VolsamError
            If there is none, or it is damaged.
        """
        found = self.promoted(name)
        if found is None:
            raise VolsamError(
                f"No version of model {name} in {self.root} is promoted; {self._known(name)}"
                + (", promote one with volsam models promote." if self._numbers(name) else ".")
            )
        return found.path

    def _version(self, name: str, number: int) -> Version:
        return Version(name, number, self.root / name / str(number))

    def _numbers(self, name: str) -> list[int]:
        home = self.root / name
        if not home.is_dir():
            return []
        found = (path.name for path in home.iterdir() if (path / DESCRIPTION).is_file())
        return sorted(int(text) for text in found if text.isascii() and text.isdigit())

    def _known(self, name: str) -> str:
        numbers = ", ".join(map(str, self._numbers(name)))
        if numbers:
            return f"it has {numbers}"
        return f"models there are {', '.join(self.names()) or 'none'}"

    def _entries(self, name: str) -> list[dict[str, Any]]:
        path = self.root / name / PROMOTED
        if not path.exists():
            return []
        data = read_json(path)
        entries = [*data.pop("history", []), data]
        if not all(
            isinstance(entry, dict)
            and isinstance(entry.get("version"), int)
            and isinstance(entry.get("hash"), str)
            for entry in entries
        ):
            raise VolsamError(f"{path} is damaged; remove it and promote a version again.")
        return entries

    def _published(self, name: str, description: Mapping[str, Any], digest: str) -> Version | None:
        """The version that already is this model: of the same training, or else alike in all."""
        training = description.get("training")
        for version in reversed(self.versions(name)):
            data = version.description()
            if data["hashes"]["xxh128"] != digest:
                continue
            alike = {k: v for k, v in data.items() if k not in _ADDED}
            told = {k: v for k, v in description.items() if k not in _ADDED}
            if data.get("training") == training if training else alike == told:
                return version.check()
        return None

    def _number(
        self, name: str, partial: Path, data: dict[str, Any], hashes: dict[str, str]
    ) -> Version:
        """Give the folder the next number, and another one if somebody was faster."""
        while True:
            version = self._version(name, self.next_version(name))
            whole = {**data, "version": version.number, "hashes": hashes}
            whole = json.loads(json.dumps(whole))
            whole["hashes"]["description"] = description_digest(whole)
            write_json(partial / DESCRIPTION, whole)
            (partial / CARD).write_text(card_text(whole), encoding="utf-8")
            _try_out(partial / DESCRIPTION)
            try:
                partial.rename(version.folder)
            except OSError:
                if not version.folder.exists():
                    raise
                continue
            return version


def _write_weights(path: Path, state: Mapping[str, Tensor]) -> dict[str, str]:
    from safetensors.torch import save_file

    save_file({key: _plain(tensor) for key, tensor in state.items()}, path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"xxh128": file_hash(path), "sha256": sha256}


def _plain(tensor: Tensor) -> Tensor:
    """On the CPU, contiguous, and alone in its memory, as safetensors wants it."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _write_checkpoint(
    folder: Path, description: Mapping[str, Any], state: Mapping[str, Tensor]
) -> None:
    from volsam.models.export import misfit, write_checkpoint

    if misfit(description, state) is None:
        write_checkpoint(folder / CHECKPOINT, {k: v.detach().cpu() for k, v in state.items()})


def _try_out(path: Path) -> None:
    """Load the model once: what cannot be loaded is no version."""
    from volsam.models.model import load_model

    load_model(str(path), need_decoder=False)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _sweep(home: Path) -> None:
    """Remove what killed publications left."""
    for partial in home.glob(".*.partial"):
        if partial.is_dir() and time.time() - partial.stat().st_mtime > _PARTIAL_LIFE:
            shutil.rmtree(partial, ignore_errors=True)
