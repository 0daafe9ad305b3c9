"""One decision per volume or slice."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
from skimage.filters import threshold_otsu

from volsam.errors import VolsamError
from volsam.geometry import Box, split
from volsam.volume.info import VolumeInfo
from volsam.volume.normalise import Normalisation, _nth, estimate


@dataclass
class InMemory:
    """A volume that counts what is read."""

    voxels: np.ndarray
    chunks: tuple[int, int, int]
    count: int = 0

    @property
    def info(self) -> VolumeInfo:
        return VolumeInfo(
            shape=self.voxels.shape,
            dtype=self.voxels.dtype.name,
            channels=1,
            timepoints=1,
            voxel_size=None,
            unit="micrometer",
            channel_names=(),
            format="zarr",
            path="memory",
            key=None,
            chunks=self.chunks,
        )

    def read(self, box: Box) -> np.ndarray:
        self.count += box.size
        return self.voxels[box.slices]


@pytest.fixture
def volume() -> InMemory:
    rng = np.random.default_rng(0)
    voxels = rng.gamma(2, 300, (12, 300, 280)).astype(np.uint16)
    voxels[:, 100:150, 100:150] += 3000
    voxels += (np.arange(12, dtype=np.uint16) * 50)[:, None, None]
    return InMemory(voxels, (4, 64, 64))


def test_small_volumes_are_exact(volume: InMemory) -> None:
    normalisation = estimate(volume)
    assert normalisation.low + normalisation.high == pytest.approx(
        tuple(np.percentile(volume.voxels, [1, 99.8]))
    )
    assert volume.count == volume.voxels.size
    out = normalisation.apply(volume.voxels)
    assert out.dtype == np.float32
    low, high = np.percentile(volume.voxels, [1, 99.8])
    assert np.allclose(out, np.clip((volume.voxels - low) / (high - low), 0, 1), atol=1e-6)
    assert normalisation.otsu == pytest.approx(threshold_otsu(volume.voxels), rel=0.05)


def test_slices(volume: InMemory) -> None:
    normalisation = estimate(volume, scope="slice")
    assert len(normalisation.low) == 12
    for z in (0, 7):
        low, high = np.percentile(volume.voxels[z], [1, 99.8])
        assert (normalisation.low[z], normalisation.high[z]) == pytest.approx((low, high))
    part = normalisation.apply(volume.voxels[5:8], 5)
    assert np.array_equal(part[1], normalisation.apply(volume.voxels[6], 6))


@pytest.mark.parametrize("scope", ["volume", "slice"])
def test_large_volumes_are_sampled_within_the_limit(volume: InMemory, scope: str) -> None:
    exact = estimate(volume, scope=scope)
    sampled = estimate(volume, scope=scope, limit=60_000, seed=3)
    assert sampled == estimate(volume, scope=scope, limit=60_000, seed=3)
    assert np.allclose(sampled.low, exact.low, rtol=0.1)
    assert np.allclose(sampled.high, exact.high, rtol=0.1)
    assert len(sampled.low) == len(exact.low)


def test_apply_does_not_depend_on_the_block(volume: InMemory) -> None:
    normalisation = estimate(volume)
    whole = normalisation.apply(volume.voxels)
    part = (slice(3, 7), slice(10, 90), slice(50, 99))
    assert np.array_equal(normalisation.apply(volume.voxels[part], 3), whole[part])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "uint64", "float32", "float64"])
def test_types_and_offsets(dtype: str) -> None:
    offset = 0 if dtype in ("uint8", "int16") else 2**24
    voxels = (np.arange(2 * 8 * 8).reshape(2, 8, 8) % 100 + offset).astype(dtype)
    out = estimate(InMemory(voxels, (1, 8, 8)), "minmax").apply(voxels)
    tolerance = 0.02 if dtype == "float32" else 1e-6
    assert np.allclose(out, (voxels.astype(float) - offset) / 99, atol=tolerance)


def test_other_methods_and_constant_images() -> None:
    voxels = np.full((2, 8, 8), 7, np.uint8)
    constant = estimate(InMemory(voxels, (1, 8, 8)))
    assert not constant.apply(voxels).any()
    assert constant.otsu is None
    fixed = estimate(InMemory(voxels, (1, 8, 8)), "range", 0, 14)
    assert (fixed.apply(voxels) == 0.5).all()
    none = estimate(InMemory(voxels, (1, 8, 8)), "none")
    assert (none.apply(voxels) == 7).all()
    assert Normalisation.from_json(json.loads(json.dumps(fixed.to_json()))) == fixed


def test_faults() -> None:
    voxels = np.zeros((2, 8, 8), np.float32)
    voxels[1, 2, 3] = np.nan
    with pytest.raises(VolsamError, match="z 1, y 2, x 3"):
        estimate(InMemory(voxels, (1, 8, 8)))
    with pytest.raises(VolsamError, match="lower below upper"):
        estimate(InMemory(voxels, (1, 8, 8)), lower=5, upper=5)
    with pytest.raises(VolsamError, match="no normalisation 'x'"):
        estimate(InMemory(voxels, (1, 8, 8)), "x")


def test_boxes_of_a_sample_are_those_of_the_grid() -> None:
    shape, size = (7, 20, 33), (3, 8, 10)
    boxes = [box for _, box in split(Box.of(shape), size)]
    grid = [-(-n // s) for n, s in zip(shape, size, strict=True)]
    assert [_nth(number, grid, size, shape) for number in range(len(boxes))] == boxes
