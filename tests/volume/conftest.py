"""A writer of small OME-Zarr images, independent of the package's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr


def write(
    path: Path, image: np.ndarray, order: str, /, version: str = "0.5", **changes: object
) -> Path:
    """Write an image of one level whose axes are named by the letters of `order`."""
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    array = group.create_array("s0", shape=image.shape, dtype=image.dtype, chunks=(8,) * image.ndim)
    array[...] = image
    types = {"t": "time", "c": "channel"}
    scale = [{"z": 2.0, "y": 0.5, "x": 0.5}.get(a, 1.0) for a in order]
    multiscale: dict = {
        "axes": [
            {"name": a, "type": types.get(a, "space")}
            | ({"unit": "micrometer"} if a in "zyx" else {})
            for a in order
        ],
        "datasets": [
            {"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        ],
    }
    multiscale.update(changes)
    if version == "0.4":
        group.attrs["multiscales"] = [{"version": "0.4", **multiscale}]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [multiscale]}
    return path


@pytest.fixture(scope="session")
def write_ome_zarr() -> Callable[..., Path]:
    """Function ``(path, image, order, version="0.5", **changes of the multiscale) -> path``."""
    return write
