"""Cell Tracking Challenge folders: segmentation truth of single frames and slices.

Names, as the challenge defines them: ``01/t000.tif`` is an image; ``01_GT/SEG/man_seg000.tif`` the truth
of the whole frame, ``man_seg_000_012.tif`` that of slice 12 of a 3D frame; ``01_ST/SEG`` holds computed
("silver") truth under the same names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from volsam.annotate.checks import check_shape
from volsam.annotate.pictures import Crop, FilePicture, Settings, open_labels, signed
from volsam.config import Region
from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.volume.source import open_volume

_SEQUENCE = re.compile(r"\d{2}")
_MASK = re.compile(r"man_seg_?(\d{3,4})(?:_(\d{3,4}))?\.tif", re.IGNORECASE)


def is_ctc(folder: Path) -> bool:
    """Whether a folder is a sequence (``01``), its truth (``01_GT``), or holds sequences."""
    return bool(_sequences(folder))


def read_ctc(folder: Path, settings: Settings) -> Iterator[Crop]:
    """One crop for each mask of segmentation truth, in the order of sequences and names.

    Raises
    ------
    VolsamError
        If there is no segmentation truth, or a mask has no image.
    """
    kind = "ST" if settings.silver else "GT"
    found = False
    for sequence in _sequences(folder):
        masks = sorted((sequence.parent / f"{sequence.name}_{kind}" / "SEG").glob("*.tif"))
        for mask in masks:
            if match := _MASK.fullmatch(mask.name):
                found = True
                yield _read_mask(mask, sequence / f"t{match[1]}.tif", match[2], settings)
    if not found:
        other = "" if settings.silver else ", or take the computed truth with --silver"
        raise VolsamError(
            f"{folder} has no masks man_seg*.tif in <sequence>_{kind}/SEG; check the folder{other}."
        )


def _read_mask(mask: Path, image: Path, slice_: str | None, settings: Settings) -> Crop:
    if not image.is_file():
        raise VolsamError(f"{mask} is the truth of {image}, which is missing; copy it there.")
    if settings.region or settings.image:
        raise VolsamError(
            f"The truth of {image.parent} belongs to whole images; leave out --region and --image."
        )
    region = Region(z=[int(slice_), int(slice_) + 1]) if slice_ else None
    said = {key: value for key, value in settings.reading.items() if value is not None}
    own = replace(settings, reading={"axes": "zyx", **said}, region=region)
    picture = FilePicture(open_volume(image, **own.reading), own)
    volume = open_labels(mask, depth=picture.box.shape[0])
    check_shape(volume.info.shape, picture.box.shape, str(mask))
    truth, ignore = settings.meaning.split(volume.read(Box.of(volume.info.shape)), str(mask))
    pixels, provenance = picture.read()
    tool = "ctc silver truth" if settings.silver else "ctc gold truth"
    return Crop(pixels, truth, ignore, signed(provenance, settings, tool))


def _sequences(folder: Path) -> list[Path]:
    """Folders of images that a folder names or holds."""
    name = folder.resolve().name
    base = name.split("_")[0]
    if _SEQUENCE.fullmatch(base):
        images = folder.resolve().parent / base
        return [images] if _has_truth(images) else []
    return sorted(
        path for path in folder.iterdir() if _SEQUENCE.fullmatch(path.name) and _has_truth(path)
    )


def _has_truth(sequence: Path) -> bool:
    return sequence.is_dir() and any(
        (sequence.parent / f"{sequence.name}_{kind}").is_dir() for kind in ("GT", "ST")
    )
