"""TrackMate XML: lineages for Fiji.

A spot is an object. Its ID counts from 1 in the order of frame and object id, for TrackMate's are 32 bits
wide, and its name is the object id. A track is a family: all that divisions connect. A lone object is a
spot without a track, as TrackMate has it. Source: TrackMate 7 and 8, `io.TmXmlReader`, which opens no
file without settings and filters; those written here are manual, and let everything through.

Invariants
----------
- The file is written and read as a stream: memory holds the lineage, not the document.
- A file that declares a document type (entities, other files) is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt

from volsam.errors import VolsamError
from volsam.paths import replace
from volsam.track.lineage import Floats, Lineage, Objects, find_rows

VERSION = "7.11.1"  # of TrackMate, whose form this is
_SPOT = """\
QUALITY Quality QUALITY false
POSITION_X X POSITION false
POSITION_Y Y POSITION false
POSITION_Z Z POSITION false
POSITION_T T TIME false
FRAME Frame NONE true
RADIUS R LENGTH false
VISIBILITY Visibility NONE true"""
_EDGE = """\
SPOT_SOURCE_ID Source_ID NONE true
SPOT_TARGET_ID Target_ID NONE true"""
_TRACK = """\
TRACK_INDEX Index NONE true
TRACK_ID ID NONE true
NUMBER_SPOTS N_spots NONE true"""


def write_trackmate(
    path: str | Path,
    lineage: Lineage,
    *,
    shape: Sequence[int],
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    unit: str = "pixel",
    interval: float = 1.0,
    time_unit: str = "frame",
    image: str | Path | None = None,
) -> None:
    """Write a lineage; the file appears when it is complete.

    Parameters
    ----------
    path : path
        XML file.
    lineage : Lineage
        Positions in `unit`.
    shape : (4,) ints
        Frames, z, y, x of the image; with one slice, sizes are areas.
    spacing : (3,) floats
        Edge lengths of a voxel, zyx, in `unit`.
    interval : float
        Time between frames in `time_unit`.
    image : path, optional
        Image that TrackMate opens with the tracks.

    Raises
    ------
    VolsamError
        If there are objects beyond the last frame.
    """
    if len(lineage.objects) and (last := lineage.objects.frame[-1]) >= shape[0]:
        raise VolsamError(f"{path} has objects in frame {last} of {shape[0]}; give all its frames.")

    def write(partial: Path) -> None:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.write('<?xml version="1.0" encoding="UTF-8"?>\n')
            file.write(f'<TrackMate version="{VERSION}">\n')
            file.write(f"<Model spatialunits={quoteattr(unit)} timeunits={quoteattr(time_unit)}>\n")
            file.writelines(_declarations())
            file.writelines(_spots(lineage.objects, shape, interval))
            file.writelines(_tracks(lineage))
            file.write("</Model>\n")
            file.writelines(_settings(shape, spacing, interval, image))
            file.write('<GUIState state="ConfigureViews"/>\n</TrackMate>\n')

    replace(Path(path), write)


def read_trackmate(path: str | Path) -> Lineage:
    """Read a lineage from a file of TrackMate or of ours; sizes come from the radii.

    Raises
    ------
    VolsamError
        If it is not such a file, or its tracks merge.
    """
    reader = _Reader(Path(path))
    numbers = np.asarray(reader.numbers, np.int64)
    links = np.asarray(reader.links, np.int64).reshape(-1, 2)
    rows, known = find_rows(numbers, links)
    if not known.all():
        raise VolsamError(f"{path} has a link of a spot that is not there; export it again.")
    frame = np.asarray(reader.frames, np.int64)
    backwards = frame[rows[:, 0]] > frame[rows[:, 1]]  # links of TrackMate have no direction
    rows[backwards] = rows[backwards, ::-1]
    radius = np.asarray(reader.radii, np.float64)
    size = np.pi * radius**2 if reader.slices == 1 else 4 / 3 * np.pi * radius**3
    ids = _ids(reader.names, numbers)
    objects = Objects.sort(ids, frame, np.asarray(reader.positions).reshape(-1, 3), size)
    return Lineage.of(objects, ids[rows])


def _declarations() -> Iterator[str]:
    yield "<FeatureDeclarations>\n"
    for kind, features in (("Spot", _SPOT), ("Edge", _EDGE), ("Track", _TRACK)):
        yield f"<{kind}Features>\n"
        for line in features.splitlines():
            key, name, dimension, whole = line.split()
            yield (
                f'<Feature feature="{key}" name="{name}" shortname="{name}" '
                f'dimension="{dimension}" isint="{whole}"/>\n'
            )
        yield f"</{kind}Features>\n"
    yield "</FeatureDeclarations>\n"


def _spots(objects: Objects, shape: Sequence[int], interval: float) -> Iterator[str]:
    radius = _radius(objects.size, flat=shape[1] == 1)
    borders = np.searchsorted(objects.frame, np.arange(shape[0] + 1))
    yield f'<AllSpots nspots="{len(objects)}">\n'
    for frame in range(shape[0]):
        yield f'<SpotsInFrame frame="{frame}">\n'
        for row in range(borders[frame], borders[frame + 1]):
            z, y, x = objects.position[row].tolist()
            yield (
                f'<Spot ID="{row + 1}" name="{objects.id[row]}" QUALITY="1.0" '
                f'POSITION_T="{frame * interval}" FRAME="{frame}" '
                f'RADIUS="{radius[row]}" VISIBILITY="1" '
                f'POSITION_X="{x}" POSITION_Y="{y}" POSITION_Z="{z}"/>\n'
            )
        yield "</SpotsInFrame>\n"
    yield "</AllSpots>\n"


def _tracks(lineage: Lineage) -> Iterator[str]:
    """One track for each family of two objects or more, with its links."""
    rows = lineage.objects.rows(lineage.links())
    family = lineage.family()[lineage.track - 1]
    spots = np.bincount(family, minlength=len(lineage) + 1)
    order = np.argsort(family[rows[:, 1]], kind="stable")
    rows = rows[order]
    families, starts = np.unique(family[rows[:, 1]], return_index=True)
    ends = np.append(starts, len(rows))[1:]
    yield "<AllTracks>\n"
    for index, (number, start, end) in enumerate(zip(families, starts, ends, strict=True)):
        yield (
            f'<Track name="Track_{number}" TRACK_INDEX="{index}" TRACK_ID="{number}" '
            f'NUMBER_SPOTS="{spots[number]}">\n'
        )
        for source, target in (rows[start:end] + 1).tolist():
            yield f'<Edge SPOT_SOURCE_ID="{source}" SPOT_TARGET_ID="{target}"/>\n'
        yield "</Track>\n"
    yield "</AllTracks>\n<FilteredTracks>\n"
    for number in families:
        yield f'<TrackID TRACK_ID="{number}"/>\n'
    yield "</FilteredTracks>\n"


def _settings(
    shape: Sequence[int], spacing: Sequence[float], interval: float, image: str | Path | None
) -> Iterator[str]:
    frames, depth, height, width = shape
    dz, dy, dx = map(float, spacing)
    place = Path(image) if image else None
    name, folder = (place.name, str(place.parent)) if place else ("", "")
    yield (
        "<Settings>\n"
        f"<ImageData filename={quoteattr(name)} folder={quoteattr(folder)} "
        f'width="{width}" height="{height}" nslices="{depth}" nframes="{frames}" '
        f'pixelwidth="{dx}" pixelheight="{dy}" voxeldepth="{dz}" timeinterval="{interval}"/>\n'
        f'<BasicSettings xstart="0" xend="{width - 1}" ystart="0" yend="{height - 1}" '
        f'zstart="0" zend="{depth - 1}" tstart="0" tend="{frames - 1}"/>\n'
        '<DetectorSettings DETECTOR_NAME="MANUAL_DETECTOR" RADIUS="5.0"/>\n'
        '<InitialSpotFilter feature="QUALITY" value="0.0" isabove="true"/>\n'
        "<SpotFilterCollection/>\n"
        '<TrackerSettings TRACKER_NAME="MANUAL_TRACKER"/>\n'
        "<TrackFilterCollection/>\n"
        "<AnalyzerCollection><SpotAnalyzers/><EdgeAnalyzers/><TrackAnalyzers/></AnalyzerCollection>\n"
        "</Settings>\n"
    )


def _radius(size: Floats, flat: bool) -> Floats:
    """Radius of the disc or ball of that size."""
    radius: Floats = np.sqrt(size / np.pi) if flat else np.cbrt(size * 3 / (4 * np.pi))
    return radius


def _ids(names: list[str], numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Object ids: the names, where they are that; else the IDs, counted from 1."""
    if all(name.isdecimal() and 0 < int(name) < 2**64 for name in names):
        ids = np.asarray([int(name) for name in names], np.uint64)
        if len(np.unique(ids)) == len(ids):
            return ids
    return (numbers - numbers.min(initial=1) + 1).astype(np.uint64)


