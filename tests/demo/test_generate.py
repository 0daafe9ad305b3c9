from dataclasses import replace

import numpy as np
import pytest
import tifffile
from scipy import ndimage as ndi

from volsam.demo.generate import Demo, Scene, make_demo, synthetic_slice, write_demo
from volsam.evaluate.baselines import otsu_watershed
from volsam.evaluate.metrics import segmentation_accuracy

SHAPE = (16, 128, 144)


@pytest.fixture(scope="module")
def demo() -> Demo:
    return make_demo(3, SHAPE)


def test_same_seed_same_volume(demo: Demo) -> None:
    again, other = make_demo(3, SHAPE), make_demo(4, SHAPE)
    assert np.array_equal(demo.image, again.image)
    assert np.array_equal(demo.truth, again.truth)
    assert not np.array_equal(demo.truth, other.truth)


def test_truth_is_clean(demo: Demo) -> None:
    assert demo.image.shape == demo.truth.shape == SHAPE
    assert (demo.image.dtype, demo.truth.dtype) == (np.uint16, np.uint32)
    ids, first = np.unique(demo.truth, return_index=True)
    assert ids.tolist() == list(range(ids.size))
    assert (np.diff(first[1:]) > 0).all()  # numbered in order of appearance
    for number, box in enumerate(ndi.find_objects(demo.truth.astype(np.int32)), 1):
        inside = demo.truth[box] == number
        assert inside.sum() >= 150
        assert ndi.label(inside)[1] == 1


def test_objects_touch_and_show(demo: Demo) -> None:
    truth = demo.truth
    a, b = truth[..., 1:], truth[..., :-1]
    touching = np.unique(a[(a != b) & (a > 0) & (b > 0)])
    assert touching.size > 0.4 * truth.max()
    mean = ndi.mean(demo.image, truth, np.arange(truth.max() + 1))
    assert (mean[1:] > mean[0]).mean() > 0.95
    signal = mean[1:] - 100
    assert signal.max() > 3 * signal.min()  # dim ones among bright ones


def test_hard_for_the_classical_baseline() -> None:
    demo = make_demo(0, (24, 224, 224))
    labels = otsu_watershed(demo.image, demo.voxel_size)
    assert segmentation_accuracy(labels, demo.truth)["SA50"] <= 0.6


def test_scene_is_obeyed() -> None:
    dim = make_demo(3, SHAPE, replace(Scene(), photons=5.0))
    bright = make_demo(3, SHAPE, replace(Scene(), photons=500.0))
    assert np.array_equal(dim.truth, bright.truth)
    assert np.percentile(bright.image, 99) > 5 * np.percentile(dim.image, 99)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_synthetic_slice(seed: int) -> None:
    image, truth = synthetic_slice(seed, 96)
    assert image.shape == truth.shape == (96, 96)
    assert (image.dtype, truth.dtype) == (np.uint16, np.uint32)
    areas = np.bincount(truth.ravel())[1:]
    assert (areas >= 20).all()
    assert np.array_equal(truth, synthetic_slice(seed, 96)[1])


def test_write_demo(tmp_path) -> None:
    demo = write_demo(tmp_path / "new" / "demo", 3, SHAPE)
    folder = tmp_path / "new" / "demo"
    assert sorted(p.name for p in folder.iterdir()) == ["image.ome.tif", "truth.tif"]
    assert np.array_equal(tifffile.imread(folder / "truth.tif"), demo.truth)
    with tifffile.TiffFile(folder / "image.ome.tif") as file:
        assert file.series[0].axes == "ZYX"
        assert np.array_equal(file.asarray(), demo.image)
        assert file.ome_metadata is not None
        assert 'PhysicalSizeZ="2.0"' in file.ome_metadata
        assert 'PhysicalSizeX="0.5"' in file.ome_metadata
        assert 'PhysicalSizeXUnit="µm"' in file.ome_metadata
