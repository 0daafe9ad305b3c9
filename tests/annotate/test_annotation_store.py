"""The annotation store: what it keeps, what it refuses, and that nothing half-written is trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from volsam.annotate import crops
from volsam.annotate.store import Annotation, AnnotationStore, Provenance
from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.volume.source import open_volume

REGION = Box((3, 10, 20), (4, 40, 60))


def crop(seed: int = 0) -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
    """An image and two objects, (1, 30, 40)."""
    image = np.random.default_rng(seed).integers(0, 1000, (1, 30, 40)).astype(np.uint16)
    labels = np.zeros(image.shape, np.uint32)
    labels[0, 2:8, 3:9], labels[0, 15:25, 20:30] = 4, 7
    return image, labels


def place(**fields: Any) -> Provenance:
    return Provenance(**{"source": "/data/embryo.ome.zarr", "region": REGION, **fields})


@pytest.fixture
def store(tmp_path: Path) -> AnnotationStore:
    return AnnotationStore(tmp_path / "annotations")


def test_an_annotation_comes_back(store: AnnotationStore) -> None:
    image, labels = crop()
    ignore = np.zeros(image.shape, bool)
    ignore[0, :, 35:] = True
    provenance = place(
        complete=True, limits=(5, 900), voxel_size=(2, 0.5, 0.5), tool="napari", author="ada"
    )
    added = store.add(image, labels, ignore, provenance)
    (found,) = store
    assert isinstance(found, Annotation)
    assert (found.id, found.path, found.provenance) == (added.id, added.path, added.provenance)
    np.testing.assert_array_equal(found.image(), image)
    np.testing.assert_array_equal(found.labels(), labels)
    np.testing.assert_array_equal(found.ignore(), ignore)
    assert found.labels().dtype == np.uint32
    assert found.ignore().dtype == np.bool_
    p = found.provenance
    assert (p.limits, p.limits_of, p.objects, p.shape) == ((5, 900), "source", 2, (1, 30, 40))
    assert p.region == REGION
    assert p.date
    assert found.id == f"embryo-z3y10x20-{p.digest[:12]}"


def test_it_is_an_ome_zarr_that_lies_on_its_volume(store: AnnotationStore) -> None:
    added = store.add(*crop(), None, place(voxel_size=(2, 0.5, 0.5)))
    for key in (None, "labels/truth", "labels/ignore"):
        info = open_volume(added.path, key=key).info
        assert info.format == "ome-zarr-0.5"
        assert info.voxel_size == (2, 0.5, 0.5)
        assert info.translation == (6, 5, 10)


def test_unlabelled_is_unknown_unless_said(store: AnnotationStore) -> None:
    image, labels = crop()
    sparse = store.add(image, labels, None, place())
    np.testing.assert_array_equal(sparse.ignore(), labels == 0)
    complete = store.add(image, labels, None, place(complete=True), replace=True)
    assert not complete.ignore().any()
    assert len(store) == 1


def test_limits_of_the_crop_where_the_source_is_unknown(store: AnnotationStore) -> None:
    image, labels = crop()
    p = store.add(image, labels, None, Provenance(source="")).provenance
    assert p.limits == pytest.approx(tuple(np.percentile(image, (1.0, 99.8))))
    assert p.limits_of == "crop"


def test_planes_and_whole_floats_are_taken(store: AnnotationStore) -> None:
    image, labels = crop()
    added = store.add(image[0], labels[0].astype(np.float32), None, place())
    assert added.image().shape == (1, 30, 40)
    np.testing.assert_array_equal(added.labels(), labels)


def test_ids_too_large_are_numbered_anew(store: AnnotationStore) -> None:
    image, labels = crop()
    large = labels.astype(np.uint64) << np.uint64(33)
    found = store.add(image, large, None, place()).labels()
    np.testing.assert_array_equal(found > 0, labels > 0)
    assert sorted(np.unique(found)) == [0, 1, 2]


def refused(store: AnnotationStore, words: str, *arguments: Any, **options: Any) -> None:
    before = len(store)
    with pytest.raises(VolsamError, match=words) as caught:
        store.add(*arguments, **options)
    assert str(caught.value).endswith(".")
    assert len(store) == before
    assert not list(store.root.glob(".*.partial"))


def test_refusals(store: AnnotationStore) -> None:
    image, labels = crop()
    none = np.zeros_like(labels)
    all_unknown = np.ones(labels.shape, bool)
    region = Box((0, 0, 0), (1, 5, 5))
    refused(store, "no labelled object", image, none, None, place())
    refused(store, "no labelled object", image, labels, all_unknown, place())
    refused(store, "shape 1 × 30 × 39", image, labels[..., :-1], None, place())
    refused(store, "4 axes", image[None], labels, None, place())
    refused(store, "whole numbers", image, labels + 0.5, None, place())
    refused(store, "whole numbers", image, labels * np.float32(np.nan), None, place())
    refused(store, "negative label -7", image, -labels.astype(int), None, place())
    refused(store, "complex", image, labels.astype(complex), None, place())
    refused(store, "state the region", image, labels, None, place(region=region))
    broken = image.astype(np.float32)
    broken[0, 1, 2] = np.nan
    refused(store, "nan at z 0, y 1, x 2", broken, labels, None, place())


def test_duplicates_are_refused_and_replaced(store: AnnotationStore) -> None:
    image, labels = crop()
    first = store.add(image, labels, None, place())
    refused(store, f"content .* already, as {first.id}", image, labels, None, place(source="other"))
    more = labels.copy()
    more[0, 0, 0] = 9
    refused(store, f"region .* already, as {first.id}", image, more, None, place())
    # Another time point of the same file is another place.
    store.add(image + 1, labels, None, place(reading={"timepoint": 3}))
    assert len(store) == 2
    second = store.add(image, more, None, place(), replace=True)
    assert len(store) == 2
    assert first.id not in {a.id for a in store}
    assert second.provenance.objects == 3


def test_replacing_by_the_same_content_renews_what_is_said_of_it(store: AnnotationStore) -> None:
    image, labels = crop()
    first = store.add(image, labels, None, place(limits=(0, 10)))
    before = store.digest()
    second = store.add(image, labels, None, place(limits=(0, 20)), replace=True)
    assert second.id == first.id
    (found,) = store
    assert found.provenance.limits == (0, 20)
    np.testing.assert_array_equal(found.labels(), labels)
    assert store.digest() != before


def test_digest_tells_what_training_would_notice(tmp_path: Path) -> None:
    first, second = (AnnotationStore(tmp_path / name) for name in "ab")
    assert len(first) == 0
    empty = first.digest()
    assert empty == second.digest()
    one, two = (crop(seed) for seed in (1, 2))
    elsewhere = place(region=Box((9, 0, 0), (10, 30, 40)))
    first.add(*one, None, place())
    alone = first.digest()
    first.add(*two, None, elsewhere)
    second.add(*two, None, elsewhere)
    second.add(*one, None, place())
    assert len({empty, alone, first.digest()}) == 3
    assert first.digest() == second.digest()  # whatever the order and the date
    assert [a.id for a in first] == sorted(a.id for a in second)


def test_a_kill_leaves_nothing_that_counts(
    store: AnnotationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, labels = crop()

    class Killed(BaseException):
        pass

    def kill(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(crops, "create_labels", kill)
        with pytest.raises(Killed):
            store.add(image, labels, None, place())
    assert list(store.root.glob(".*.partial"))
    assert len(store) == 0
    assert list(store) == []
    store.add(image, labels, None, place())
    assert len(store) == 1
    assert not list(store.root.glob(".*.partial"))


def test_what_is_no_annotation_is_said(store: AnnotationStore, tmp_path: Path) -> None:
    added = store.add(*crop(), None, place())
    file = added.path / "zarr.json"
    metadata = json.loads(file.read_text())
    metadata["attributes"]["volsam"]["annotation"]["region"] = "everywhere"
    file.write_text(json.dumps(metadata))
    with pytest.raises(VolsamError, match="its metadata are damaged"):
        list(store)
    image, labels = crop()
    (tmp_path / "other").mkdir()
    other = AnnotationStore(tmp_path / "other")
    path = other.root / "a.ome.zarr"
    crops.write_crop(path, image, {"objects": labels}, "suggestion", place())
    with pytest.raises(VolsamError, match="is a suggestion, not an annotation"):
        other.digest()
