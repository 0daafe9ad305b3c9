"""(OME-)TIFF stacks and folders of TIFFs.

Invariants
----------
- Uncompressed data are memory-mapped; compressed data are decoded by plane, or by tile where the
  file is tiled.
- Truncation is noticed at opening: every plane's bytes must lie within the file.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from volsam.errors import VolsamError
from volsam.volume.info import METRES, Metadata, Size, unit_name
from volsam.volume.source import Stored

_LARGE_PLANE = 1 << 26  # bytes above which a plane is read by its strips
# What tifffile logs of a damaged file: the chain of pages, or the tags of description and data.
_DAMAGE = re.compile(
    r"invalid (page )?offset|corrupted (page|tag) list|circular|truncated"
    r"|TiffTag (270|273|279|324|325) .*invalid value offset"
)


def open_tiff(path: Path, key: str | None, level: int) -> Stored:
    """Open one series (`key` is its number) and level of a TIFF."""
    import tifffile

    with _complete(path):
        tif = tifffile.TiffFile(path)
        if not tif.series:
            raise VolsamError(f"{path} holds no image; copy it again from its source.")
        number = _series_number(path, key, len(tif.series))
        main = tif.series[number]
        if not 0 <= level < len(main.levels):
            raise VolsamError(
                f"Level {level} of {path} does not exist; it has {len(main.levels)}, "
                f"counted from 0."
            )
        series = main.levels[level]
        _check_planes(path, tif)
        _check_extent(path, series)
    known = _letters(series)
    array, chunks = _array(path, tif, number, level)
    warnings = []
    if len(tif.series) > 1 and key is None:
        warnings.append(
            f"{path} holds {len(tif.series)} images; the first is read, another is chosen by "
            f"its number with key."
        )
    ratio = [a / b for a, b in zip(main.shape, series.shape, strict=True)]
    return Stored(
        array,
        "tiff",
        key,
        axes=known,
        samples="s" in known,
        chunks=chunks,
        sliced=isinstance(array, np.memmap),
        metadata=_metadata(tif, number, dict(zip(known, ratio, strict=True))),
        scale=tuple(ratio) if level else (),
        coarser=tuple(
            tuple(n / m for n, m in zip(series.shape, s.shape, strict=True))
            for s in main.levels[level + 1 :]
        ),
        warnings=tuple(warnings),
    )


def _letters(series: Any) -> str:
    """Axes of a series as this package names them; ``?`` where tifffile only guesses."""
    return "".join(a.lower() if a in "TCZSYX" else "?" for a in series.axes)


def _array(path: Path, tif: Any, number: int, level: int) -> tuple[Any, tuple[int, ...]]:
    """Array of a series' level, and its chunks; compressed data need the file to stay open."""
    import zarr

    series = tif.series[number].levels[level]
    if series.dataoffset is not None:
        dtype = np.dtype(series.dtype).newbyteorder(tif.byteorder)
        array = np.memmap(path, dtype, "r", series.dataoffset, series.shape)
        letters = _letters(series)
        return array, tuple(
            n if a in "yxs" else 1 for a, n in zip(letters, series.shape, strict=True)
        )
    frame = series.keyframe
    by_piece = frame.is_tiled or frame.nbytes > _LARGE_PLANE
    store = tif.series[number].aszarr(level=level, chunkmode=0 if by_piece else 2)
    stored = zarr.open_array(store, mode="r")
    return stored, tuple(stored.chunks)


def open_folder(path: Path, key: str | None, level: int) -> Stored:
    """Open a folder of equal TIFFs, in natural order, as one stack, by default of slices."""
    if key is not None or level:
        raise VolsamError(
            f"{path} is a folder of TIFFs, which has no key or level; leave them out."
        )
    files = sorted((f for f in path.iterdir() if is_tiff_name(f.name)), key=natural_order)
    first = open_tiff(files[0], None, 0)
    stack = FileStack(files, first.array.shape, first.array.dtype)
    inner = first.axes or ""
    leading = "z" if set(inner) <= set("yxsc") else "?"
    return Stored(
        stack,
        "tiff-folder",
        axes=leading + inner,
        samples=first.samples,
        chunks=(1, *first.chunks),
        metadata=Metadata(first.metadata.voxel_size, first.metadata.unit),
    )