class _Reader:
    """What is kept of a document: numbers, names and features of spots, and links."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.numbers: list[int] = []
        self.names: list[str] = []
        self.frames: list[int] = []
        self.positions: list[tuple[float, float, float]] = []
        self.radii: list[float] = []
        self.links: list[tuple[int, int]] = []
        self.slices = 1
        self._root = ""
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        try:
            with path.open("rb") as file:
                parser.ParseFile(file)
        except (OSError, expat.ExpatError, KeyError, ValueError) as error:
            raise VolsamError(f"{path} is no TrackMate file ({error}); export it again.") from error

    def _refuse(self, *declared: Any) -> None:
        raise VolsamError(
            f"{self.path} declares a document type, which TrackMate never does; it is not read."
        )

    def _start(self, name: str, values: dict[str, str]) -> None:
        if not self._root and name != "TrackMate":
            raise ValueError(f"it begins with {name}")
        self._root = self._root or name
        if name == "Spot":
            self.numbers.append(int(values["ID"]))
            self.names.append(values.get("name", ""))
            self.frames.append(round(float(values["FRAME"])))
            z, y, x = (float(values[f"POSITION_{axis}"]) for axis in "ZYX")
            self.positions.append((z, y, x))
            self.radii.append(float(values["RADIUS"]))
        elif name == "Edge":
            self.links.append((int(values["SPOT_SOURCE_ID"]), int(values["SPOT_TARGET_ID"])))
        elif name == "ImageData":
            self.slices = int(values["nslices"])
