"""Training targets of AIS: foreground and two distances per object.

The definition is torch_em's ``PerObjectDistanceTransform`` (used by micro-sam), computed for all
objects at once. Both distances are normalised per object to 0..1, and are 1 in the background:

* centre distance: Euclidean distance to the object's centre pixel, over its maximum;
* boundary distance: one minus the distance to the object's inner boundary over its maximum, so it
  is 0 at the most inner pixel and 1 at the border.

One difference: the centre of a thin curved object, all of it border and its centroid outside, is a
pixel of the object here, where torch_em takes the corner of its bounding box.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label
from skimage.segmentation import find_boundaries

EPSILON = 1e-7


def distance_targets(labels: NDArray[np.integer], min_size: int = 0) -> NDArray[np.float32]:
    """Compute foreground, centre distance and boundary distance of a label image.

    Parameters
    ----------
    labels : (h, w) integer array
        Instances, 0 is background. Pieces of an instance that do not touch are separate objects.
    min_size : int
        Objects with fewer pixels become background.

    Returns
    -------
    (3, h, w) float32 array
        Foreground (1 inside), centre distance, boundary distance, all in 0..1.
    """
    objects = label(labels, connectivity=labels.ndim)
    if min_size > 0:
        small = np.bincount(objects.ravel()) < min_size
        small[0] = False
        if small.any():
            objects = label(np.where(small[objects], 0, objects), connectivity=labels.ndim)
    targets = np.ones((3, *labels.shape), np.float32)
    targets[0] = objects > 0
    inside = np.nonzero(objects)
    if not inside[0].size:
        return targets
    ids = objects[inside] - 1
    depth = _depth(objects)[inside]
    deepest = _first_maximum(depth, ids)

    counts = np.bincount(ids)
    centers = np.stack(
        [np.round(np.bincount(ids, axis) / counts).astype(int) for axis in inside], axis=1
    )
    # A centroid outside of its object gives way to the first of the most inner pixels.
    outside = objects[tuple(centers.T)] != np.arange(1, len(centers) + 1)
    centers[outside] = np.stack([axis[deepest[outside]] for axis in inside], axis=1)

    offsets = [axis - centers[ids, number] for number, axis in enumerate(inside)]
    center = np.sqrt(np.sum(np.square(offsets), axis=0, dtype=np.float64))
    boundary = depth[deepest][ids] - depth
    for channel, distance in enumerate((center, boundary), start=1):
        largest = np.zeros(len(counts))
        np.maximum.at(largest, ids, distance)
        targets[channel][inside] = distance / (largest[ids] + EPSILON)
    return targets


def _depth(objects: NDArray[np.integer]) -> NDArray[np.float64]:
    """Distance of every pixel to the nearest inner boundary of an object."""
    boundaries = find_boundaries(objects, mode="inner")
    if not boundaries.any():  # one object fills the image: no boundary to measure from
        return np.zeros(objects.shape)
    return ndimage.distance_transform_edt(~boundaries)


def _first_maximum(values: NDArray[np.float64], ids: NDArray[np.integer]) -> NDArray[np.intp]:
    """Index of the first largest value of each id, for ids 0..n-1 that all occur."""
    order = np.lexsort((np.arange(len(ids)), -values, ids))
    return order[np.searchsorted(ids[order], np.arange(ids.max() + 1))]
