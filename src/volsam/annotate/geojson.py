"""QuPath GeoJSON: polygons in pixel coordinates become labels.

A pixel belongs to an object if its centre lies inside: pixel (row, column) covers the square from
(column, row) to (column + 1, row + 1), so objects drawn along pixel borders come back exactly.

Classes whose name ends in ``*`` are no objects, as in QuPath: ``Region*`` is an area in which everything
is labelled, so that the rest of it is background; any other, ``Ignore*`` above all, is unknown.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon

from volsam.annotate.checks import mask_of
from volsam.annotate.pictures import Crop, Settings, picture_of, signed
from volsam.errors import VolsamError
from volsam.geometry import Box

_NO_OBJECTS = ("tile", "tmaCore", "root")
_AREAS = ("Polygon", "MultiPolygon")


@dataclass(frozen=True)
class Shape:
    """One drawn object.

    Attributes
    ----------
    rings : list of list of float (n, 2)
        Polygons, each its outline and its holes, as (x, y).
    z, t : int
        Plane.
    class_ : str
        Name of its class, or "".
    """

    rings: list[list[NDArray[np.float64]]]
    z: int
    t: int
    class_: str

    @property
    def is_object(self) -> bool:
        """Whether it is something to learn."""
        return not self.class_.endswith("*")

    @property
    def is_region(self) -> bool:
        """Whether it is an area in which everything is labelled."""
        return self.class_ == "Region*"

    def touches(self, shape: Sequence[int]) -> bool:
        """Whether its bounding box overlaps an image of a shape (z, y, x)."""
        corners = np.concatenate([outline for outline, *_ in self.rings])
        inside = (corners.min(axis=0) < shape[:0:-1]) & (corners.max(axis=0) > 0)
        return self.z < shape[0] and bool(inside.all())


def read_geojson(path: Path, settings: Settings) -> Crop:
    """Labels drawn in QuPath on the image of the settings."""
    if settings.meaning.ignore_label is not None or settings.meaning.background_label is not None:
        raise VolsamError(
            f"{path} has no label values; mark what is unknown by the class Ignore*, and what is "
            "completely labelled by Region*."
        )
    picture = picture_of(path, settings)
    shapes, skipped = read_shapes(path)
    timepoint = settings.reading.get("timepoint") or 0
    shapes = [shape for shape in shapes if shape.t == timepoint]
    outside = _check_inside(shapes, picture.shape, path)
    labels, unknown, known, hidden = rasterise(shapes, picture.box)
    complete = np.full(labels.shape, settings.meaning.complete)
    ignore = mask_of(unknown, (labels == 0) & ~known & ~complete)
    warnings = []
    if outside:
        warnings.append(
            f"{outside} objects of {path} lie outside of the image and are left out; check that they "
            "were drawn on it, at full resolution."
        )
    if skipped:
        warnings.append(f"{skipped} objects of {path} are no polygons and are left out.")
    if hidden:
        warnings.append(
            f"{hidden} pixels of {path} lie in several objects; each went to the last of them."
        )
    image, provenance = picture.read()
    return Crop(image, labels, ignore, signed(provenance, settings, "qupath"), tuple(warnings))


def read_shapes(path: Path) -> tuple[list[Shape], int]:
    """Polygons of a file, in its order, and the number of objects that are none.

    Raises
    ------
    VolsamError
        If the file is no GeoJSON.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        features = list(_features(json.loads(data)))
        shapes = [_shape(f) for f in features if _is_area(f)]
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VolsamError(
            f"{path} is no GeoJSON of features with polygons ({type(error).__name__}: {error}); "
            "export it from QuPath again."
        ) from None
    return shapes, len(features) - len(shapes)


def _check_inside(shapes: Sequence[Shape], shape: Sequence[int], path: Path) -> int:
    """Number of objects that lie beyond the image; refused where none lies within."""
    objects = [one for one in shapes if one.is_object]
    outside = sum(not one.touches(shape) for one in objects)
    if objects and outside == len(objects):
        height, width = shape[1:]
        raise VolsamError(
            f"All {outside} objects of {path} lie outside of the image of {shape[0]} slices of {height} "
            f"x {width} pixels; give the image they were drawn on, at full resolution."
        )
    return outside


