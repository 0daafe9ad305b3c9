"""Cell Tracking Challenge folders: label images of frames and the table of tracks.

The table has a row L B E P for each track: label, first and last frame, label of the parent or 0. Results
are ``mask000.tif`` … with ``res_track.txt``; truth is ``man_track000.tif`` … with ``man_track.txt`` in
``01_GT/TRA``; computed ("silver") masks ``01_ST/SEG/man_seg000.tif`` carry labels of that truth. Truth of
segmentation is ``01_GT/SEG/man_seg000.tif`` of a whole frame, ``man_seg_000_012.tif`` of slice 12 of one.
Source: celltrackingchallenge.net, "Naming and file content conventions".

Invariants
----------
- One frame is in memory at a time.
- The labels of a frame are exactly the tracks that the table has in it; only silver masks may leave
  tracks out. So a track with a gap is several rows, each the parent of the next.
- The format numbers tracks by 16 bits: 65 535 tracks at most, unless wider images are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from volsam.errors import VolsamError
from volsam.exchange.ctc_table import ctc_tracks, read_table
from volsam.exchange.folder import replace_folder
from volsam.exchange.tracks_table import lineage_of_tracks
from volsam.geometry import Box
from volsam.track.lineage import Floats, Ints, Lineage, Objects
from volsam.volume.source import open_volume

Labels = npt.NDArray[Any]
LabelFrames = Callable[[int], Labels]

LIMIT = 65_535  # tracks of a 16-bit image
_RESULT, _TRUTH, _SILVER = "mask", "man_track", "man_seg"
_SEG = re.compile(rf"{_SILVER}_?(\d{{3,4}})(?:_(\d{{3,4}}))?\.tif", re.IGNORECASE)
_WRITTEN = re.compile(rf"(?:{_RESULT}|{_TRUTH})\d{{3,}}\.tif|(?:res|man)_track\.txt")


@dataclass(frozen=True)
class CtcSequence:
    """A sequence as the challenge sees it: tracks by label, and label images.

    Parameters
    ----------
    name : str
        What errors call it.
    table : (n, 4) int64
        L B E P, sorted by label.
    frames : range
        Frames that have an image.
    read : callable
        Frame to (y, x) or (z, y, x) array of track labels.
    complete : bool
        Whether every track must be seen in each of its frames.
    """

    name: str
    table: Ints
    frames: range
    read: LabelFrames
    complete: bool = True

    @classmethod
    def of(
        cls, lineage: Lineage, label_frames: LabelFrames, frames: int, name: str = "The result"
    ) -> CtcSequence:
        """Tracks of a lineage, gaps split.

        Parameters
        ----------
        lineage : Lineage
        label_frames : callable
            Frame to label array of object ids; objects that the lineage leaves out are left out.
        frames : int
            Frames of the sequence.
        """
        table, labels = ctc_tracks(lineage)
        objects = lineage.objects
        if len(objects) and objects.frame[-1] >= frames:
            raise VolsamError(
                f"{name} has objects in frame {objects.frame[-1]} of {frames}; give all its frames."
            )

        def read(frame: int) -> Labels:
            here = _rows_of(objects, frame)
            return relabel(label_frames(frame), objects.id[here], labels[here])

        return cls(name, table, range(frames), read)

    def check(self, frame: int, labels: Labels) -> Ints:
        """Labels that are in an image, which must be those of the table.

        Raises
        ------
        VolsamError
            If a label is in one and not in the other.
        """
        found = np.unique(labels).astype(np.int64)
        found = found[found != 0]
        active = self.table[(self.table[:, 1] <= frame) & (frame <= self.table[:, 2]), 0]
        if len(strange := np.setdiff1d(found, active)):
            raise VolsamError(
                f"{self.name} has label {strange[0]} in the image of frame {frame}, but no such "
                f"track in its table; add the track or remove the label."
            )
        if self.complete and len(missing := np.setdiff1d(active, found)):
            raise VolsamError(
                f"{self.name} has track {missing[0]} in the table, but no such label in the image of "
                f"frame {frame}; split the track or add the label."
            )
        return found

    def lineage(
        self, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ) -> tuple[Lineage, LabelFrames]:
        """The lineage, with positions and sizes from the images, and images of its object ids.

        Objects are numbered from 1 by frame and label. A track without a label in a frame (silver
        masks) has a gap there, and one without any does not exist.

        Parameters
        ----------
        spacing : (3,) floats
            Edge lengths of a voxel, zyx.

        Raises
        ------
        VolsamError
            If table and images do not fit.
        """
        found, frames, positions, sizes = [], [], [], []
        for frame in self.frames:
            labels = self.read(frame)
            found.append(self.check(frame, labels))
            frames.append(np.full(len(found[-1]), frame))
            position, size = _measure(labels, found[-1])
            positions.append(position * spacing)
            flat = labels.ndim == 2
            sizes.append(size * np.prod(spacing[1:] if flat else spacing))
        track = np.concatenate([*found, np.zeros(0, np.int64)])
        objects = Objects.sort(
            np.arange(1, len(track) + 1),
            np.concatenate([*frames, np.zeros(0, np.int64)]),
            np.concatenate([*positions, np.zeros((0, 3))]),
            np.concatenate([*sizes, np.zeros(0)]),
        )
        lineage = lineage_of_tracks(objects, track, self.table[:, 0], self.table[:, 3])

        def label_frames(frame: int) -> Labels:
            here = _rows_of(objects, frame)
            return relabel(self.read(frame), track[here], objects.id[here])

        return lineage, label_frames


def read_ctc(
    folder: str | Path, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> tuple[Lineage, LabelFrames]:
    """Lineage of a folder, and its label images by object id, read when asked for.

    See `open_ctc` for folders and `CtcSequence.lineage` for the rest.
    """
    return open_ctc(folder).lineage(spacing)


def open_ctc(folder: str | Path) -> CtcSequence:
    """Open results, truth (``01_GT`` or its ``TRA``) or silver masks (``01_ST`` or its ``SEG``).

    Raises
    ------
    VolsamError
        If there is no such sequence, the table is faulty or an image is missing. Whether images fit the
        table is seen when they are read.
    """
    folder = Path(folder)
    place, kind = next(
        (
            (folder / inner, kind)
            for inner, kind in (
                (".", _RESULT), (".", _TRUTH), (".", _SILVER), ("TRA", _TRUTH), ("SEG", _SILVER)
            )
            if any((folder / inner).glob(f"{kind}[0-9]*.tif"))
        ),
        (folder, ""),
    )  # fmt: skip
    if not kind:
        raise VolsamError(
            f"{folder} has no images mask*.tif or man_track*.tif; give a folder of results, or of truth."
        )
    table = place / ("res_track.txt" if kind == _RESULT else "man_track.txt")
    if kind == _SILVER and not table.is_file():
        sequence = place.resolve().parent
        table = sequence.with_name(sequence.name.split("_")[0] + "_GT") / "TRA" / "man_track.txt"
    images = _images(place, kind)
    frames = range(min(images), max(images) + 1)

    def read(frame: int) -> Labels:
        return read_labels(images[frame])

    return CtcSequence(str(place), read_table(table), frames, read, complete=kind != _SILVER)


def write_ctc(
    folder: str | Path,
    lineage: Lineage,
    label_frames: LabelFrames,
    frames: int,
    *,
    wide: bool = False,
    truth: bool = False,
) -> None:
    """Write images of the frames and the table of tracks; the folder appears when it is complete.

    Parameters
    ----------
    folder : path
        Replaced if it holds nothing but such a sequence.
    lineage : Lineage
    label_frames : callable
        Frame to (y, x) or (z, y, x) array of object ids. Objects that are not in the lineage become
        background.
    frames : int
        Frames of the sequence; those without objects are written too.
    wide : bool
        Write 32-bit images if there are more than 65 535 tracks. py-ctcmetrics and traccuracy read
        them, the challenge's own programs do not.
    truth : bool
        Names of truth (``man_track``) rather than of results.

    Raises
    ------
    VolsamError
        If there are more tracks than the format can number, or an object is not in its image.
    """
    folder = Path(folder)
    sequence = CtcSequence.of(lineage, label_frames, frames, str(folder))
    tracks = len(sequence.table)
    if tracks > LIMIT and not wide:
        raise VolsamError(
            f"{folder} cannot hold {tracks} tracks, for its 16-bit images number {LIMIT} at most; "
            f"write wide (32-bit) images, which the challenge's own programs do not read, or use GEFF."
        )
    dtype = np.dtype(np.uint16 if tracks <= LIMIT else np.uint32)
    digits = max(3, len(str(frames - 1)))

    def write(partial: Path) -> None:
        import tifffile

        for frame in sequence.frames:
            labels = sequence.read(frame)
            sequence.check(frame, labels)
            name = f"{_TRUTH if truth else _RESULT}{frame:0{digits}}.tif"
            tifffile.imwrite(
                partial / name,
                labels.astype(dtype),
                compression="zlib",
                photometric="minisblack",
                metadata=None,
            )
        rows = "".join(f"{' '.join(map(str, row))}\n" for row in sequence.table.tolist())
        table = "man_track.txt" if truth else "res_track.txt"
        (partial / table).write_text(rows, encoding="ascii")

    replace_folder(folder, write, is_ctc)


def is_ctc(folder: Path) -> bool:
    """Whether a folder holds nothing but what `write_ctc` writes."""
    return all(_WRITTEN.fullmatch(entry.name) for entry in folder.iterdir())


def relabel(labels: Labels, old: npt.ArrayLike, new: npt.NDArray[Any]) -> Labels:
    """Replace labels; those that are not in `old`, which is sorted, become background."""
    keys = np.concatenate([[0], np.asarray(old, np.uint64)]).astype(np.uint64)
    values = np.concatenate([np.zeros(1, new.dtype), new])
    given = np.asarray(labels).astype(np.uint64)
    place = np.searchsorted(keys, given).clip(max=len(keys) - 1)
    return np.where(keys[place] == given, values[place], values[0])


def _rows_of(objects: Objects, frame: int) -> slice:
    first, last = np.searchsorted(objects.frame, [frame, frame + 1])
    return slice(int(first), int(last))


def _measure(labels: Labels, found: Ints) -> tuple[Floats, Floats]:
    """Centroids (zyx) and sizes in voxels of the labels that are in an image."""
    where = np.nonzero(labels)
    number = np.searchsorted(found, labels[where])
    size = np.bincount(number, minlength=len(found)).astype(np.float64)
    position = np.zeros((len(found), 3))
    for axis, places in enumerate(where, start=3 - labels.ndim):
        position[:, axis] = np.bincount(number, places, minlength=len(found)) / size
    return position, size


def read_labels(path: Path) -> Labels:
    """A label image of one frame, (y, x) or (z, y, x)."""
    volume = open_volume(path, axes="zyx")
    labels = volume.read(Box.of(volume.info.shape))
    if labels.dtype.kind not in "ui" or (labels.dtype.kind == "i" and labels.min(initial=0) < 0):
        raise VolsamError(
            f"{path} holds no labels but {labels.dtype} values; give whole numbers from 0."
        )
    return labels[0] if len(labels) == 1 else labels


class SegMask(NamedTuple):
    """A mask of segmentation truth: its frame as names spell it, and its slice if it is of one."""

    path: Path
    frame: str
    slice: int | None


def seg_masks(folder: Path) -> Iterator[SegMask]:
    """Masks in the ``SEG`` of a folder of truth (``01_GT``, ``01_ST``), in the order of their names."""
    for path in sorted((folder / "SEG").glob("*.tif")):
        if match := _SEG.fullmatch(path.name):
            yield SegMask(path, match[1], int(match[2]) if match[2] else None)


def _images(folder: Path, kind: str) -> dict[int, Path]:
    """Images by frame, none missing between the first and the last."""
    numbered = re.compile(rf"{kind}(\d{{3,}})\.tif")
    images = {
        int(match[1]): path
        for path in sorted(folder.iterdir())
        if (match := numbered.fullmatch(path.name))
    }
    for frame in range(min(images), max(images)):
        if frame not in images:
            raise VolsamError(
                f"{folder} has no image of frame {frame}; copy {kind}{frame:03}.tif there."
            )
    return images
