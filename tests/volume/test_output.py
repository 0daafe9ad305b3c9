"""What is written is valid OME-Zarr, opens in napari, and keeps ids and geometry."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from ome_zarr_models import open_ome_zarr

from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.volume import labels, pyramid
from volsam.volume.ingest import create_image, plan_ingest, write_image_block
from volsam.volume.layout import (
    Layout,
    choose_layout,
    clip_layout,
    open_image_level,
    smallest_label_dtype,
)
from volsam.volume.source import Volume, open_volume
from volsam.volume.store import sweep_partial

LAYOUT = Layout((4, 16, 16), (8, 32, 32))
FACTORS = ((1, 2, 2), (2, 4, 4))
VERSIONS = ["0.4", "0.5"]


def ingest(source: Path, store: Path, version: str, layout: Layout = LAYOUT, **options) -> None:
    """The ingest stage without its runner."""
    volume = open_volume(source, **options)
    create_image(store, volume.info, layout, FACTORS, version)
    for _, box in plan_ingest(volume.info, layout):
        write_image_block(store, volume, box)
    write_levels(store, is_label=False)


def write_levels(image: Path, is_label: bool) -> None:
    """All levels of a pyramid, each from the one before."""
    for level, step in enumerate(pyramid.level_steps(FACTORS), start=1):
        source, target = (open_image_level(image, k) for k in (level - 1, level))
        for _, box in pyramid.plan_level(target):
            pyramid.write_level_block(source, target, box, step, is_label)


def make_labels(root: Path, blobs: np.ndarray, version: str = "0.5", **options) -> Path:
    """A label image with its pyramid."""
    arguments = {
        "shape": blobs.shape,
        "dtype": np.uint32,
        "chunks": LAYOUT.chunks,
        "shards": LAYOUT.shards,
        "voxel_size": (2.0, 0.5, 0.5),
        "unit": "micrometer",
        "factors": FACTORS,
        "version": version,
    }
    folder = labels.create_labels(root, **{**arguments, **options})
    labels.open_level(root, "objects", 0)[...] = blobs
    write_levels(folder, is_label=True)
    return folder


@pytest.fixture
def blobs() -> np.ndarray:
    """Labels in blocks of odd size."""
    shape = (11, 50, 70)
    cells = [np.arange(n) // s for n, s in zip(shape, (3, 7, 9), strict=True)]
    grid = (cells[0][:, None, None] * 8 + cells[1][:, None]) * 8 + cells[2]
    return np.where(grid % 3 == 0, 0, grid + 1).astype(np.uint32)


@pytest.fixture(params=["zyx", "czyx"])
def source(request, tmp_path: Path, write_ome_zarr) -> tuple[Path, np.ndarray]:
    """An input image and its voxels."""
    shape = (2,) * (len(request.param) - 3) + (11, 50, 70)
    image = np.random.default_rng(0).integers(0, 4000, shape, np.uint16)
    path = write_ome_zarr(tmp_path / "input.zarr", image, request.param, "0.4")
    zarr.open_group(path).attrs["omero"] = {"channels": [{"label": n} for n in "ab"]}
    return path, image


@pytest.mark.parametrize("version", VERSIONS)
def test_ingest_round_trip_and_validity(source, tmp_path: Path, version: str) -> None:
    path, image = source
    store = tmp_path / "image.ome.zarr"
    ingest(path, store, version)
    volume = open_volume(store, axes=None, voxel_size=None)
    whole = Box.of((11, 50, 70))
    assert np.array_equal(np.squeeze(volume.read_channels(whole)), image)
    assert volume.info.format == f"ome-zarr-{version}"
    assert volume.info.voxel_size == (2.0, 0.5, 0.5)
    assert volume.info.factors == FACTORS
    assert volume.info.channel_names == (("a", "b") if image.ndim == 4 else ())
    model = open_ome_zarr(store, version=version)
    assert type(model).__name__ == "Image"
    mean = open_image_level(store, 1, "r")[...]
    want = image.reshape(*image.shape[:-2], 25, 2, 35, 2).mean(axis=(-3, -1))
    assert np.abs(mean - want).max() <= 0.5
    coarse = open_volume(store, level=2).info
    assert coarse.translation == (1.0, 0.75, 0.75)
    array = open_image_level(store, 0, "r")
    extra = image.ndim - 3
    assert array.chunks == (1,) * extra + LAYOUT.chunks
    assert array.shards == (None if version == "0.4" else (1,) * extra + LAYOUT.shards)


@pytest.mark.parametrize("has_image", [True, False])
@pytest.mark.parametrize("version", VERSIONS)
def test_labels_are_valid_and_open_in_napari(
    source, tmp_path: Path, blobs: np.ndarray, version: str, has_image: bool
) -> None:
    from napari.components import ViewerModel
    from napari_ome_zarr import napari_get_reader

    store = tmp_path / "image.ome.zarr"
    if has_image:
        ingest(source[0], store, version)
    folder = make_labels(store, blobs, version, has_image=has_image)
    model = open_ome_zarr(folder, version=version)
    assert type(model).__name__ == "ImageLabel"
    if has_image:
        assert type(open_ome_zarr(store, version=version)).__name__ == "Image"
    info = open_volume(folder).info
    assert (info.voxel_size, info.factors, info.dtype) == ((2.0, 0.5, 0.5), FACTORS, "uint32")

    opened = store if has_image else folder
    reader = napari_get_reader(str(opened))
    assert reader is not None
    layers = reader(str(opened))
    kinds = [kind for _, _, kind in layers]
    assert kinds == (["image", "labels"] if has_image else ["labels"])
    viewer = ViewerModel()
    for data, options, kind in layers:
        known = {k: v for k, v in options.items() if k in ("name", "scale", "channel_axis")}
        (viewer.add_labels if kind == "labels" else viewer.add_image)(data, **known)
    shown = viewer.layers[-1]
    assert np.array_equal(np.asarray(shown.data[0]), blobs)
    assert tuple(shown.scale) == (2.0, 0.5, 0.5)


@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.parametrize("version", VERSIONS)
def test_labels_into_the_input(
    source, blobs: np.ndarray, version: str, consolidated: bool, tmp_path: Path, write_ome_zarr
) -> None:
    path = write_ome_zarr(tmp_path / "user.zarr", source[1], "czyx"[-source[1].ndim :], version)
    other = zarr.open_group(path).create_group("labels")
    theirs = {"labels": ["nuclei"]}
    other.attrs.put(theirs if version == "0.4" else {"ome": {"version": "0.5", **theirs}})
    other.create_array("nuclei", data=blobs)
    if consolidated:
        zarr.consolidate_metadata(path)
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    make_labels(path, blobs, version="0.5", has_image=True)
    may_change = {path / ".zmetadata", path / "zarr.json"} if consolidated else set()
    may_change |= {path / "labels" / n for n in (".zattrs", "zarr.json")}
    for file, content in before.items():
        assert file.read_bytes() == content or file in may_change
    attrs = zarr.open_group(path)["labels"].attrs.asdict()
    assert (attrs if version == "0.4" else attrs["ome"])["labels"] == ["nuclei", "objects"]
    assert type(open_ome_zarr(path / "labels" / "objects", version=version)).__name__ == (
        "ImageLabel"
    )
    # Made by us: may be made again. Made by another: stays.
    make_labels(path, blobs)
    with pytest.raises(VolsamError, match="not made by volsam"):
        make_labels(path, blobs, name="nuclei")


def test_a_killed_creation_can_be_repeated(tmp_path: Path, blobs: np.ndarray) -> None:
    folder = make_labels(tmp_path / "a.zarr", blobs)
    (folder / "0" / "c").rename(folder / ".c.123.partial")
    (folder / "1" / "x.456.partial").touch()
    assert sweep_partial(tmp_path) == 2
    for file in folder.iterdir():
        if file.is_dir():
            labels.discard(file)
    (folder / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    make_labels(tmp_path / "a.zarr", blobs)
    assert np.array_equal(labels.open_level(tmp_path / "a.zarr", "objects", 0, "r")[...], blobs)


def test_a_foreign_store_is_not_replaced(source, tmp_path: Path) -> None:
    path, image = source
    info = open_volume(path).info
    with pytest.raises(VolsamError, match="not made by volsam"):
        create_image(path, info, LAYOUT, (), "0.5")
    assert np.array_equal(
        np.squeeze(open_volume(path).read_channels(Box.of(info.shape))), np.squeeze(image)
    )
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").touch()
    with pytest.raises(VolsamError, match="not made by volsam"):
        create_image(tmp_path / "folder", info, LAYOUT, (), "0.5")
    assert (tmp_path / "folder" / "thesis.txt").exists()


def test_a_full_disk_is_one_sentence(source, tmp_path: Path) -> None:
    volume = open_volume(source[0])
    create_image(tmp_path / "a.zarr", volume.info, LAYOUT, (), "0.5")
    box = Box.of((8, 32, 32))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(VolsamError, match="Cannot write") as caught:
            write_image_block(tmp_path / "a.zarr", volume, box)
        # Looked at while the disk is full: shards are written side by side, and one still under way
        # when the first fails may be completed, whole, once there is room again.
        assert not open_image_level(tmp_path / "a.zarr", 0, "r")[...].any()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)


def test_2d_image(tmp_path: Path, write_ome_zarr) -> None:
    image = np.random.default_rng(0).integers(0, 255, (100, 90), np.uint8)
    path = write_ome_zarr(tmp_path / "a.zarr", image, "yx")
    ingest(
        path, tmp_path / "b.ome.zarr", "0.5", clip_layout((1, 100, 90), (1, 32, 32), (1, 64, 64))
    )
    volume = open_volume(tmp_path / "b.ome.zarr")
    assert volume.info.shape == (1, 100, 90)
    assert np.array_equal(volume.read(Box.of((1, 100, 90)))[0], image)


def test_ingest_blocks_are_whole_shards_and_cover_natural_reads(source) -> None:
    info = open_volume(source[0]).info
    boxes = [box for _, box in plan_ingest(info, LAYOUT)]
    seen = np.zeros(info.shape, int)
    for box in boxes:
        seen[box.slices] += 1
        assert all(a % s == 0 for a, s in zip(box.start, LAYOUT.unit, strict=True))
    assert (seen == 1).all()
    planes = [b for _, b in plan_ingest(_with_chunks(info, (1, 50, 70)), LAYOUT)]
    assert all(b.shape[1:] == (50, 70) for b in planes)


@pytest.mark.parametrize("room", [1, 8000, 2**28])
def test_channels_are_copied_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    image = np.random.default_rng(0).integers(1, 99, (7, 3, 20, 30)).astype(np.uint16)
    zarr.create_array(tmp_path / "a", data=image, chunks=(1, 3, 8, 8))
    ingest(tmp_path / "a", tmp_path / "b.ome.zarr", "0.5", axes="czyx", voxel_size=(1, 1, 1))
    copy = open_image_level(tmp_path / "b.ome.zarr", 0)
    copy[...] = 0
    monkeypatch.setattr("volsam.volume.ingest._BLOCK_BYTES", room)
    volume, read = open_volume(tmp_path / "a", axes="czyx", voxel_size=(1, 1, 1)), []
    monkeypatch.setattr(
        volume, "read_channels", lambda *of: read.append(of) or Volume.read_channels(volume, *of)
    )
    assert write_image_block(tmp_path / "b.ome.zarr", volume, Box.of((3, 20, 30))) == image.nbytes
    assert np.array_equal(copy[...], image)
    assert len(read) == {1: 7, 8000: 4, 2**28: 1}[room]


def test_blocks_are_not_listed(tmp_path: Path) -> None:
    """The driver never holds them, be they as many as here."""
    zarr.create_array(tmp_path / "a", shape=(10**5,) * 3, chunks=(8, 64, 64), dtype="u1")
    info = open_volume(tmp_path / "a", axes="zyx").info
    for blocks in (plan_ingest(info, LAYOUT), pyramid.plan_level(zarr.open_array(tmp_path / "a"))):
        assert next(iter(blocks))[0] == (0, 0, 0)


def _with_chunks(info, chunks):
    from dataclasses import replace

    return replace(info, chunks=chunks)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    step=st.tuples(*[st.integers(1, 3)] * 3),
    seed=st.integers(0, 99),
)
def test_downsampling_against_plain_loops(shape, step, seed: int) -> None:
    rng = np.random.default_rng(seed)
    block = rng.integers(0, 4, shape).astype(np.uint32) * 1000
    coarse = pyramid.downsample_labels(block, step)
    mean = pyramid.downsample_mean(block.astype(np.uint16), step)
    grown = [np.pad(block, [(0, -n % s) for n, s in zip(shape, step, strict=True)], mode="edge")]
    for index in np.ndindex(coarse.shape):
        box = tuple(slice(i * s, (i + 1) * s) for i, s in zip(index, step, strict=True))
        ids, counts = np.unique(grown[0][box], return_counts=True)
        best = ids[counts == counts.max()]
        assert coarse[index] == (best[best > 0].min() if (best > 0).any() else 0)
        assert abs(mean[index] - block[box].mean()) <= 0.501
    assert coarse.dtype == np.uint32
    assert set(np.unique(coarse)) <= set(np.unique(block))


def test_pyramids_of_labels_keep_to_ids_of_level_0(tmp_path: Path, blobs: np.ndarray) -> None:
    make_labels(tmp_path / "a.zarr", blobs.astype(np.uint64) + 2**40, dtype=np.uint64)
    for level in (1, 2):
        array = labels.open_level(tmp_path / "a.zarr", "objects", level, "r")[...]
        assert set(np.unique(array)) <= set(np.unique(blobs.astype(np.uint64) + 2**40))


def test_mean_of_extremes() -> None:
    for dtype in (np.uint8, np.int16, np.uint64, np.int64):
        limits = np.iinfo(dtype)
        for value in (limits.min, limits.max):
            block = np.full((2, 4, 4), value, dtype)
            mean = pyramid.downsample_mean(block, (1, 2, 2))
            assert np.allclose(mean.astype(float), float(value), rtol=1e-12)
    floats = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    assert pyramid.downsample_mean(floats, (2, 2, 2)).item() == 3.5


@pytest.mark.parametrize(
    ("shape", "voxel_size", "expected"),
    [
        ((1, 20000, 20000), (1, 1, 1), 7),
        ((64, 512, 512), (4, 1, 1), 1),
        ((100, 200, 200), (1, 1, 1), 0),
    ],
)
def test_number_of_levels(shape, voxel_size, expected: int) -> None:
    assert len(pyramid.choose_factors(shape, voxel_size)) == expected


def test_z_is_halved_only_where_that_is_more_isotropic() -> None:
    factors = pyramid.choose_factors((400, 4096, 4096), (4.0, 1.0, 1.0))
    assert factors == ((1, 2, 2), (1, 4, 4), (2, 8, 8), (4, 16, 16))
    assert pyramid.choose_factors((400, 1024, 1024), None) == ((1, 2, 2), (1, 4, 4))
    assert pyramid.level_steps(factors) == [(1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)]


@settings(max_examples=100, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3000), st.integers(1, 30000), st.integers(1, 30000)),
    dtype=st.sampled_from(["uint8", "uint16", "float32", "float64"]),
    version=st.sampled_from(VERSIONS),
)
def test_layouts_are_whole_and_of_the_wanted_size(shape, dtype: str, version: str) -> None:
    layout = choose_layout(shape, dtype, version)
    itemsize = np.dtype(dtype).itemsize
    assert np.prod(layout.chunks) * itemsize <= 2 << 20
    assert all(1 <= c <= n for c, n in zip(layout.chunks, shape, strict=True))
    if version == "0.4":
        assert layout.shards is None
        return
    assert np.prod(layout.shards) * itemsize <= 128 << 20
    assert all(s % c == 0 for s, c in zip(layout.shards, layout.chunks, strict=True))
    if all(n >= 4096 for n in shape[1:]) and shape[0] >= 64:
        assert np.prod(layout.chunks) * itemsize >= 1 << 20
        assert np.prod(layout.shards) * itemsize >= 64 << 20


def test_shard_must_be_whole_chunks() -> None:
    with pytest.raises(VolsamError, match="whole number of chunks"):
        clip_layout((64, 512, 512), (8, 256, 256), (8, 384, 512))


def test_label_types() -> None:
    assert smallest_label_dtype(10) == np.uint32
    assert smallest_label_dtype(2**32) == np.uint64
    assert smallest_label_dtype(255, "uint8") == np.uint8
    with pytest.raises(VolsamError, match="256 objects do not fit into uint8"):
        smallest_label_dtype(256, "uint8")
    with pytest.raises(VolsamError, match="cannot be int32"):
        smallest_label_dtype(1, "int32")
