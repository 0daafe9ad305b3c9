"""From annotations and files to examples, and their split: what is reserved is never learnt from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from volsam.annotate.checks import Meaning
from volsam.annotate.store import AnnotationStore, Provenance
from volsam.errors import VolsamError
from volsam.evaluate.suite import as_trained
from volsam.geometry import Box
from volsam.train.crops import UNKNOWN, UNLABELLED, crop
from volsam.train.data import Example
from volsam.train.gather import Parts, as_pairs, gather, read, split
from volsam.train.settings import Train, TrainData
from volsam.train.sources import data_digests


def objects(side: int = 128, step: int = 16) -> np.ndarray:
    """Squares of 10 pixels in a grid, numbered from 1."""
    labels = np.zeros((side, side), np.int32)
    for number, (y, x) in enumerate(np.ndindex(side // step, side // step), start=1):
        labels[y * step + 3 : y * step + 13, x * step + 3 : x * step + 13] = number
    return labels


def examples(count: int, side: int = 128, name: str = "a") -> list[Example]:
    image = np.zeros((side, side), np.float32)
    return [Example(f"{name}/{z}", image, objects(side)) for z in range(count)]


def names(parts: Parts) -> tuple[set[str], set[str], set[str]]:
    train = {e.name for _, group in parts.train for e in group}
    return train, {e.name for e in parts.validation}, {e.name for e in parts.held_out}


def settings(data: Any, **changes: Any) -> Train:
    return Train.model_validate({"name": "mine", "data": data, **changes})


def files(folder: Path, image: np.ndarray, labels: np.ndarray, **more: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    tifffile.imwrite(folder / "image.tif", image, photometric="minisblack")
    tifffile.imwrite(folder / "labels.tif", labels, photometric="minisblack")
    paths = {"image": str(folder / "image.tif"), "labels": str(folder / "labels.tif")}
    return {**paths, "axes": "zyx", **more}


def stack(count: int = 12, side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    labels = np.stack([objects(side)] * count).astype(np.uint16)
    return (labels > 0).astype(np.uint16) * 100 + np.arange(count, dtype=np.uint16)[
        :, None, None
    ], labels


def test_whole_slices_by_share_and_nothing_twice() -> None:
    groups = [(1.0, examples(300, 16)), (0.5, examples(100, 16, "b"))]
    parts = split(groups, 0.2, 0.1, 0)
    train, validation, held_out = names(parts)
    assert not train & validation
    assert not train & held_out
    assert not validation & held_out
    assert len(train | validation | held_out) == 400
    assert 55 < len(validation) < 105
    assert 22 < len(held_out) < 62
    assert [share for share, _ in parts.train] == [1.0, 0.5]
    assert names(split(groups, 0.2, 0.1, 0)) == (train, validation, held_out)
    assert names(split(groups, 0.2, 0.1, 1))[1] != validation


def test_more_annotations_move_hardly_any() -> None:
    before = names(split([(1.0, examples(200, 16))], 0.2, 0.2, 0))
    after = names(split([(1.0, [*examples(200, 16), *examples(50, 16, "new")])], 0.2, 0.2, 0))
    for old, new in zip(before, after, strict=True):
        assert old <= new


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_few_slices_reserve_tiles_whose_objects_are_shown_nowhere_else(count: int) -> None:
    # Objects lie across the borders of tiles as well.
    labels = np.roll(objects(256, 24), (5, 9), (0, 1))
    whole = [Example(f"a/{z}", labels.astype(np.float32), labels) for z in range(count)]
    parts = split([(1.0, whole)], 0.1, 0.1, 0)
    assert len(parts.validation) >= 1
    assert len(parts.held_out) >= 1
    ((_, train),) = parts.train
    assert [e.name for e in train] == [e.name for e in whole]
    for cut in [*parts.validation, *parts.held_out]:
        assert min(cut.labels.shape) >= 64
        name, _, box = cut.name.rstrip("]").partition("[")
        (rest,) = [e for e in train if e.name == name]
        (y0, y1), (x0, x1) = (map(int, part.split(":")) for part in box.split(","))
        assert (rest.labels[y0:y1, x0:x1] == UNKNOWN).all()
        np.testing.assert_array_equal(cut.labels, labels[y0:y1, x0:x1])
        np.testing.assert_array_equal(cut.image, labels[y0:y1, x0:x1])
        shown = set(np.unique(rest.labels)) - {0, UNKNOWN}
        assert not shown & set(np.unique(cut.labels))


def test_shares_of_zero_reserve_nothing() -> None:
    parts = split([(1.0, examples(3))], 0.0, 0.0, 0)
    assert names(parts) == ({"a/0", "a/1", "a/2"}, set(), set())


def test_too_little_to_reserve_is_refused() -> None:
    with pytest.raises(VolsamError, match=r"1 parts of slices are too few to reserve 2 of them"):
        split([(1.0, examples(1, 64))], 0.1, 0.1, 0)
    one = np.ones((128, 128), np.int32)
    with pytest.raises(VolsamError, match=r"none is left to learn from; annotate more"):
        split([(1.0, [Example("a/0", one.astype(np.float32), one)])], 0.1, 0.1, 0)


def test_annotations_with_their_limits_and_masks(tmp_path: Path) -> None:
    labels = objects(64)[None].astype(np.uint32)
    image = np.linspace(100, 300, labels.size).reshape(labels.shape).astype(np.uint16)
    ignore = np.zeros(labels.shape, np.bool_)
    ignore[:, :20] = True
    store = AnnotationStore(tmp_path)
    first = store.add(image, labels, ignore, Provenance(source="a.tif", limits=(0, 1000)))
    store.add(image + 1, labels, None, Provenance(source="b.tif"))
    parts = gather(settings(str(tmp_path), validation=0, held_out=0, promotion={"when": "always"}))
    ((share, found),) = parts.train
    assert share == 1
    assert [e.name for e in found] == [f"{a.id}/0" for a in store]
    one, two = sorted(found, key=lambda e: e.name != f"{first.id}/0")
    np.testing.assert_allclose(one.image, image[0] / 1000, atol=1e-6)  # the volume's limits
    assert (one.labels[:20] == np.where(labels[0, :20] > 0, UNKNOWN, UNLABELLED)).all()
    assert (one.labels[20:] == 0).any()
    assert two.image.min() < 0.01 < 0.99 < two.image.max()  # its own percentiles
    assert set(np.unique(two.labels)) == {UNLABELLED, *range(1, 17)}  # sparse: no background


def test_files_sparse_and_ignored(tmp_path: Path) -> None:
    image, labels = stack()
    labels[labels == 2] = 999
    none = {"validation": 0, "held_out": 0, "promotion": {"when": "never"}}
    data = files(tmp_path, image, labels, ignore=999, slices=[0, 3])
    ((_, dense),) = gather(settings([data], **none)).train
    assert [e.name for e in dense] == [f"{data['image']}/{z}" for z in (0, 3)]
    assert set(np.unique(dense[0].labels)) == {UNKNOWN, 0, 1, 2, 3}  # without gaps
    assert ((dense[0].labels == UNKNOWN) == (labels[0] == 999)).all()
    with pytest.raises(VolsamError, match=r"No pixel of .* is known to be background"):
        gather(settings([{**data, "sparse": True}], **none))
    ((_, sparse),) = gather(settings([{**data, "sparse": True}], parts="prompts", **none)).train
    assert ((sparse[0].labels == UNKNOWN) == (labels[0] == 999)).all()
    assert ((sparse[0].labels == UNLABELLED) == (labels[0] == 0)).all()
    # One pair of limits for the volume, so slices keep their order of brightness.
    assert dense[0].image.mean() < dense[1].image.mean()


def test_large_ids_are_numbered_anew(tmp_path: Path) -> None:
    image, labels = stack()
    large = np.where(labels > 0, labels.astype(np.uint64) + 2**40, 0)
    zarr.save_array(str(tmp_path / "labels.zarr"), large)
    data = files(tmp_path, image, labels) | {"labels": str(tmp_path / "labels.zarr")}
    parts = gather(settings([data]))
    assert set(np.unique(parts.held_out[0].labels)) == {0, 1, 2, 3, 4}


def test_channel_of_the_image_only(tmp_path: Path) -> None:
    image, labels = stack()
    both = np.stack([image, image * 0], axis=1)
    data = files(tmp_path, both, labels) | {"axes": "zcyx"}
    with pytest.raises(VolsamError, match=r"channel"):
        gather(settings([data]))
    parts = gather(settings([{**data, "channel": 0}]))
    assert parts.held_out[0].image.max() > 0.5


def test_slices_without_objects_are_left_out(tmp_path: Path) -> None:
    image, labels = stack(14)
    labels[:2] = 0
    train, validation, held_out = names(gather(settings([files(tmp_path, image, labels)])))
    assert len(train | validation | held_out) == 12


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        ("empty", r"There is no labelled object in .*labels.tif; annotate something first"),
        ("shape", r"have shape \(12, 32, 31\) and their image .* has \(12, 32, 32\); give labels"),
        ("float", r"labels.tif are float32 and no whole numbers; save"),
        ("negative", r"labels.tif hold -5, and objects are numbers above 0; state"),
        ("nan", r"image.tif holds nan at z 1, y 2, x 3; replace"),
        ("slice", r"has 12 slices and no slice 12"),
        ("pattern", r"matches 0 files and .* 1; give patterns"),
    ],
)
def test_refusals(spoil: str, sentence: str, tmp_path: Path) -> None:
    image, labels = stack()
    more: dict[str, Any] = {}
    if spoil == "empty":
        labels[:] = 0
    elif spoil == "shape":
        labels = labels[..., :-1].copy()
    elif spoil == "float":
        labels = labels.astype(np.float32)
    elif spoil == "negative":
        labels = labels.astype(np.int16)
        labels[0, 0, 0] = -5
    elif spoil == "nan":
        image = image.astype(np.float32)
        image[1, 2, 3] = np.nan
    elif spoil == "slice":
        more = {"slices": [0, 12]}
    data = files(tmp_path, image, labels, **more)
    if spoil == "pattern":
        data["image"] = str(tmp_path / "none*.tif")
    with pytest.raises(VolsamError, match=sentence):
        gather(settings([data]))


def test_no_annotations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VolsamError, match=r"no labelled object in .*nothing; annotate something"):
        gather(settings(str(tmp_path / "nothing")))


def test_labels_within_an_image_are_noticed(tmp_path: Path) -> None:
    """Corrections in a label group of an OME-Zarr image are new data."""
    image, labels = stack()
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    group.create_array("image", data=image)
    group.create_array("labels/truth", data=labels)
    path = str(tmp_path / "a.zarr")
    data = {"image": path, "key": "image", "labels": path, "labels_key": "labels/truth"}
    before = data_digests(settings([data]))
    assert before == data_digests(settings([data]))
    group["labels/truth"][0, 0, 0] = 7
    assert data_digests(settings([data])) != before


def test_a_slice_is_given_once(tmp_path: Path) -> None:
    data = files(tmp_path, *stack())
    with pytest.raises(VolsamError, match=r"given twice in train.data"):
        gather(settings([data, data]))


def overlapping(store: AnnotationStore, step: int, count: int, **more: Any) -> None:
    """Crops of one large slice, each overlapping the one before."""
    labels = np.roll(objects(1024, 24), (5, 9), (0, 1)).astype(np.uint32)
    image = np.random.default_rng(0).integers(0, 999, labels.shape).astype(np.uint16)
    for n in range(count):
        box = Box((0, 0, n * step), (1, 128, n * step + 128))
        known = Provenance(source="a.tif", region=box, limits=(0, 999), complete=True, **more)
        store.add(image[None][box.slices], labels[None][box.slices], None, known)


@pytest.mark.parametrize(("count", "step"), [(3, 32), (3, 96), (12, 64), (12, 80)])
@pytest.mark.parametrize("seed", range(4))
def test_overlapping_annotations_show_nothing_that_is_reserved(
    count: int, step: int, seed: int, tmp_path: Path
) -> None:
    overlapping(AnnotationStore(tmp_path), step, count)
    parts = gather(settings(str(tmp_path), seed=seed))
    learnt, validation, held_out = np.zeros((3, 128, 2048), bool)
    for canvas, group in (
        (learnt, parts.train[0][1]),
        (validation, parts.validation),
        (held_out, parts.held_out),
    ):
        for one in group:
            assert one.place is not None
            height, width = one.labels.shape
            known = canvas[one.place.y :, one.place.x :][:height, :width]
            known |= one.labels >= 0
    assert validation.any()
    assert held_out.any()
    assert not (learnt & (validation | held_out)).any()
    assert not (validation & held_out).any()


def test_other_sources_do_not_overlap(tmp_path: Path) -> None:
    store = AnnotationStore(tmp_path)
    overlapping(store, 32, 2)
    of_one = sum((e.labels == UNKNOWN).sum() for e in gather(settings(str(tmp_path))).train[0][1])
    labels = np.zeros((1, 128, 128), np.uint32) + objects(128).astype(np.uint32)
    where = Provenance(source="b.tif", region=Box((0, 0, 0), (1, 128, 128)), complete=True)
    added = store.add(labels, labels, None, where)
    for seed in range(20):
        parts = gather(settings(str(tmp_path), seed=seed))
        names = {e.name for e in (*parts.validation, *parts.held_out)}
        if not any(name.startswith(added.id) for name in names):
            (other,) = [e for e in parts.train[0][1] if e.name.startswith(added.id)]
            assert (other.labels != UNKNOWN).all()
    assert of_one


def test_painted_unknown_cuts_objects_of_sparse_annotations(tmp_path: Path) -> None:
    """Beside what merely has no label, objects are whole."""
    painted = np.zeros((1, 64, 64), np.uint16)
    painted[0, 4:16, 4:16], painted[0, 4:16, 16:30] = 1, 98
    painted[0, 40:52, 40:52], painted[0, 60:] = 2, 99
    truth, ignore = Meaning(False, 98, 99).split(painted, "a")
    AnnotationStore(tmp_path).add(painted + 1, truth, ignore, Provenance(source="a.tif"))
    ((_, (example,)),) = read(str(tmp_path))
    assert (example.labels[4:16, 16:30] == UNKNOWN).all()
    assert (example.labels[30:40] == UNLABELLED).all()
    assert (example.labels[60:] == 0).all()
    assert set(np.unique(crop(example.image, example.labels, 25).labels)) == {0, 2}


@pytest.mark.parametrize("count", [3, 4])
def test_few_slices_that_are_saved_as_colours(count: int, tmp_path: Path) -> None:
    image, labels = stack(count)
    data = files(tmp_path, image, labels)
    with pytest.warns(DeprecationWarning, match="photometric"):
        tifffile.imwrite(data["labels"], labels)  # as napari saves it
    with tifffile.TiffFile(data["labels"]) as file:
        assert file.series[0].axes == "SYX"
    del data["axes"]
    tifffile.imwrite(data["image"], image, photometric="minisblack", metadata={"axes": "ZYX"})
    for stated in ({}, {"axes": "zyx"}):
        ((_, found),) = read([TrainData.model_validate({**data, **stated})])
        assert len(found) == count
        np.testing.assert_array_equal(found[1].labels > 0, labels[1] > 0)


def test_level_and_time_point(tmp_path: Path) -> None:
    image, labels = stack(4)
    tifffile.imwrite(
        tmp_path / "i.ome.tif", np.stack([image, image[::-1]]), metadata={"axes": "TZYX"}
    )
    tifffile.imwrite(tmp_path / "l.ome.tif", np.stack([labels] * 2), metadata={"axes": "TZYX"})
    data = {"image": str(tmp_path / "i.ome.tif"), "labels": str(tmp_path / "l.ome.tif")}
    first, second = (
        read([TrainData.model_validate({**data, "timepoint": t})])[0][1] for t in (0, 1)
    )
    np.testing.assert_array_equal(first[0].image, second[3].image)
    assert not {e.name for e in first} & {e.name for e in second}


def test_extremes_are_those_of_the_volume(tmp_path: Path) -> None:
    """A model that stretches images is judged on a tile as on the whole volume."""
    image, labels = stack(3, 128)
    image[2, 0, 0], labels[2] = 5000, 0  # a slice without objects is never held out
    parts = gather(settings([files(tmp_path, image, labels)]))
    (pair, *_) = as_pairs(parts.held_out)
    low, high = np.percentile(image, (1, 99.8))
    assert pair.extremes == pytest.approx(((0 - low) / (high - low), (5000 - low) / (high - low)))
    (shown,) = as_trained([pair], SimpleNamespace(normalisation="minmax"))  # type: ignore[arg-type]
    assert shown.image.max() < 0.1
