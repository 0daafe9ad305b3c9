"""Regenerate ais_oracle.npz: micro-sam's labels of synthetic maps, clean, noisy and saturated.

Not a test. Needs an environment with micro-sam 1.8 (and, as a first import, whatever makes it
import there): ``python make_ais_oracle.py [output.npz]``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter


def synthetic(seed: int, noise: float, gain: float, size: int = 128) -> np.ndarray:
    """Foreground, centre and boundary distance of touching disks as uint8 (3, size, size)."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.mgrid[16:size:28, 16:size:28], axis=-1).reshape(-1, 2)
    center = grid + rng.normal(0, 4, grid.shape)
    radius = rng.uniform(10, 18, len(center))
    pixel = np.stack(np.mgrid[:size, :size], axis=-1)
    distance = np.linalg.norm(pixel[:, :, None] - center, axis=-1)
    nearest = distance.argmin(-1)
    away = distance.min(-1)
    inside = away < radius[nearest]
    labels = np.where(inside, nearest + 1, 0)
    edge = np.zeros(labels.shape, bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    depth = distance_transform_edt(~edge) / radius[nearest]
    maps = np.stack([inside, np.where(inside, away / radius[nearest], 1), 1 - depth * inside])
    maps = maps + noise * gaussian_filter(rng.normal(size=maps.shape), (0, 1, 1)) * 4
    return np.round(np.clip((maps - 0.5) * gain + 0.5, 0, 1) * 255).astype(np.uint8)


def main(path: Path) -> None:
    from micro_sam.instance_segmentation import InstanceSegmentationWithDecoder

    segmenter = InstanceSegmentationWithDecoder(None, None)
    arrays: dict[str, np.ndarray] = {}
    for case, (noise, gain) in enumerate([(0, 1), (0.1, 1), (0.2, 3), (0, 8)]):
        maps = synthetic(case, noise, gain)
        arrays[f"maps-{case}"] = maps
        for options in ((0.5, 0.5, 0.5, 1.0, 1.6, 0), (0.4, 0.6, 0.45, 0.0, 1.2, 60)):
            keys = ("foreground", "center_distances", "boundary_distances")
            segmenter.set_state(dict(zip(keys, maps.astype(np.float32) / 255, strict=True)))
            labels = segmenter.generate(
                center_distance_threshold=options[0],
                boundary_distance_threshold=options[1],
                foreground_threshold=options[2],
                foreground_smoothing=options[3],
                distance_smoothing=options[4],
                min_size=options[5],
                output_mode="instance_segmentation",
            )
            name = "-".join(map(str, options))
            arrays[f"labels-{case}-{name}"] = labels.astype(np.uint16)
    np.savez_compressed(path, **arrays)
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("ais_oracle.npz")))
