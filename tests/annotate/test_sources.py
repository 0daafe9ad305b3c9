"""Every kind of corrected labels becomes the same kind of crop; what does not fit is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from volsam.annotate.checks import UNKNOWN, Meaning
from volsam.annotate.crops import Provenance, content_digest, read_provenance, write_crop
from volsam.annotate.pictures import Crop, Settings
from volsam.annotate.runs import FinishedRun
from volsam.annotate.sources import read
from volsam.annotate.store import AnnotationStore
from volsam.config import Region
from volsam.errors import VolsamError
from volsam.geometry import Box

SHAPE = (3, 40, 50)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.tif"
    voxels = np.random.default_rng(0).integers(0, 4000, SHAPE).astype(np.uint16)
    tifffile.imwrite(path, voxels, photometric="minisblack", metadata={"axes": "ZYX"})
    return path


@pytest.fixture
def labels() -> NDArray[np.uint16]:
    array = np.zeros(SHAPE, np.uint16)
    array[:, 5:15, 5:15], array[1, 20:30, 20:35] = 3, 8
    return array


def one(path: Path, **settings: Any) -> Crop:
    (crop,) = read(path, Settings(**settings))
    return crop


def refused(path: Path, words: str, **settings: Any) -> None:
    with pytest.raises(VolsamError, match=words) as caught:
        one(path, **settings)
    assert str(caught.value).endswith(".")


def save(path: Path, array: NDArray[Any], **options: Any) -> Path:
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".zarr":
        zarr.create_array(path, data=array)
    else:
        tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})
    return path


@pytest.mark.parametrize("name", ["layer.tif", "layer.npy", "layer.zarr"])
@pytest.mark.parametrize("dtype", ["uint16", "int64", "float32"])
def test_a_saved_layer(
    name: str, dtype: str, image: Path, labels: NDArray[Any], tmp_path: Path
) -> None:
    if name == "layer.tif" and dtype == "int64":
        pytest.skip("napari saves no such TIFF")
    crop = one(save(tmp_path / name, labels.astype(dtype)), image=image, tool="micro-sam")
    np.testing.assert_array_equal(crop.labels, labels)
    np.testing.assert_array_equal(crop.ignore, labels == 0)
    np.testing.assert_array_equal(crop.image, tifffile.imread(image))
    p = crop.provenance
    assert (p.source, p.region, p.tool) == (str(image), Box.of(SHAPE), "micro-sam")
    assert p.limits == pytest.approx(tuple(np.percentile(crop.image, (1, 99.8))))
    assert AnnotationStore(tmp_path / "store").add(crop.image, crop.labels, crop.ignore, p)


@pytest.mark.parametrize("part", [False, True])
def test_a_region_of_labels_of_the_whole_or_of_the_part(
    part: bool, image: Path, labels: NDArray[Any], tmp_path: Path
) -> None:
    given = labels[1, 10:40, 0:40] if part else labels
    region = Region(z=[1, 2], y=[10, 40], x=[0, 40])
    crop = one(save(tmp_path / "l.tif", given), image=image, region=region)
    np.testing.assert_array_equal(crop.labels[0], labels[1, 10:40, 0:40])
    np.testing.assert_array_equal(crop.image[0], tifffile.imread(image)[1, 10:40, 0:40])
    assert crop.provenance.region == Box((1, 10, 0), (2, 40, 40))
    # Limits are of the whole source.
    whole = np.percentile(tifffile.imread(image), (1, 99.8))
    assert crop.provenance.limits == pytest.approx(tuple(whole))


def test_what_values_say(image: Path, labels: NDArray[Any], tmp_path: Path) -> None:
    painted = labels.astype(np.int16)
    painted[0, 30:, :], painted[2, 30:, :] = -1, 99
    path = save(tmp_path / "l.tif", painted)
    refused(path, "negative label -1", image=image)
    crop = one(path, image=image, meaning=Meaning(False, -1, 99))
    assert set(np.unique(crop.labels)) == {0, 3, 8}
    expected = (painted == 0) | (painted == -1)
    np.testing.assert_array_equal(crop.ignore != 0, expected)
    np.testing.assert_array_equal(crop.ignore == UNKNOWN, painted == -1)
    crop = one(path, image=image, meaning=Meaning(True, -1, 99))
    np.testing.assert_array_equal(crop.ignore != 0, painted == -1)
    assert crop.provenance.complete


def test_refusals_of_files(image: Path, labels: NDArray[Any], tmp_path: Path) -> None:
    path = save(tmp_path / "l.tif", labels)
    refused(path, "which image was labelled")
    refused(tmp_path / "none.tif", "nothing at")
    refused(path, "reaches beyond", image=image, region=Region(y=[30, 60]))
    refused(save(tmp_path / "s.tif", labels[:, :-1]), "3 × 39 × 50 but its image", image=image)
    refused(save(tmp_path / "p.tif", labels[0]), "1 × 40 × 50 but its image", image=image)
    half = save(tmp_path / "h.npy", labels * 0.5)
    refused(half, "value 1.5; labels must be whole", image=image)
    picture = save(tmp_path / "rgb.tif", np.zeros((40, 50, 3), np.uint8), photometric="rgb")
    refused(picture, "3 channels; labels have one", image=image)
    times = save(tmp_path / "t.tif", labels, metadata={"axes": "TYX"})
    refused(times, "time points", image=image)
    objects = np.array([{}, 1], object)
    np.save(tmp_path / "o.npy", objects, allow_pickle=True)
    refused(tmp_path / "o.npy", "cannot be read as an array", image=image)
    text = tmp_path / "l.txt"
    text.write_text("1 2 3")
    refused(text, "no TIFF, HDF5 or Zarr", image=image)


def write_suggestion(folder: Path, labels: NDArray[Any]) -> Path:
    path = folder / "a-1.ome.zarr"
    image = np.arange(40 * 50, dtype=np.uint16).reshape(1, 40, 50)
    provenance = Provenance(
        source="/data/a.tif",
        region=Box((7, 0, 50), (8, 40, 100)),
        limits=(10, 3000),
        shape=(1, 40, 50),
        tool="volsam",
    )
    truth = labels[1:2].astype(np.uint32)
    more = {"prediction": content_digest(truth)}
    write_crop(path, image, {"objects": truth}, "suggestion", provenance, more)
    return path


def test_an_edited_suggestion(labels: NDArray[Any], tmp_path: Path) -> None:
    path = write_suggestion(tmp_path, labels)
    assert "nothing was corrected" in one(path).warnings[0]
    array = zarr.open_array(path / "labels" / "objects" / "0", mode="r+")
    array[0, 35, 45] = 12
    crop = one(path, meaning=Meaning(complete=True), author="ada")
    assert crop.warnings == ()
    p = crop.provenance
    assert (p.source, p.region, p.limits) == (
        "/data/a.tif",
        Box((7, 0, 50), (8, 40, 100)),
        (10, 3000),
    )
    assert (p.tool, p.author, p.complete, p.date) == ("napari", "ada", True, "")
    assert crop.labels[0, 35, 45] == 12
    assert not crop.ignore.any()
    refused(path, "knows its image", image=path)
    refused(path, "no labels 'cells'", label_key="cells")


def test_a_layer_saved_from_a_suggestion(labels: NDArray[Any], tmp_path: Path) -> None:
    path = write_suggestion(tmp_path, labels)
    edited = labels[1].copy()
    edited[0, 0] = 5
    crop = one(save(tmp_path / "corrected.tif", edited), image=path)
    assert crop.provenance.region == read_provenance(path).region
    assert crop.provenance.limits == (10, 3000)
    np.testing.assert_array_equal(crop.labels[0], edited)
    refused(save(tmp_path / "b.tif", edited[1:]), "but its image", image=path)


def test_an_annotation_edited_in_place(labels: NDArray[Any], tmp_path: Path) -> None:
    store = AnnotationStore(tmp_path / "store")
    image = np.ones((1, 40, 50), np.uint8)
    ignore = np.zeros(image.shape, bool)
    ignore[0, :, 40:] = True
    provenance = Provenance(source="x", complete=True)
    added = store.add(image, labels[:1], ignore, provenance)
    array = zarr.open_array(added.path / "labels" / "truth" / "0", mode="r+")
    array[0, 0, 45] = 20
    crop = one(added.path)
    ignore[0, 0, 45] = False
    np.testing.assert_array_equal(crop.ignore, ignore)
    assert crop.provenance.complete
    store.add(crop.image, crop.labels, crop.ignore, crop.provenance, replace=True)
    (again,) = store
    assert again.id != added.id
    assert again.labels()[0, 0, 45] == 20


# --- Cell Tracking Challenge ---------------------------------------------------------------------


def test_ctc_frames(tmp_path: Path) -> None:
    images, gold, silver = (tmp_path / n for n in ("01", "01_GT/SEG", "01_ST/SEG"))
    for folder in (images, gold, silver):
        folder.mkdir(parents=True)
    mask = np.zeros((20, 30), np.uint16)
    mask[4:9, 4:9] = 2
    for number in range(3):
        save(images / f"t{number:03}.tif", np.full((20, 30), number, np.uint8))
        save(silver / f"man_seg{number:03}.tif", mask)
    save(gold / "man_seg002.tif", mask)
    for folder in (tmp_path, images, tmp_path / "01_GT"):
        crop = one(folder)
        assert crop.provenance.source == str(images / "t002.tif")
        assert crop.provenance.tool == "ctc gold truth"
        assert (crop.image == 2).all()
        np.testing.assert_array_equal(crop.labels[0], mask)
    crops = list(read(images, Settings(silver=True)))
    assert [int(c.image[0, 0, 0]) for c in crops] == [0, 1, 2]
    store = AnnotationStore(tmp_path / "store")
    for crop in crops:
        store.add(crop.image, crop.labels, crop.ignore, crop.provenance)
    assert len(store) == 3
    refused(images, "leave out --region", region=Region(y=[0, 5]))
    (images / "t002.tif").unlink()
    refused(images, "which is missing")
    (gold / "man_seg002.tif").unlink()
    refused(images, "has no masks .* --silver")


def test_ctc_slices_of_volumes(tmp_path: Path) -> None:
    images, gold = tmp_path / "02", tmp_path / "02_GT" / "SEG"
    images.mkdir()
    gold.mkdir(parents=True)
    volume = np.arange(5 * 20 * 30, dtype=np.uint16).reshape(5, 20, 30)
    save(images / "t000.tif", volume)
    mask = np.ones((20, 30), np.uint16)
    save(gold / "man_seg_000_003.tif", mask)
    crop = one(images)
    np.testing.assert_array_equal(crop.image, volume[3:4])
    assert crop.provenance.region == Box((3, 0, 0), (4, 20, 30))
    save(gold / "man_seg_000_003.tif", mask[1:])
    refused(images, "1 × 19 × 30 but its image 1 × 20 × 30")


# --- QuPath --------------------------------------------------------------------------------------


def feature(geometry: dict[str, Any], class_: str = "", **properties: Any) -> dict[str, Any]:
    if class_:
        properties["classification"] = {"name": class_, "color": [1, 2, 3]}
    properties = {"objectType": "annotation", **properties}
    return {"type": "Feature", "id": "x", "geometry": geometry, "properties": properties}


def rectangle(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]


def area(*rings: list[list[float]], **more: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings), **more}


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return save(tmp_path / "slide.tif", np.random.default_rng(0).random((40, 50), np.float32))


def geojson(path: Path, *features: dict[str, Any], collection: bool = True) -> Path:
    data = {"type": "FeatureCollection", "features": features} if collection else list(features)
    text = json.dumps(data).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("name", ["q.geojson", "q.geojson.gz", "q.json"])
def test_qupath_objects(name: str, slide: Path, tmp_path: Path) -> None:
    hole = rectangle(12, 12, 15, 14)
    parts = [[rectangle(30, 2, 33, 5)], [rectangle(30, 8, 33, 9)]]
    path = geojson(
        tmp_path / name,
        feature(area(rectangle(10, 10, 20, 18), hole), "Cell"),
        feature({"type": "MultiPolygon", "coordinates": parts}),
        feature({"type": "Point", "coordinates": [3, 3]}),
        feature(area(rectangle(0, 0, 50, 40)), objectType="tile"),
        collection=name != "q.json",
    )
    crop = one(path, image=slide)
    expected = np.zeros((40, 50), int)
    expected[10:18, 10:20] = 1
    expected[12:14, 12:15] = 0
    expected[2:5, 30:33] = expected[8:9, 30:33] = 2
    np.testing.assert_array_equal(crop.labels[0], expected)
    np.testing.assert_array_equal(crop.ignore[0], expected == 0)
    assert crop.provenance.tool == "qupath"
    assert "1 objects" in crop.warnings[0]


def test_qupath_overlaps_classes_and_ellipses(slide: Path, tmp_path: Path) -> None:
    path = geojson(
        tmp_path / "q.geojson",
        feature(area(rectangle(0, 0, 30, 40)), "Region*"),
        feature(area(rectangle(2, 2, 8, 8))),
        feature(area(rectangle(6, 2, 12, 8))),
        feature(area(rectangle(20, 30, 30, 40)), "Ignore*"),
        feature(area(rectangle(35, 10, 45, 20), isEllipse=True)),
    )
    crop = one(path, image=slide)
    labels, ignore = crop.labels[0], crop.ignore[0]
    assert (labels[2:8, 2:6] == 1).all()
    assert (labels[2:8, 6:12] == 2).all()
    assert "12 pixels" in crop.warnings[0]
    assert np.count_nonzero(labels == 3) == pytest.approx(np.pi * 25, rel=0.05)
    # Everything is labelled in the region; in the ignored part of it, and elsewhere, nothing is known.
    assert not ignore[:30, :30].any()
    assert ignore[30:, 20:30].all()
    assert (ignore[:, 30:] == (labels[:, 30:] == 0)).all()
    complete = one(path, image=slide, meaning=Meaning(complete=True))
    assert np.count_nonzero(complete.ignore) == 100


def test_qupath_planes_and_regions(image: Path, tmp_path: Path) -> None:
    path = geojson(
        tmp_path / "q.geojson",
        feature(area(rectangle(10, 10, 20, 18), plane={"c": -1, "z": 2, "t": 0})),
        feature(area(rectangle(0, 0, 5, 5))),
    )
    crop = one(path, image=image, region=Region(z=[2, 3], y=[8, 28], x=[15, 45]))
    expected = np.zeros((1, 20, 30), bool)
    expected[0, 2:10, 0:5] = True
    np.testing.assert_array_equal(crop.labels > 0, expected)


def test_qupath_refusals(slide: Path, tmp_path: Path) -> None:
    broken = tmp_path / "b.geojson"
    for text in ('{"type": "Feature', '{"type": "Polygon"}', "[3]", "{}"):
        broken.write_text(text)
        refused(broken, "no GeoJSON", image=slide)
    thin = geojson(tmp_path / "t.geojson", feature(area([[0, 0], [1, 1]])))
    refused(thin, "no GeoJSON", image=slide)
    refused(thin, "has no label values", image=slide, meaning=Meaning(ignore_label=3))
    refused(thin, "which image was labelled")


@pytest.mark.parametrize(
    ("asked", "method", "stretched"),
    [("auto", "minmax", False), ("auto", "percentile", True), ("minmax", "minmax", True)],
)
def test_limits_of_a_run_are_those_that_a_new_model_takes(
    asked: str, method: str, stretched: bool, image: Path, tmp_path: Path
) -> None:
    """Not those of its model, which may have asked for others than models trained here."""
    used = {"method": method, "low": [7.0], "high": [9.0]}
    plan = SimpleNamespace(
        normalisation=used, image={"path": image}, voxel_size=(1, 1, 1), unit="micrometer"
    )
    normalise = {"method": asked, "lower": 1.0, "upper": 99.8, "scope": "volume"}
    run = FinishedRun(tmp_path, plan, str(image), {}, normalise, tmp_path, "objects")  # type: ignore[arg-type]
    known = run.provenance(Box((0, 0, 0), (1, 8, 8)))
    percentiles = tuple(np.percentile(tifffile.imread(image), (1, 99.8)))
    assert known.limits == pytest.approx((7, 9) if stretched else percentiles)
    assert known.extremes == ((7, 9) if method == "minmax" else None)


def test_few_slices_saved_as_colours(labels: NDArray[Any], image: Path, tmp_path: Path) -> None:
    path = tmp_path / "layer.tif"
    with pytest.warns(DeprecationWarning, match="photometric"):
        tifffile.imwrite(path, labels, compression="zlib")  # as napari does
    for stated in (None, "zyx"):
        crop = one(path, image=image, label_axes=stated)
        np.testing.assert_array_equal(crop.labels, labels)
    part = one(path, image=image, region=Region(z=[1, 2]))
    np.testing.assert_array_equal(part.labels[0], labels[1])


def test_painted_over_what_was_known(labels: NDArray[Any], tmp_path: Path) -> None:
    store = AnnotationStore(tmp_path / "store")
    ignore = np.zeros((1, 40, 50), np.bool_)
    ignore[0, :, 40:] = True
    added = store.add(np.ones((1, 40, 50), np.uint8), labels[:1], ignore, Provenance(source="x"))
    array = zarr.open_array(added.path / "labels" / "truth" / "0", mode="r+")
    array[0, 20:30, 20:30] = 98
    crop = one(added.path, meaning=Meaning(False, 98))
    assert (crop.ignore[0, 20:30, 20:30] == UNKNOWN).all()
    ignore[0, 20:30, 20:30] = True
    np.testing.assert_array_equal(crop.ignore != 0, ignore)


def test_qupath_objects_beside_the_image(slide: Path, tmp_path: Path) -> None:
    inside, away = rectangle(10, 10, 20, 18), rectangle(60, 10, 70, 18)
    path = geojson(
        tmp_path / "q.geojson",
        *(feature(area(one_)) for one_ in (inside, away)),
        feature(area(inside, plane={"c": -1, "z": 4, "t": 0})),
    )
    crop = one(path, image=slide)
    assert set(np.unique(crop.labels)) == {0, 1}
    assert "2 objects of" in crop.warnings[0]
    assert "outside of the image" in crop.warnings[0]
    refused(geojson(path, feature(area(away))), "All 1 objects .* outside", image=slide)
