"""The classical baseline every result is shown beside: Otsu and a distance watershed.

Gaussian smoothing, Otsu's threshold, Euclidean distance to the background in physical units, peaks
of the smoothed distance as markers, watershed on its negative. Works on 2D and 3D images alike.
`tuned_watershed` picks the best of a small grid *by the truth*: what an expert with that truth
in hand would reach, so a comparison with it is fair to the baseline and never to us.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.filters import threshold_local, threshold_otsu
from skimage.morphology import remove_small_objects
from skimage.segmentation import watershed

from volsam.evaluate.contingency import Contingency
from volsam.evaluate.metrics import score


@dataclass(frozen=True)
class WatershedParameters:
    """Settings of the baseline; lengths in units of the finest voxel edge ("pixels").

    Attributes
    ----------
    smoothing : float
        Sigma of the Gaussian on the image.
    min_distance : float
        Least distance of two markers.
    distance_smoothing : float
        Sigma of the Gaussian on the distance map.
    local_window : int
        Edge of the window of a local (per slice) mean threshold that must be passed beside Otsu's;
        0 leaves it out.
    min_size : int
        Objects of fewer voxels are dropped.
    """

    smoothing: float = 1.0
    min_distance: float = 8.0
    distance_smoothing: float = 1.0
    local_window: int = 0
    min_size: int = 30


def otsu_watershed(
    image: NDArray[Any],
    voxel_size: Sequence[float] | None = None,
    parameters: WatershedParameters = WatershedParameters(),
) -> NDArray[np.int32]:
    """Segment bright blobs by Otsu's threshold and a distance watershed.

    Parameters
    ----------
    image : array, 2D or 3D
        Intensities, bright objects.
    voxel_size : sequence of float, optional
        Physical edge lengths, one per axis, any unit; isotropic if left out.
    parameters : WatershedParameters

    Returns
    -------
    int32 array of the image's shape
        Labels from 1, 0 = background.

    Notes
    -----
    Otsu, IEEE Trans. SMC 9, 62 (1979); Beucher and Lantuéjoul (1979) for the watershed.
    """
    prepared = _prepare(image, _sampling(image.ndim, voxel_size), parameters)
    return _separate(prepared, parameters)


def candidates(ndim: int) -> Iterator[WatershedParameters]:
    """Settings that `tuned_watershed` tries."""
    for smoothing, window, distance in product((1.0, 2.0), (0, 51), (4.0, 7.0, 10.0, 14.0)):
        yield WatershedParameters(
            smoothing=smoothing,
            min_distance=distance,
            distance_smoothing=smoothing,
            local_window=window,
            min_size=30 if ndim == 2 else 100,
        )


def tuned_watershed(
    image: NDArray[Any],
    truth: NDArray[Any],
    voxel_size: Sequence[float] | None = None,
    grid: Sequence[WatershedParameters] | None = None,
) -> tuple[NDArray[np.int32], WatershedParameters, dict[str, Any]]:
    """Baseline with the setting of `grid` that has the highest SA50 (then mSA) on this very image.

    Returns
    -------
    labels : int32 array
    parameters : WatershedParameters
        The best setting.
    scores : dict
        As `volsam.evaluate.metrics.score`.
    """
    sampling = _sampling(image.ndim, voxel_size)
    prepared: dict[tuple[float, float, int], _Prepared] = {}
    best: tuple[NDArray[np.int32], WatershedParameters, dict[str, Any]] | None = None
    for parameters in grid or tuple(candidates(image.ndim)):
        p = parameters
        key = (p.smoothing, p.distance_smoothing, p.local_window)
        if key not in prepared:
            prepared = {key: _prepare(image, sampling, p)}  # one at a time: they are large
        labels = _separate(prepared[key], p)
        result = score(Contingency.of(labels, truth))
        if best is None or (result["SA50"], result["mSA"]) > (best[2]["SA50"], best[2]["mSA"]):
            best = labels, parameters, result
    assert best is not None
    return best


@dataclass(frozen=True)
class _Prepared:
    """Foreground and smoothed distance: what does not depend on `min_distance`."""

    mask: NDArray[np.bool_]
    distance: NDArray[np.float64]
    sampling: NDArray[np.float64]


def _sampling(ndim: int, voxel_size: Sequence[float] | None) -> NDArray[np.float64]:
    sampling = np.ones(ndim) if voxel_size is None else np.asarray(voxel_size, np.float64)
    return np.asarray(sampling / sampling.min())


def _prepare(
    image: NDArray[Any], sampling: NDArray[np.float64], parameters: WatershedParameters
) -> _Prepared:
    smooth = ndi.gaussian_filter(image.astype(np.float32), parameters.smoothing / sampling)
    if smooth.min() == smooth.max():
        return _Prepared(np.zeros(image.shape, np.bool_), np.zeros(image.shape), sampling)
    mask = smooth > threshold_otsu(smooth)
    if parameters.local_window:
        planes = smooth.reshape(-1, *smooth.shape[-2:])
        window = parameters.local_window | 1
        local = [threshold_local(plane, window, method="mean") for plane in planes]
        mask &= smooth > np.stack(local).reshape(smooth.shape)
    distance = ndi.distance_transform_edt(mask, sampling=tuple(sampling))
    distance = ndi.gaussian_filter(distance, parameters.distance_smoothing / sampling)
    return _Prepared(mask, distance, sampling)


def _separate(prepared: _Prepared, parameters: WatershedParameters) -> NDArray[np.int32]:
    mask, distance = prepared.mask, prepared.distance
    markers = _markers(distance, mask, prepared.sampling, parameters.min_distance)
    labels = watershed(-distance, markers, mask=mask)
    kept = remove_small_objects(labels, max_size=max(0, parameters.min_size - 1))
    return np.asarray(kept, dtype=np.int32)


def _markers(
    distance: NDArray[np.float64],
    mask: NDArray[np.bool_],
    sampling: NDArray[np.float64],
    min_distance: float,
) -> NDArray[np.int32]:
    """Peaks at least `min_distance` apart along each axis; every component has one at least."""
    window = 2 * np.maximum(np.round(min_distance / sampling), 1).astype(int) + 1
    peaks = mask & (distance == ndi.maximum_filter(distance, size=tuple(window)))
    markers, n = ndi.label(peaks, structure=np.ones((3,) * mask.ndim))  # a plateau is one peak
    components, m = ndi.label(mask, structure=np.ones((3,) * mask.ndim))
    overshadowed = np.setdiff1d(np.arange(1, m + 1), components[peaks])
    tops = ndi.maximum_position(distance, components, overshadowed) if overshadowed.size else []
    for number, top in enumerate(tops, n + 1):
        markers[top] = number
    return np.asarray(markers, np.int32)
