"""Weights of the features, and what they make of candidates: gains.

Each object chooses its future (a successor, a pair of daughters, or none) and its past (a predecessor, a
mother together with a sister, or none). Both choices are multinomial logits whose scores are linear in
the features, and the lineage that is sought has the greatest product of all of them. In that product a
link counts twice, once in its source's future and once in its target's past, and a division three times.
Where a model of association has looked at a pair, the target's past is what the model says.

Invariants
----------
- Gains are relative to the end of a track before and the start of one after, so that what does not gain
  is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from volsam.errors import VolsamError
from volsam.paths import write_json
from volsam.track.candidates import Divisions, Links
from volsam.track.features import (
    DIVISION,
    END,
    LINK,
    division_features,
    end_features,
    link_features,
)
from volsam.track.lineage import Floats, Ints
from volsam.track.scene import Scene
from volsam.track.solve import Problem

PARTS: Mapping[str, tuple[str, ...]] = {
    "link": LINK,
    "division": DIVISION,
    "start": END,
    "end": END,
}
"""Features of each part."""


@dataclass(frozen=True)
class Weights:
    """One weight per feature.

    Parameters
    ----------
    vector : (k,) float64
        In the order of `PARTS`.
    """

    vector: Floats

    def part(self, name: str) -> Floats:
        """Weights of one of `PARTS`."""
        return self.vector[places(name)]

    def as_dict(self) -> dict[str, dict[str, float]]:
        """Weights by part and feature."""
        return {
            part: dict(zip(names, self.part(part).tolist(), strict=True))
            for part, names in PARTS.items()
        }

    @classmethod
    def of(cls, by_name: Mapping[str, Mapping[str, float]]) -> Weights:
        """Weights by part and feature; what is not named is 0."""
        for part, values in by_name.items():
            strange = [name for name in values if name not in PARTS.get(part, ())]
            if strange or part not in PARTS:
                raise ValueError(f"there is no weight {part}.{(strange or ['*'])[0]}")
        vector = [by_name.get(part, {}).get(name, 0.0) for part in PARTS for name in PARTS[part]]
        return cls(np.asarray(vector, np.float64))

    def write(self, path: Path) -> None:
        """Store as JSON."""
        write_json(path, self.as_dict())

    @classmethod
    def read(cls, path: Path) -> Weights:
        """Weights that `write` stored.

        Raises
        ------
        VolsamError
            If the file cannot be read or holds something else.
        """
        try:
            found = cls.of(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise VolsamError(f"Cannot read the weights {path}: {error.strerror}.") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise VolsamError(
                f"The file {path} holds no weights of tracking ({error}); make it with volsam track fit."
            ) from None
        if not np.isfinite(found.vector).all():
            raise VolsamError(f"The weights {path} are not all finite; fit them again.")
        return found


def places(name: str) -> slice:
    """Where a part stands in the vector of weights."""
    start = 0
    for part, names in PARTS.items():
        if part == name:
            return slice(start, start + len(names))
        start += len(names)
    raise KeyError(name)


def gains(scene: Scene, links: Links, divisions: Divisions, weights: Weights) -> Problem:
    """What each candidate gains over tracks that end and start instead."""
    end = end_features(scene, links.source) @ weights.part("end")
    start = end_features(scene, links.target) @ weights.part("start")
    once = link_features(scene, links) @ weights.part("link")
    link = 2 * once - end - start + _told(scene, links.source, links.target, once - start)
    once = division_features(scene, divisions) @ weights.part("division")
    division = 3 * once
    division -= end_features(scene, divisions.mother) @ weights.part("end")
    for daughter in (divisions.first, divisions.second):
        start = end_features(scene, daughter) @ weights.part("start")
        division -= start
        division += _told(scene, divisions.mother, daughter, once - start)
    return Problem(links, link, divisions, division)


def _told(scene: Scene, source: Ints, target: Ints, odds: Floats) -> Floats:
    """By how much a model's odds of pasts differ from those that features give; 0 where it has none."""
    if scene.pasts is None:
        return np.zeros(len(source))
    known = scene.pasts.known(source, target)
    told: Floats = np.where(known, scene.pasts.odds(source, target) - odds, 0.0)
    return told
