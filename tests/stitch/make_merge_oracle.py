"""Regenerate merge_oracle.npz: what micro-sam's slice merging does to synthetic slice labels.

Not a test. Needs an environment with micro-sam 1.8 (and, as a first import, whatever makes it
import there): ``python make_merge_oracle.py [output.npz]``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def synthetic(seed: int) -> np.ndarray:
    """Slice labels with every difficulty: drifting, splitting, missing, empty and full slices."""
    rng = np.random.default_rng(seed)
    depth, size = int(rng.integers(4, 12)), 48
    yy, xx = np.mgrid[:size, :size]
    n = int(rng.integers(3, 12))
    center = rng.uniform(0, size, (n, 2))
    radius = rng.uniform(4, 12, n)
    volume = np.zeros((depth, size, size), np.uint32)
    next_id = 1
    for z in range(depth):
        center += rng.normal(0, 2, (n, 2))
        frame = np.zeros((size, size), np.uint32)
        for i in rng.permutation(n):
            if rng.random() < 0.25:
                continue
            disk = (yy - center[i, 0]) ** 2 + (xx - center[i, 1]) ** 2 < radius[i] ** 2
            halves = [disk & (xx < center[i, 1]), disk] if rng.random() < 0.2 else [disk]
            for part in halves[::-1]:
                frame[part] = next_id
                next_id += 1
        if seed % 4 == 1 and rng.random() < 0.3:
            frame[:] = 0
        if seed % 4 == 2:  # no background anywhere
            frame[frame == 0] = next_id
            next_id += 1
        volume[z] = frame
    return volume


def main(path: Path) -> None:
    from micro_sam.multi_dimensional_segmentation import merge_instance_segmentation_3d

    arrays: dict[str, np.ndarray] = {}
    for seed in range(24):
        labels = synthetic(seed)
        gap, extent = seed % 3, (seed // 3) % 3
        arrays[f"labels-{seed}"] = labels.astype(np.uint16)
        try:
            merged = merge_instance_segmentation_3d(
                labels.copy(),
                gap_closing=gap or None,
                min_z_extent=extent or None,
                verbose=False,
            )
        except Exception as error:
            print(seed, gap, extent, "micro-sam fails:", error)
            continue
        arrays[f"merged-{seed}-{gap}-{extent}"] = merged.astype(np.uint16)
    np.savez_compressed(path, **arrays)
    print(path, path.stat().st_size, "bytes", len(arrays), "arrays")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("merge_oracle.npz")))
