"""The annotation store: one small OME-Zarr for each annotated crop, in one folder.

Layout
------
``<root>/<id>.ome.zarr``
    The image crop, ``labels/truth`` (uint32), ``labels/ignore`` (uint8: 0 known, 1 not labelled, 2 said
    to be unknown), and the provenance as attribute ``volsam.annotation``.

Invariants
----------
- What has a name is complete: a crop is written under a partial name and renamed. One process adds at
  a time, and sweeps what a killed one left.
- An id is readable and ends in a hash of the content, so that equal crops have equal ids wherever
  they were added.
- `AnnotationStore.digest` reads provenances, not voxels: Snakemake may ask for it at every start.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volsam import __version__
from volsam.annotate.checks import (
    UNKNOWN,
    UNLABELLED,
    as_volume,
    check_objects,
    check_shape,
    whole_numbers,
)
from volsam.annotate.crops import (
    SUFFIX,
    Provenance,
    content_digest,
    crop_kind,
    read_image,
    read_labels,
    read_provenance,
    write_crop,
)
from volsam.blocks.lease import lease
from volsam.errors import VolsamError
from volsam.paths import replace as replace_file
from volsam.volume.checks import check_finite
from volsam.volume.store import OURS, discard, writing

__all__ = ["Annotation", "AnnotationStore", "Duplicate", "Provenance"]

PERCENTILES = (1.0, 99.8)  # of `config.Normalise`, and of the models' training
_WAIT = 600.0


class Duplicate(VolsamError):
    """The crop, or its region, is in the store already."""


@dataclass(frozen=True)
class Annotation:
    """One annotated crop.

    Attributes
    ----------
    id : str
        Readable name and a hash of the content.
    path : Path
        Its OME-Zarr.
    provenance : Provenance
    """

    id: str
    path: Path
    provenance: Provenance

    def image(self) -> NDArray[Any]:
        """Intensities as in the source, (z, y, x)."""
        return read_image(self.path)

    def labels(self) -> NDArray[np.uint32]:
        """Objects, uint32 (z, y, x); 0 is background where it is not ignored."""
        return read_labels(self.path, "truth").astype(np.uint32, copy=False)

    def ignore(self) -> NDArray[np.bool_]:
        """Where nothing is known, bool (z, y, x)."""
        return read_labels(self.path, "ignore") != 0

    def unlabelled(self) -> NDArray[np.bool_]:
        """Where nothing is known only because labels are sparse; objects beside it are whole."""
        mask = read_labels(self.path, "ignore")
        return (mask == UNLABELLED) & (self.labels() == 0) & (not self.provenance.complete)


class AnnotationStore:
    """A folder of annotations, in the order of their ids.

    Parameters
    ----------
    root : path
        Made by the first annotation; a folder that is not there is an empty store.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def _folders(self) -> list[Path]:
        found = self.root.glob(f"*{SUFFIX}") if self.root.is_dir() else iter(())
        return sorted(path for path in found if not path.name.startswith("."))

    def __len__(self) -> int:
        return len(self._folders())

    def __iter__(self) -> Iterator[Annotation]:
        for path in self._folders():
            if crop_kind(path) == "suggestion":
                raise VolsamError(
                    f"{path} is a suggestion, not an annotation; move it out of {self.root} and add "
                    "it with volsam annotate add."
                )
            yield Annotation(path.name.removesuffix(SUFFIX), path, read_provenance(path))

    def digest(self) -> str:
        """Digest of all that training reads: contents, limits and voxel sizes."""
        lines = [
            [a.id, a.provenance.digest, a.provenance.limits, a.provenance.voxel_size] for a in self
        ]
        return hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:24]

    def add(
        self,
        image: NDArray[Any],
        labels: NDArray[Any],
        ignore: NDArray[Any] | None,
        provenance: Provenance,
        *,
        replace: bool = False,
    ) -> Annotation:
        """Add a crop.

        Parameters
        ----------
        image : (z, y, x) or (y, x) array
            Intensities of one channel.
        labels : whole numbers, same shape
            Objects.
        ignore : bool or uint8, same shape, or None
            Where nothing is known, or `checks.UNLABELLED` and `checks.UNKNOWN` there; None is the
            unlabelled voxels, unless the provenance says that the labels are complete.
        provenance : Provenance
            Content digest, shape and number of objects are filled in, and limits where unknown.
        replace : bool
            Take the place of annotations of the same content, or of the same source and region.

        Raises
        ------
        Duplicate
            If the content, or the region of the source, is there already.
        VolsamError
            If the crop holds no object, or image and labels do not fit.
        """
        where = provenance.source or "The crop"
        image = as_volume(np.asarray(image), where)
        truth = whole_numbers(as_volume(np.asarray(labels), where), where)
        check_shape(truth.shape, image.shape, where)
        if ignore is None:
            mask = (np.full(truth.shape, not provenance.complete) & (truth == 0)).astype(np.uint8)
        else:
            mask = as_volume(np.asarray(ignore), where).astype(np.uint8)
            check_shape(mask.shape, image.shape, where)
        if image.dtype.kind not in "uif":
            raise VolsamError(f"{where} holds {image.dtype}; images hold numbers.")
        if provenance.region is not None and provenance.region.shape != image.shape:
            raise VolsamError(
                f"{where} has a crop of shape {image.shape} but its region "
                f"{provenance.region.shape}; state the region of this crop."
            )
        check_finite(image, path=where)
        z, y, x = image.shape
        filled: dict[str, Any] = {
            "objects": check_objects(truth, mask != 0, where),
            "shape": (z, y, x),
            # As bool where it says no more, so that ids stay those of before there were two kinds.
            "digest": content_digest(
                image, truth, mask if (mask == UNKNOWN).any() else mask.astype(np.bool_)
            ),
            "date": provenance.date or datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        if provenance.limits is None:
            low, high = (float(v) for v in np.percentile(image, PERCENTILES))
            filled |= {"limits": (low, high), "limits_of": "crop"}
        provenance = provenance.model_copy(update=filled)
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        with lease(self.root / ".lease.json", "adding annotations", wait=_WAIT):
            self._sweep()
            return self._add(image, truth, mask, provenance, replace)

    def _add(
        self,
        image: NDArray[Any],
        truth: NDArray[np.uint32],
        mask: NDArray[np.uint8],
        provenance: Provenance,
        replace: bool,
    ) -> Annotation:
        known = [
            a
            for a in self
            if a.provenance.digest == provenance.digest
            or (provenance.source and a.provenance.same_place(provenance))
        ]
        if known and not replace:
            what = "content" if known[0].provenance.digest == provenance.digest else "region"
            raise Duplicate(
                f"This {what} of {provenance.source} is in {self.root} already, as {known[0].id}; "
                "pass it over with --skip, or replace that one with --replace."
            )
        name = _id(provenance)
        path = self.root / f"{name}{SUFFIX}"
        if path.exists():  # the same voxels: only what is said of them may differ
            _renew(path, provenance)
        else:
            groups: dict[str, NDArray[Any]] = {"truth": truth, "ignore": mask}
            write_crop(path, image, groups, "annotation", provenance)
        with writing(self.root):
            for old in known:
                if old.id != name:
                    discard(old.path)
        return Annotation(name, path, provenance)

    def _sweep(self) -> None:
        """Remove what a kill left; only while holding the lease."""
        for partial in self.root.glob(".*.partial"):
            shutil.rmtree(partial, ignore_errors=True)
            partial.unlink(missing_ok=True)


def _id(provenance: Provenance) -> str:
    stem = Path(provenance.source).name
    stem = re.sub(r"(\.ome)?\.(zarr|tiff?|h5|hdf5|n5)$", "", stem)
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:60] or "crop"
    region = provenance.region
    place = "".join(f"{a}{s}" for a, s in zip("zyx", region.start, strict=True)) if region else ""
    return "-".join(part for part in (stem, place, provenance.digest[:12]) if part)


def _renew(path: Path, provenance: Provenance) -> None:
    """Replace the provenance of a crop by rewriting one file as a whole."""
    file = path / "zarr.json"
    metadata = json.loads(file.read_text(encoding="utf-8"))
    metadata["attributes"][OURS] = {
        "version": __version__,
        "annotation": provenance.model_dump(mode="json"),
    }
    replace_file(file, lambda partial: partial.write_text(json.dumps(metadata, indent=2)))