def rasterise(
    shapes: Sequence[Shape], box: Box
) -> tuple[NDArray[np.uint32], NDArray[np.bool_], NDArray[np.bool_], int]:
    """Draw shapes into a box.

    Parameters
    ----------
    shapes : sequence of Shape
    box : Box
        zyx, pixels of the image they were drawn on.

    Returns
    -------
    labels : uint32 (z, y, x)
        Objects, numbered from 1 in their order; of overlapping ones the last wins.
    unknown, known : bool (z, y, x)
        Where a class says that nothing, or everything, is labelled.
    hidden : int
        Pixels that lie in several objects.
    """
    labels = np.zeros(box.shape, np.uint32)
    unknown, known = np.zeros((2, *box.shape), np.bool_)
    hidden = number = 0
    origin = np.array(box.start[:0:-1], np.float64)
    for shape in shapes:
        number += shape.is_object
        z = shape.z - box.start[0]
        if not 0 <= z < box.shape[0]:
            continue
        for rings in shape.rings:
            rows, columns = _inside(rings, origin, box.shape[1:])
            if shape.is_object:
                hidden += int(np.count_nonzero(labels[z, rows, columns]))
                labels[z, rows, columns] = number
            else:
                (known if shape.is_region else unknown)[z, rows, columns] = True
    return labels, unknown, known, hidden


def _inside(
    rings: list[NDArray[np.float64]], origin: NDArray[np.float64], shape: Sequence[int]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pixels of a polygon without its holes."""
    # skimage has pixel centres at whole numbers.
    outline, *holes = (ring - origin - 0.5 for ring in rings)
    rows, columns = polygon(outline[:, 1], outline[:, 0], tuple(shape))
    if holes and rows.size:
        empty = np.zeros(tuple(shape), np.bool_)
        for hole in holes:
            empty[polygon(hole[:, 1], hole[:, 0], tuple(shape))] = True
        keep = ~empty[rows, columns]
        rows, columns = rows[keep], columns[keep]
    return rows, columns


def _features(data: Any) -> Iterator[dict[str, Any]]:
    """Features of a collection, a list, or a single one, each before those inside it."""
    if isinstance(data, dict) and data.get("type") == "FeatureCollection":
        data = data["features"]
    for feature in data if isinstance(data, list) else [data]:
        if feature["type"] != "Feature":
            raise ValueError(f"a {feature['type']} where a Feature is expected")
        properties = feature.get("properties") or {}
        kind = properties.get("objectType") or properties.get("object_type")
        if kind not in _NO_OBJECTS:
            yield feature
        yield from _features(properties.get("childObjects") or properties.get("children") or [])


def _is_area(feature: dict[str, Any]) -> bool:
    return (feature.get("geometry") or {}).get("type") in _AREAS


def _shape(feature: dict[str, Any]) -> Shape:
    geometry = feature["geometry"]
    parts = geometry["coordinates"]
    if geometry["type"] == "Polygon":
        parts = [parts]
    rings = [[_ring(ring) for ring in part] for part in parts]
    if geometry.get("isEllipse"):
        rings = [[_ellipse(part[0])] for part in rings]
    plane = geometry.get("plane") or {}
    z, t = (max(0, int(plane.get(axis, 0))) for axis in "zt")
    return Shape(rings, z, t, _class(feature))


def _ring(points: Any) -> NDArray[np.float64]:
    ring = np.asarray(points, np.float64)[:, :2]
    if len(ring) < 3 or not np.isfinite(ring).all():
        raise ValueError("a ring of fewer than three points, or of no numbers")
    return ring


def _ellipse(box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Outline of an ellipse that is given by its bounding box."""
    low, high = box.min(axis=0), box.max(axis=0)
    angle = np.linspace(0, 2 * np.pi, 256, endpoint=False)
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (low + high) / 2 + (high - low) / 2 * unit


def _class(feature: dict[str, Any]) -> str:
    found = (feature.get("properties") or {}).get("classification")
    if isinstance(found, dict):
        found = found.get("name") or ": ".join(found.get("names") or [])
    return str(found or "").split(": ")[-1]
