"""Crops to learn from: a function of seed and number, and honest about what is unknown."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from volsam.train.crops import MARGIN, UNKNOWN, UNLABELLED, Crop, Crops, CropSettings, crop, reserve
from volsam.train.data import Example


def example(side: int = 96, name: str = "a") -> Example:
    """Squares of 10 pixels, each of a brightness of its own."""
    labels = np.zeros((side, side), np.int32)
    for number, (y, x) in enumerate(np.ndindex(side // 16, side // 16), start=1):
        labels[y * 16 + 3 : y * 16 + 13, x * 16 + 3 : x * 16 + 13] = number
    return Example(name, (labels / labels.max()).astype(np.float32), labels)


def crops(*groups: tuple[float, list[Example]], start: int = 0, **settings: object) -> Crops:
    chosen = CropSettings(**{"size": 48, **settings})  # type: ignore[arg-type]
    return Crops(groups or ((1.0, [example()]),), chosen, 7, start, start + 40)


def same(one: Crop, other: Crop) -> bool:
    fields = ("image", "labels", "targets", "known")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in fields)


@pytest.mark.parametrize("strong", [False, True])
def test_a_function_of_seed_and_number(strong: bool) -> None:
    whole, later = crops(strong=strong), crops(strong=strong, start=5)
    assert len(whole) == len(later) == 40
    assert all(same(whole[5 + n], later[n]) for n in (0, 3))
    assert same(whole[2], whole[2])
    assert not same(whole[2], whole[3])


@pytest.mark.parametrize("strong", [False, True])
def test_shapes_and_ranges(strong: bool) -> None:
    found = crops(strong=strong)[0]
    assert found.image.shape == (3, 48, 48)
    assert found.image.dtype == torch.float32
    assert 1 < found.image.max() <= 255
    assert found.image.min() >= 0
    assert found.labels.shape == (48, 48)
    assert found.labels.dtype == torch.int32
    assert found.targets.shape == (3, 48, 48)
    assert torch.equal(found.known, torch.ones(1, 48, 48))
    assert torch.equal(found.targets[0] > 0, found.labels > 0)


def test_image_and_labels_move_together() -> None:
    for found in (crops(min_size=0)[n] for n in range(10)):
        np.testing.assert_allclose(found.image[0].numpy(), found.labels.numpy() / 36 * 255, 1e-5)


def test_groups_by_share() -> None:
    dark, light = example(name="dark"), example(name="light")
    dark = Example("dark", dark.image * 0, dark.labels)
    many = crops((3.0, [light]), (1.0, [dark] * 50))
    bright = sum(bool(many[n].image.max() > 0) for n in range(40))
    assert 22 <= bright <= 38


def test_small_images_are_mirrored() -> None:
    found = crops((1.0, [example(32)]), size=48)[0]
    assert found.image.shape == (3, 48, 48)
    grey = found.image[0].numpy()
    whole = np.pad(example(32).image, ((0, 16), (0, 16)), mode="symmetric") * 255
    turned = [np.rot90(a, k) for a in (whole, whole[:, ::-1]) for k in range(4)]
    assert any(np.allclose(grey, other, atol=1e-4) for other in turned)


def test_objects_at_unknown_pixels_are_no_prompts() -> None:
    whole = example()
    labels = whole.labels.copy()
    labels[:6] = UNKNOWN  # cuts the first row of squares
    found = crop(whole.image, labels, 25)
    assert not set(np.unique(found.labels)) & set(range(7)) - {0}
    assert set(np.unique(found.labels)) == {0, *range(7, 37)}
    assert (found.known[0, :6] == 0).all()
    cut = torch.from_numpy(whole.labels[6:13] > 0)  # the rest of objects that are cut
    assert torch.equal(found.known[0, 6:13] == 0, cut)
    assert (found.known[0, 13:] == 1).all()


def test_objects_beside_unlabelled_pixels_are_whole() -> None:
    """A sparse annotation: all objects are prompted for, and nothing is background."""
    whole = example()
    found = crop(whole.image, np.where(whole.labels > 0, whole.labels, UNLABELLED), 25)
    assert torch.equal(found.labels, torch.from_numpy(whole.labels))
    assert torch.equal(found.known[0] > 0, torch.from_numpy(whole.labels > 0))


def test_small_images_are_not_learnt_twice() -> None:
    """What is mirrored to fill a crop has no truth: an object is one piece."""
    whole = example()
    side = whole.labels.shape[0]
    settings = CropSettings(side + 40, 25)
    found = Crops([(1.0, [whole])], settings, 0, 0, 1)[0]
    assert found.labels.shape == (side + 40, side + 40)
    sizes = np.bincount(whole.labels.ravel())
    for number, size in enumerate(np.bincount(found.labels.numpy().ravel())[1:], start=1):
        assert size <= sizes[number]
    assert (found.known == 0).sum() == (side + 40) ** 2 - side**2


def test_objects_that_are_too_small_are_background() -> None:
    whole = example()
    labels = whole.labels.copy()
    labels[3:12, 3:13] = 0  # leaves 10 pixels
    found = crop(whole.image, labels, 25)
    assert 1 not in np.unique(found.labels)
    assert not found.targets[0, 12, 3:13].any()


def test_margin_gives_targets_that_see_beyond_the_border() -> None:
    whole = example()
    plain = crop(whole.image, whole.labels, 25)
    margin = crop(whole.image, whole.labels, 25, MARGIN)
    inner = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    for name in ("image", "labels", "targets", "known"):
        assert torch.equal(getattr(margin, name), getattr(plain, name)[inner])
    cut = (slice(8, -8), slice(8, -8))  # through the outer squares
    assert not torch.equal(
        crop(whole.image[cut], whole.labels[cut], 0).targets, plain.targets[(..., *cut)]
    )


def test_objects_are_drawn_without_repetition() -> None:
    found = crop(example().image, example().labels, 25)
    rng = np.random.default_rng(0)
    masks = found.objects(5, rng)
    assert masks.shape == (5, 96, 96)
    assert masks.dtype == torch.bool
    assert (masks.sum(dim=(1, 2)) == 100).all()
    assert masks.sum(0).max() == 1
    assert len(found.objects(100, rng)) == 36
    empty = crop(np.zeros((20, 20)), np.zeros((20, 20), np.int32), 25)
    assert empty.objects(5, rng).shape == (0, 20, 20)


def test_reserve_hides_the_box_and_what_reaches_into_it() -> None:
    whole = example()
    rest, cut = reserve(whole, (slice(0, 24), slice(0, 96)))
    assert cut.name == "a[0:24,0:96]"
    np.testing.assert_array_equal(cut.labels, whole.labels[:24])
    assert (rest.labels[:24] == UNKNOWN).all()
    assert not np.isin(rest.labels, range(1, 13)).any()  # the second row lies across
    assert set(np.unique(rest.labels)) == {UNKNOWN, 0, *range(13, 37)}
    again, other = reserve(whole, (slice(72, 96), slice(0, 96)), rest)
    np.testing.assert_array_equal(other.labels, whole.labels[72:])
    assert set(np.unique(again.labels)) == {UNKNOWN, 0, *range(13, 25)}
    assert whole.labels.min() == 0  # untouched
