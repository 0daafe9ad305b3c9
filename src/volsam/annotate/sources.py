"""Corrected labels of any tool, with their image, as crops for the annotation store.

`read` knows what it was given by looking at it: a crop from ``volsam annotate suggest``, results of a
run, a Cell Tracking Challenge folder, GeoJSON (QuPath), or a file of labels (a layer saved by napari,
micro-sam's committed objects, any format that `open_volume` reads, ``.npy``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volsam.annotate import ctc, geojson
from volsam.annotate.checks import UNLABELLED, as_volume, check_shape
from volsam.annotate.crops import (
    content_digest,
    crop_kind,
    read_image,
    read_labels,
    read_mark,
    read_provenance,
)
from volsam.annotate.pictures import (
    Crop,
    CropPicture,
    Picture,
    Settings,
    open_labels,
    picture_of,
    region_box,
    run_of,
    signed,
)
from volsam.annotate.runs import FinishedRun
from volsam.errors import VolsamError
from volsam.geometry import Box

Array = NDArray[Any]
GEOJSON = (".geojson", ".json", ".geojson.gz", ".json.gz")


def read(path: Path, settings: Settings) -> Iterator[Crop]:
    """Crops from corrected labels.

    Parameters
    ----------
    path : Path
        A file or folder, see the module.
    settings : Settings

    Raises
    ------
    VolsamError
        If the labels cannot be read, or do not fit their image.
    """
    if not path.exists():
        raise VolsamError(f"There is nothing at {path}; check the path.")
    if crop_kind(path) is not None:
        yield read_crop(path, settings)
    elif run := run_of(path):
        yield read_run(run, settings)
    elif path.is_dir() and ctc.is_ctc(path):
        yield from ctc.read_ctc(path, settings)
    elif path.name.lower().endswith(GEOJSON):
        yield geojson.read_geojson(path, settings)
    else:
        yield read_files(path, settings)


def read_crop(path: Path, settings: Settings) -> Crop:
    """An edited crop: a suggestion, or an annotation whose mask is kept where nothing was added."""
    if settings.image or settings.region:
        raise VolsamError(
            f"{path} knows its image and region; leave out --image and --region for it."
        )
    edited = crop_kind(path) == "annotation"
    name = (settings.label_key or ("truth" if edited else "objects")).removeprefix("labels/")
    if not (path / "labels" / name).is_dir():
        raise VolsamError(f"{path} has no labels {name!r}; name its label group with --label-key.")
    labels, image = read_labels(path, name), read_image(path)
    check_shape(labels.shape, image.shape, str(path))
    truth, ignore = settings.meaning.split(labels, str(path))
    known = read_provenance(path)
    provenance = signed(known, settings, "napari")
    if edited and not settings.meaning.complete:
        # What was known stays so where nothing was painted.
        ignore = np.where(ignore == UNLABELLED, read_labels(path, "ignore"), ignore)
        provenance = provenance.model_copy(update={"complete": known.complete})
    return Crop(image, truth, ignore, provenance, _untouched(path, labels))


def read_run(run: FinishedRun, settings: Settings) -> Crop:
    """A part of the labels of a run, edited in place."""
    if settings.region is None:
        raise VolsamError(
            f"The labels of {run.folder} are a prediction; say which part of them you corrected with "
            "--region."
        )
    if settings.image:
        raise VolsamError(f"{run.folder} knows its image; leave out --image for it.")
    box = region_box(settings.region, run.plan.shape, str(run.folder))
    truth, ignore = settings.meaning.split(run.labels(box), str(run.store))
    provenance = signed(run.provenance(box), settings, "napari")
    return Crop(run.volume().read(box), truth, ignore, provenance)


def read_files(path: Path, settings: Settings) -> Crop:
    """A file of labels beside an image."""
    picture = picture_of(path, settings)
    labels, warnings = label_part(path, settings, picture)
    truth, ignore = settings.meaning.split(labels, str(path))
    image, provenance = picture.read()
    if isinstance(picture, CropPicture):
        warnings += _untouched(picture.path, labels)
    return Crop(image, truth, ignore, signed(provenance, settings, "files"), warnings)


def label_part(path: Path, settings: Settings, picture: Picture) -> tuple[Array, tuple[str, ...]]:
    """Labels of the picture's part, from a file of the whole or of the part; and warnings."""
    box = picture.box
    if path.suffix.lower() == ".npy":
        array = as_volume(_load_npy(path), str(path))
        if array.shape == box.shape:
            return np.array(array), ()
        check_shape(array.shape, picture.shape, str(path))
        return np.array(array[box.slices]), ()
    key, axes = settings.label_key, settings.label_axes
    volume = open_labels(path, key, axes, depth=box.shape[0])
    if volume.info.channels > 1:
        volume = open_labels(path, key, axes, depth=picture.shape[0])
    if volume.info.channels > 1:
        raise VolsamError(
            f"{path} has {volume.info.channels} channels; labels have one, save the label layer "
            "rather than a picture of it."
        )
    if volume.info.shape == box.shape:
        return volume.read(Box.of(box.shape)), volume.info.warnings
    check_shape(volume.info.shape, picture.shape, str(path))
    return volume.read(box), volume.info.warnings


def _load_npy(path: Path) -> Array:
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise VolsamError(
            f"{path} cannot be read as an array ({error}); save it with numpy.save."
        ) from None
    return array


def _untouched(path: Path, labels: Array) -> tuple[str, ...]:
    """Warn of a suggestion whose labels are still the prediction."""
    predicted = (read_mark(path) or {}).get("prediction")
    if predicted is None or content_digest(labels.astype(np.uint32)) != predicted:
        return ()
    return (f"The labels for {path} are still as predicted, nothing was corrected.",)
