"""One version of a trained model on disk: what it says of itself, and whether it is what was published.

Invariant: a description carries the hashes of the weights and of itself, and one that disagrees with them
is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from volsam.errors import VolsamError
from volsam.models.card import WEIGHTS
from volsam.models.registry import file_hash

DESCRIPTION = "model.json"


@dataclass(frozen=True)
class Version:
    """One trained model.

    Attributes
    ----------
    name : str
        Name of the model.
    number : int
        Its version, from 1.
    folder : Path
        Where its files lie.
    """

    name: str
    number: int
    folder: Path

    @property
    def path(self) -> Path:
        """The description, which `volsam.models.load_model` takes."""
        return self.folder / DESCRIPTION

    def description(self) -> dict[str, Any]:
        """Read the description; one that was changed is refused."""
        data = read_json(self.path)
        stated = data.get("hashes")
        if not isinstance(stated, dict) or stated.get("description") != description_digest(data):
            raise VolsamError(
                f"{self.path} was changed after the model was made; get it again, and set what you "
                "want otherwise in the configuration."
            )
        return data

    @property
    def hash(self) -> str:
        """xxh128 of the weights, as the description states it."""
        return str(self.description()["hashes"]["xxh128"])

    def check(self) -> Version:
        """Return itself if weights and description are what was published.

        Raises
        ------
        VolsamError
            If a file is missing, damaged or was changed.
        """
        weights = self.folder / WEIGHTS
        stated = self.hash
        if not weights.is_file() or file_hash(weights) != stated:
            raise VolsamError(
                f"{weights} is missing or not what was published (hash {stated}); get the file "
                "again, or train and publish a new version."
            )
        return self


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        data = None
    if not isinstance(data, dict):
        raise VolsamError(f"{path} cannot be read or is damaged; get it again or remove it.")
    return data


def description_digest(description: Mapping[str, Any]) -> str:
    """xxh128 of a description without the digest itself."""
    hashes = {k: v for k, v in description["hashes"].items() if k != "description"}
    text = json.dumps({**description, "hashes": hashes}, sort_keys=True)
    return xxhash.xxh128(text.encode()).hexdigest()
