"""Cell Tracking Challenge folders: segmentation truth of single frames and slices.

``01/t000.tif`` is an image; ``01_GT/SEG`` holds truth of it or of a slice of it, ``01_ST/SEG`` computed
("silver") truth under the same names (`exchange.ctc.seg_masks`).
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
from volsam.exchange.ctc import SegMask, seg_masks
from volsam.geometry import Box
from volsam.volume.source import open_volume

_SEQUENCE = re.compile(r"\d{2}")


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
        for mask in seg_masks(sequence.with_name(f"{sequence.name}_{kind}")):
            found = True
            yield _read_mask(mask, sequence / f"t{mask.frame}.tif", settings)
    if not found:
        other = "" if settings.silver else ", or take the computed truth with --silver"
        raise VolsamError(
            f"{folder} has no masks man_seg*.tif in <sequence>_{kind}/SEG; check the folder{other}."
        )


def _read_mask(mask: SegMask, image: Path, settings: Settings) -> Crop:
    if not image.is_file():
        raise VolsamError(f"{mask.path} is the truth of {image}, which is missing; copy it there.")
    if settings.region or settings.image:
        raise VolsamError(
            f"The truth of {image.parent} belongs to whole images; leave out --region and --image."
        )
    region = None if mask.slice is None else Region(z=[mask.slice, mask.slice + 1])
    said = {key: value for key, value in settings.reading.items() if value is not None}
    own = replace(settings, reading={"axes": "zyx", **said}, region=region)
    picture = FilePicture(open_volume(image, **own.reading), own)
    where = str(mask.path)
    volume = open_labels(mask.path, depth=picture.box.shape[0])
    check_shape(volume.info.shape, picture.box.shape, where)
    truth, ignore = settings.meaning.split(volume.read(Box.of(volume.info.shape)), where)
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