class FileStack:
    """Equal TIFFs as one array whose first axis counts the files.

    Every header is read once at opening, so a file that differs is named before anything runs.
    """

    def __init__(self, files: Sequence[Path], shape: tuple[int, ...], dtype: Any) -> None:
        import tifffile

        self.files = tuple(files)
        self.shape = (len(files), *shape)
        self.dtype = np.dtype(dtype)
        for file in self.files:
            with _complete(file), tifffile.TiffFile(file) as tif:
                series = tif.series[0]
                if series.shape != shape or series.dtype != self.dtype.newbyteorder("="):
                    raise VolsamError(
                        f"{file} has shape {series.shape} and type {series.dtype} but "
                        f"{files[0].name} has {shape} and {self.dtype.name}; all TIFFs of a "
                        f"folder must be equal."
                    )
                _check_extent(file, series)

    def __getitem__(self, index: tuple[int | slice, ...]) -> np.ndarray:
        which, rest = index[0], index[1:]
        if isinstance(which, slice):
            blocks = [self._read(i, rest) for i in range(*which.indices(len(self.files)))]
            return np.stack(blocks)
        return self._read(which, rest)

    def _read(self, number: int, index: tuple[int | slice, ...]) -> np.ndarray:
        import tifffile

        # Closed at once: a folder may have more files than a process may open.
        with tifffile.TiffFile(self.files[number]) as tif:
            return np.array(_array(self.files[number], tif, 0, 0)[0][index])


def is_tiff_name(name: str) -> bool:
    """Whether a file of a folder is one of its TIFFs; hidden files are not."""
    return name.lower().endswith((".tif", ".tiff")) and not name.startswith(".")


