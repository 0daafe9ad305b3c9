import numpy as np
import pytest

from volsam.evaluate.baselines import WatershedParameters, otsu_watershed, tuned_watershed
from volsam.evaluate.metrics import segmentation_accuracy


def balls(shape: tuple[int, ...], centres: list[tuple[int, ...]], scale: tuple[float, ...]):
    grid = np.indices(shape)
    truth = np.zeros(shape, np.int32)
    for i, centre in enumerate(centres, 1):
        d2 = sum(((g - c) * s) ** 2 for g, c, s in zip(grid, centre, scale, strict=True))
        truth[d2 <= 8.0**2] = i
    noise = np.random.default_rng(0).normal(0, 3, shape)
    return (100 + 200 * (truth > 0) + noise).astype(np.float32), truth


@pytest.mark.parametrize(
    ("shape", "centres", "scale"),
    [
        ((60, 60), [(15, 15), (15, 30), (42, 40)], (1.0, 1.0)),
        ((10, 50, 50), [(4, 12, 12), (4, 12, 26), (5, 36, 30)], (4.0, 1.0, 1.0)),
    ],
)
def test_separates_touching_balls(shape, centres, scale) -> None:
    image, truth = balls(shape, centres, scale)
    labels = otsu_watershed(image, scale, WatershedParameters(min_distance=6))
    assert segmentation_accuracy(labels, truth)["SA50"] == 1
    grid = [WatershedParameters(min_distance=d) for d in (1, 6)]
    best, parameters, scores = tuned_watershed(image, truth, scale, grid)
    assert scores["SA50"] == 1
    assert parameters in grid
    assert best.shape == shape


def test_constant_image_and_local_threshold() -> None:
    assert not otsu_watershed(np.full((9, 9), 7, np.uint16)).any()
    image, truth = balls((60, 60), [(15, 15), (42, 40)], (1.0, 1.0))
    image += np.linspace(0, 150, 60, dtype=np.float32)
    labels = otsu_watershed(image, None, WatershedParameters(local_window=41))
    assert segmentation_accuracy(labels, truth)["tp"] == 2
