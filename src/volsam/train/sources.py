"""Where training data lie and what they are, without reading them into memory. Imports no torch."""

from __future__ import annotations

import glob
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xxhash

from volsam.annotate.store import AnnotationStore
from volsam.errors import VolsamError
from volsam.train.settings import Train, TrainData
from volsam.volume.fingerprint import fingerprint


def data_digests(settings: Train) -> dict[str, str]:
    """What the data are, by path: changed content or a new annotation is a new training."""
    return digests(settings.data)


def digests(data: str | Sequence[TrainData]) -> dict[str, str]:
    """The same of a folder of annotations, or of a list of images with labels."""
    if isinstance(data, str):
        return {data: AnnotationStore(Path(data)).digest()}
    found = {}
    for part in data:
        for image, labels in pairs(part):
            for path, key in ((image, part.key), (labels, part.labels_key)):
                # The labels within an OME-Zarr image are no part of that image's fingerprint.
                inner = Path(path) / (key or "")
                found[f"{path} {key or ''}".rstrip()] = fingerprint(
                    inner if inner.is_dir() else path
                ).content
    return found


def data_sources(settings: Train) -> list[dict[str, Any]]:
    """The data as a model's card states them: what, from where, under which licence, and digests."""
    if not isinstance(settings.data, str):
        return [
            {
                "name": part.image,
                "licence": part.licence,
                "labels": part.labels,
                "digest": _digest(digests([part])),
            }
            for part in settings.data
        ]
    annotations = [one.provenance for one in AnnotationStore(Path(settings.data))]
    licences = sorted({one.licence or "not stated" for one in annotations})
    return [
        {
            "name": settings.data,
            "licence": ", ".join(licences),
            "annotations": len(annotations),
            "slices": sum(one.shape[0] for one in annotations),
            "sources": sorted({one.source for one in annotations}),
            "digest": _digest(data_digests(settings)),
        }
    ]


def _digest(found: Mapping[str, str]) -> str:
    return xxhash.xxh128(json.dumps(sorted(found.values())).encode()).hexdigest()


def pairs(data: TrainData) -> list[tuple[str, str]]:
    """Paths of images and of their labels.

    Raises
    ------
    VolsamError
        If the patterns do not match the same number of files, or nothing.
    """
    images, labels = (_matching(pattern) for pattern in (data.image, data.labels))
    if not images or len(images) != len(labels):
        raise VolsamError(
            f"{data.image} matches {len(images)} files and {data.labels} {len(labels)}; give "
            "patterns that match one label file per image."
        )
    return list(zip(images, labels, strict=True))


def _matching(pattern: str) -> list[str]:
    if not glob.has_magic(pattern):
        return [pattern]
    return sorted(glob.glob(pattern))  # noqa: PTH207  (a pattern may be absolute)
