"""Any order of the axes t, c, z, y, x is read as channel, z, y, x of one time point.

Invariants
----------
- `Axes` maps a box (zyx) and a channel range to one index of the stored array, and the array so
  read to (c, z, y, x) by transposition: no voxel outside the box is asked for.
- Axes that the array does not have are of size 1. ``s`` (colour samples) is ``c``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.volume.info import ZYX

LETTERS = "tczyx"
_FEW = 4  # an axis this short is more likely channels than a plane's edge
_MANY = 16


@dataclass(frozen=True)
class Axes:
    """Order of the axes of a stored array: letters of ``tczyx``, each once, y and x among them."""

    letters: str
    shape: tuple[int, ...]

    def size(self, letter: str) -> int:
        """Extent of an axis, 1 where the array has none."""
        return self.shape[self.letters.index(letter)] if letter in self.letters else 1

    @property
    def zyx(self) -> ZYX:
        """Shape of the volume."""
        return self.size("z"), self.size("y"), self.size("x")

    def spatial(self, values: Sequence[Any], missing: Any) -> tuple[Any, Any, Any]:
        """Pick the z, y and x entries of a sequence given in array order."""
        z, y, x = (values[self.letters.index(a)] if a in self.letters else missing for a in "zyx")
        return z, y, x

    def index(self, timepoint: int, channels: slice, box: Box) -> tuple[int | slice, ...]:
        """Index of the stored array for a box (zyx) of some channels."""
        by_letter: dict[str, int | slice] = {"t": timepoint, "c": channels}
        by_letter |= dict(zip("zyx", box.slices, strict=True))
        return tuple(by_letter[a] for a in self.letters)

    def arrange(self, block: np.ndarray) -> np.ndarray:
        """Bring what `index` selected into the order c, z, y, x."""
        kept = [a for a in self.letters if a != "t"]
        present = [a for a in "czyx" if a in kept]
        block = block.transpose([kept.index(a) for a in present])
        return np.expand_dims(block, tuple(i for i, a in enumerate("czyx") if a not in kept))


def settle_axes(
    path: str,
    shape: Sequence[int],
    stated: str | None,
    known: str | None,
    *,
    strict: bool = False,
    samples: bool = False,
) -> tuple[Axes, list[str]]:
    """Decide the order of the axes from what is stated and what the file says.

    Parameters
    ----------
    path : str
        For the messages.
    shape : sequence of int
        Of the stored array.
    stated : str or None
        From the user.
    known : str or None
        From the metadata, with ``?`` for axes they do not name; None if there are none.
    strict : bool
        The metadata cannot be wrong (OME-Zarr): a contradiction is refused. Otherwise what is
        stated wins with a warning, except that channels are never taken for slices.
    samples : bool
        The axis that `known` calls ``c`` or ``s`` holds the samples of a pixel (colour). Samples that
        lie in planes may be stated otherwise: tifffile, and what saves by it, writes so every stack of
        3 or 4 slices.

    Returns
    -------
    axes, warnings
    """
    shape = tuple(int(n) for n in shape)
    warnings: list[str] = []
    letters = None if stated is None else _checked_letters(path, stated)
    planar = samples and known is not None and 0 <= known.find("s") < known.find("y")
    named = None if known is None or "?" in known else known.replace("s", "c")
    if letters is None:
        if named is None:
            if len(shape) != 2:
                raise VolsamError(
                    f"The order of the axes of {path} (shape {_times(shape)}) is not in its "
                    f"metadata; state axes, for example {_example(len(shape))}."
                )
            named = "yx"
        letters = _checked_letters(path, named)
    elif named is not None and letters != named:
        letters, warnings = _against_metadata(path, shape, letters, named, strict, samples, planar)
    elif known is not None and not planar:
        for theirs, ours in zip(known, letters, strict=False):
            if len(known) == len(letters) and theirs in "cs" and ours != "c":
                raise _channels_as(path, shape, ours, known, samples)
    if len(letters) != len(shape):
        raise VolsamError(
            f"Axes {letters!r} name {len(letters)} axes but {path} has {len(shape)} "
            f"(shape {_times(shape)}); state one letter of t, c, z, y, x for each."
        )
    axes = Axes(letters, shape)
    for letter, n in zip(letters, shape, strict=True):
        if n == 0:
            raise VolsamError(f"Axis {letter} of {path} has size 0; there is nothing to segment.")
    if known is None:
        for ours, other in (("x", "y"), ("y", "x")):
            if axes.size(ours) <= _FEW and axes.size(other) >= _MANY and axes.zyx[0] >= _MANY:
                raise VolsamError(
                    f"Axis {ours} of {path} has only {axes.size(ours)} pixels in shape "
                    f"{_times(shape)}, which looks like channels; call that axis c in axes."
                )
    return axes, warnings


def _against_metadata(
    path: str,
    shape: tuple[int, ...],
    letters: str,
    named: str,
    strict: bool,
    samples: bool,
    planar: bool,
) -> tuple[str, list[str]]:
    """Axes stated otherwise than in the metadata; see `settle_axes`."""
    sizes = dict(zip(named, shape, strict=True))
    # Axes of size 1 may be stated though the file drops them, and left out though it has them.
    without = "".join(a for a in named if a in letters)
    if all(sizes[a] == 1 for a in named if a not in letters) and without == "".join(
        a for a in letters if a in named
    ):
        return named, []
    if not strict and letters == named.replace("z", "t"):
        return letters, []  # files seldom tell frames from slices
    if strict:
        raise VolsamError(
            f"Axes {letters!r} contradict the metadata of {path}, which say {named!r}; leave axes "
            f"out, or name the array itself with key to read it as a plain Zarr array."
        )
    if len(letters) != len(shape):
        raise VolsamError(
            f"Axes {letters!r} do not fit {path}, whose metadata say {named!r} "
            f"(shape {_times(shape)}); leave axes out or state {len(shape)} letters."
        )
    for theirs, ours, n in zip(named, letters, shape, strict=True):
        if theirs == "c" and ours != "c" and (samples or n <= _FEW) and not planar:
            raise _channels_as(path, shape, ours, named, samples)
    index = named.find("c")
    if planar and letters[index] != "c":
        return letters, [
            f"The {shape[index]} planes of colour samples of {path} are read as axis {letters[index]}."
        ]
    return letters, [
        f"The stated axes {letters!r} of {path} contradict its metadata, {named!r}; "
        f"the stated ones are used."
    ]


def _channels_as(
    path: str, shape: tuple[int, ...], ours: str, named: str, samples: bool
) -> VolsamError:
    index = max(named.find("c"), named.find("s"))
    kind = "colour samples" if samples or "s" in named else "channels"
    return VolsamError(
        f"Axes call an axis of {path} {ours}, but by its metadata that axis holds "
        f"{shape[index]} {kind} (shape {_times(shape)}); call it c, or leave axes out."
    )


def _checked_letters(path: str, axes: str) -> str:
    letters = axes.lower().replace("s", "c")
    wrong = sorted(set(letters) - set(LETTERS))
    if wrong or len(set(letters)) != len(letters) or not {"y", "x"} <= set(letters):
        raise VolsamError(
            f"Axes {axes!r} of {path} are not understood; use y, x and any of t, c, z, each once."
        )
    return letters


def _example(ndim: int) -> str:
    return {3: "zyx", 4: "czyx", 5: "tczyx"}.get(ndim, "an order of at most five of t, c, z, y, x")


def _times(shape: Sequence[int]) -> str:
    return " × ".join(str(n) for n in shape)