def natural_order(path: Path) -> list[tuple[int, int | str]]:
    """Sort key by which ``a2`` comes before ``a10``."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(p)) if p.isdecimal() else (1, p) for p in parts if p]


@contextmanager
def _complete(path: Path) -> Iterator[None]:
    """Turn what tifffile raises or logs of a damaged file into one sentence."""
    import tifffile

    faults: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            faults.append(record.getMessage())

    logger = logging.getLogger("tifffile")
    handler = Collector(logging.WARNING)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    advice = "it is probably truncated, copy it again from its source"
    try:
        yield
    except (VolsamError, MemoryError):
        raise
    except (tifffile.TiffFileError, OSError, ValueError, IndexError, KeyError, TypeError) as error:
        raise VolsamError(
            f"{path} cannot be opened as TIFF ({' '.join(str(error).split())}); {advice}."
        ) from None
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
    damage = next((f for f in faults if _DAMAGE.search(f)), None)
    if damage:
        detail = re.sub(r"<[^>]*>\s*", "", " ".join(damage.split()))
        raise VolsamError(f"{path} is damaged ({detail}); {advice}.")


def _check_planes(path: Path, tif: Any) -> None:
    """ImageJ says how many planes there are; of a truncated file tifffile finds fewer."""
    if not tif.is_imagej or tif.series[0].kind == "imagej":
        return
    promised = int((tif.imagej_metadata or {}).get("images", 1))
    if promised > len(tif.pages):
        raise VolsamError(
            f"{path} holds {len(tif.pages)} of the {promised} planes that ImageJ wrote into its "
            f"metadata; copy it again from its source, or save it anew."
        )


def _check_extent(path: Path, series: Any) -> None:
    """Every plane must be there and its bytes within the file."""
    expected = math.prod(series.get_shape(False)) // math.prod(series.keyframe.shape)
    pages = list(series.pages)
    if len(pages) < expected and series.dataoffset is None:
        raise VolsamError(
            f"{path} holds {len(pages)} of the {expected} planes its metadata promise; "
            f"it is probably truncated, copy it again from its source."
        )
    if series.dataoffset is not None:
        ends = {series.pages[0].parent.filehandle: series.dataoffset + series.nbytes}
    else:
        ends = {}
        for page in pages:
            if page is None:
                raise VolsamError(
                    f"{path} lacks planes its metadata promise; copy it, or the files it refers "
                    f"to, again from the source."
                )
            handle = page.parent.filehandle
            last = max(
                (o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False)),
                default=0,
            )
            ends[handle] = max(ends.get(handle, 0), last)
    for handle, end in ends.items():
        if end > handle.size:
            raise VolsamError(
                f"{path} is truncated: its image data end at byte {end} but the file has "
                f"{handle.size}; copy it again from its source."
            )


def _series_number(path: Path, key: str | None, count: int) -> int:
    if key is None:
        return 0
    if not key.isdecimal() or int(key) >= count:
        raise VolsamError(
            f"key {key!r} of {path} must be the number of one of its {count} images, "
            f"counted from 0."
        )
    return int(key)


def _metadata(tif: Any, series: int, ratio: dict[str, float]) -> Metadata:
    """Voxel size and channel names from OME-XML or ImageJ and TIFF tags, scaled by level."""
    if tif.is_ome:
        metadata = _ome_metadata(tif.ome_metadata, series)
    elif tif.is_imagej:
        metadata = _imagej_metadata(tif)
    else:
        metadata = Metadata()
    if metadata.voxel_size is not None:
        size = metadata.voxel_size
        z, y, x = (v * ratio.get(a, 1.0) for v, a in zip(size, "zyx", strict=True))
        metadata = Metadata((z, y, x), metadata.unit, channel_names=metadata.channel_names)
    return metadata


def _ome_metadata(xml: str | None, series: int) -> Metadata:
    """PhysicalSize and channel names of an image in OME-XML."""
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(xml or "")
    except ElementTree.ParseError:
        return Metadata()
    pixels = root.findall(".//{*}Image/{*}Pixels")
    if series >= len(pixels):
        return Metadata()
    node = pixels[series]
    names = tuple(c.get("Name", str(i)) for i, c in enumerate(node.findall("{*}Channel")))
    size: list[float] = []
    units: list[str] = []
    for axis in "ZYX":
        value = node.get(f"PhysicalSize{axis}")
        if value is None and axis == "Z" and int(node.get("SizeZ", "1")) == 1:
            size.append(1.0)
            continue
        if value is None or not 0 < float(value) < math.inf:
            return Metadata(channel_names=names)
        unit = unit_name(node.get(f"PhysicalSize{axis}Unit", "µm"))
        size.append(float(value))
        units.append(unit)
    # One unit for all axes: that of x.
    unit = units[-1]
    flat = len(units) < 3
    for i, own in enumerate(units):
        if own in METRES and unit in METRES:
            size[i + flat] *= METRES[own] / METRES[unit]
    return Metadata((size[0], size[1], size[2]), unit, channel_names=names)


def _imagej_metadata(tif: Any) -> Metadata:
    """ImageJ's ``spacing`` and ``unit`` with the resolution tags (pixels per unit)."""
    info = tif.imagej_metadata or {}
    unit = info.get("unit")
    tags = tif.pages[0].tags
    if not unit or str(unit).lower() in ("pixel", "pixels") or "XResolution" not in tags:
        return Metadata()
    edges: list[float] = []
    for name in ("YResolution", "XResolution"):
        count, per = tags[name].value if name in tags else (0, 1)
        if not count or not per:
            return Metadata()
        edges.append(per / count)
    slices = int(info.get("slices", 1))
    spacing = info.get("spacing", None if slices > 1 else 1.0)
    if spacing is None or not 0 < float(spacing) < math.inf:
        return Metadata()
    size: Size = (float(spacing), edges[0], edges[1])
    return Metadata(size, unit_name(str(unit)))
