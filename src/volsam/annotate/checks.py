"""What corrected labels must be, and what their values say.

Invariants
----------
- Truth is uint32 (z, y, x), 0 where there is no object; the mask is uint8, 0 where the truth is known.
- What is not labelled is unknown unless the user said that it is background: `UNLABELLED` in the mask.
  Objects beside it are whole, those beside what the user said to be `UNKNOWN` may be cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import fastremap
import numpy as np
from numpy.typing import NDArray

from volsam.errors import VolsamError

Array = NDArray[Any]
UNLABELLED, UNKNOWN = 1, 2
_LARGEST = np.iinfo(np.uint32).max


@dataclass(frozen=True)
class Meaning:
    """What the values of a label image say besides the objects.

    Attributes
    ----------
    complete : bool
        Everything is labelled: 0 is background. Otherwise 0 is unknown.
    ignore_label, background_label : int or None
        Values that were painted to say "unknown here" and "background here".
    """

    complete: bool = False
    ignore_label: int | None = None
    background_label: int | None = None

    def split(self, labels: Array, where: str) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
        """Truth and the mask of what is not known.

        Parameters
        ----------
        labels : (z, y, x) array
            Whole numbers of any type.
        where : str
            Their file, for the messages.

        Raises
        ------
        VolsamError
            If a value is negative or no whole number.
        """
        ignored = np.zeros(labels.shape, np.bool_)
        background = np.full(labels.shape, self.complete)
        if self.ignore_label is not None:
            ignored = labels == self.ignore_label
        if self.background_label is not None:
            background |= labels == self.background_label
        special = [v for v in (self.ignore_label, self.background_label) if v is not None]
        objects = np.where(np.isin(labels, special), 0, labels) if special else labels
        truth = whole_numbers(objects, where)
        return truth, mask_of(ignored, (truth == 0) & ~background)


def mask_of(unknown: NDArray[np.bool_], unlabelled: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The mask of a crop: what was said to be unknown, and what only has no label."""
    return np.where(unknown, UNKNOWN, np.where(unlabelled, UNLABELLED, 0)).astype(np.uint8)


def whole_numbers(labels: Array, where: str) -> NDArray[np.uint32]:
    """Labels as uint32; ids that do not fit are numbered anew, in their order.

    Raises
    ------
    VolsamError
        If a label is negative or no whole number.
    """
    if labels.dtype.kind not in "uifb":
        raise VolsamError(f"{where} holds {labels.dtype}; labels must be whole numbers.")
    if labels.dtype.kind == "f":
        # The conversion is exact below 2**24 (float32), which the comparison proves.
        whole = np.isfinite(labels) & (labels == np.floor(labels))
        if not whole.all():
            value = labels[~whole].flat[0]
            raise VolsamError(
                f"{where} holds the value {value}; labels must be whole numbers, save the label "
                "layer rather than a picture of it."
            )
        labels = labels.astype(np.int64)
    if labels.size and labels.dtype.kind == "i" and labels.min() < 0:
        raise VolsamError(
            f"{where} holds the negative label {labels.min()}; name it as the ignore label or the "
            "background label, or save the labels as unsigned numbers."
        )
    if labels.size and labels.max() > _LARGEST:
        labels, _ = fastremap.renumber(labels, preserve_zero=True)
    return np.ascontiguousarray(labels, np.uint32)


def as_volume(array: Array, where: str) -> Array:
    """A 2D array as a volume of one slice.

    Raises
    ------
    VolsamError
        If the array has neither two nor three axes.
    """
    if array.ndim not in (2, 3):
        raise VolsamError(
            f"{where} has {array.ndim} axes; crops have the axes y and x, or z, y and x, of one "
            "channel and one time point."
        )
    return array if array.ndim == 3 else array[None]


def check_shape(labels: tuple[int, ...], image: tuple[int, ...], where: str) -> None:
    """Refuse labels of another shape than their image."""
    if labels != image:
        raise VolsamError(
            f"{where} has the shape {_times(labels)} but its image {_times(image)} (z × y × x); "
            "give the image that was labelled, or its part as a region."
        )


def check_objects(truth: NDArray[np.uint32], ignore: NDArray[np.bool_], where: str) -> int:
    """Number of objects that can be learnt from, refusing a crop without any."""
    objects = int(np.count_nonzero(fastremap.unique(truth[~ignore])))
    if not objects:
        raise VolsamError(f"{where} holds no labelled object; label at least one, or leave it out.")
    return objects


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(str(n) for n in shape)
