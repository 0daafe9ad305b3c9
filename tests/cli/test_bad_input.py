"""Bad input on the command line: one sentence, exit code 1, nothing half-written, input unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from spoils import IMAGE, Refusal, Spoil, Write

if TYPE_CHECKING:
    from conftest import Bench


# Settings that no command accepts: change of the configuration, words of the sentence.
SETTINGS: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], object], tuple[str, ...]]] = {
    "unknown key": (lambda d, s: d.update(tile={"size": 64}), ("Key tile ", "unknown")),
    "unknown key of a sample": (lambda d, s: s.update(voxels=1), ("samples.a.voxels", "unknown")),
    "wrong type": (lambda d, s: d["tiles"].update(size="big"), ("tiles.size", "'big'")),
    "infinite": (lambda d, s: d.update(scale={"diameter": float("inf")}), ("scale.diameter",)),
    "no image": (lambda d, s: s.pop("image"), ("samples.a.image", "missing")),
    "empty image": (lambda d, s: s.update(image=""), ("samples.a.image",)),
    "empty predictions": (lambda d, s: d.update(model="predictions:"), ("model", "colon")),
    "no samples": (lambda d, s: d.update(samples={}), ("samples",)),
    "sample name": (lambda d, s: d["samples"].update({"../b": s}), ("../b",)),
    "negative voxel": (lambda d, s: s["voxel_size"].update(x=-1), ("voxel_size.x", "-1")),
    "both scales": (
        lambda d, s: d.update(scale={"diameter": 9, "pixel_size": 1}),
        ("scale", "not both"),
    ),
    "torn shard": (
        lambda d, s: d.update(output={"chunk": [1, 9, 9], "shard": [1, 10, 10]}),
        ("output", "whole number of chunks"),
    ),
    "override of nothing": (
        lambda d, s: s.update(overrides={"size": {}}),
        ("samples.a.overrides.size",),
    ),
    "override of a wrong type": (lambda d, s: s.update(overrides={"scale": 5}), ("scale", "5")),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(bench: Bench, name: str) -> None:
    change, words = SETTINGS[name]
    change(bench.data, bench.sample)
    bench.refuses("ingest", *words)
    assert not bench.results.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ("config.yaml", "No such file")),
        (b"", ("config.yaml", "holds no keys")),
        (b"- 1\n- 2\n", ("config.yaml", "holds no keys")),
        (b"samples: {a: [\n", ("config.yaml", "no valid YAML", "line")),
        (b"samples: !!python/object:os.system {}\n", ("config.yaml", "no valid YAML")),
        (b"\x89PNG\xff\xfe\x00", ("config.yaml", "no text file")),
    ],
    ids=["missing", "empty", "list", "torn", "object", "binary"],
)
def test_configuration_file(
    bench: Bench, refusal: Refusal, content: bytes | None, words: tuple[str, ...]
) -> None:
    path = bench.root / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    for command in (("plan",), ("run", "ingest", "--sample", "a")):
        refusal(bench.call(*command, "--config", path), *words)
    text = '{"samples":\n\n{"a"'
    refusal(bench.call("plan", "--config", text), "given as text", "no valid YAML")


def test_names(bench: Bench, refusal: Refusal) -> None:
    refusal(bench.call("run", "sgment", *bench.arguments("plan")[2:]), "'sgment'", "ingest")
    refusal(bench.call("plan", "--config", bench.config(), "--sample", "b"), "'b'", "it has a")
    refusal(bench.run("ingest", "--cluster", "moon"), "'moon'", "local")
    outcome = bench.run("ingest", "--wrkers", "2")
    assert outcome.code == 2
    assert "--wrkers" in outcome.err
    assert "Traceback" not in outcome.err


def test_other_commands(bench: Bench, refusal: Refusal) -> None:
    config = bench.config()
    preview = ("preview", "--config", config, "--region")
    refusal(bench.call(*preview, "z=1-2"), "'z=1-2'", "z=10:12")
    refusal(bench.call(*preview, "z=7:9"), "Region z", "4 voxels")
    for region in ((), ("--region", "z=0:1")):
        unknown = bench.call("preview", "--config", config, "--sample", "nope", *region)
        refusal(unknown, "no sample 'nope'", "it has a")
    train = "{task: train, train: {name: mine}}"
    for command in ("preview", "plan", "clean"):
        refusal(bench.call(command, "--config", train), "no samples")
    refusal(bench.call("summary", "--config", config), "Sample a", "not finished")
    refusal(bench.call("view", bench.root), str(bench.root), "no finished labels")
    assert not bench.results.exists()


# Images that the first stage refuses.


def _truncated(b: Bench) -> None:
    path = b.folder / "image.tif"
    path.write_bytes(path.read_bytes()[:5000])


def _tiff(image: np.ndarray, **options: Any) -> Spoil:
    options["photometric"] = "minisblack"
    return lambda b: tifffile.imwrite(b.folder / "image.tif", image, **options)


def _hdf5(key: str, image: np.ndarray) -> Spoil:
    def spoil(b: Bench) -> None:
        b.sample["image"] = str(b.folder / "image.h5")
        with h5py.File(b.sample["image"], "w") as file:
            file["raw"] = image
        b.sample["key"] = key

    return spoil


def _torn_hdf5(b: Bench) -> None:
    _hdf5("raw", IMAGE)(b)
    path = b.folder / "image.h5"
    path.write_bytes(path.read_bytes()[:9000])


def _folder(b: Bench) -> None:
    (b.folder / "planes").mkdir()
    tifffile.imwrite(b.folder / "planes" / "0.tif", IMAGE[0])
    tifffile.imwrite(b.folder / "planes" / "1.tif", IMAGE[1, :, 1:])
    b.sample["image"] = str(b.folder / "planes")


def _at(name: str, content: bytes | None = None) -> Spoil:
    def spoil(b: Bench) -> None:
        b.sample["image"] = str(b.folder / name)
        if content is not None:
            (b.folder / name).write_bytes(content)

    return spoil


IMAGES: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "missing": (_at("no.tif"), ("nothing at", "no.tif")),
    "truncated": (_truncated, ("image.tif",)),
    "empty": (_at("e.tif", b""), ("e.tif",)),
    "a picture": (_at("a.png", b"\x89PNG\r\n\x1a\n" + bytes(99)), ("a.png", "no TIFF")),
    "text": (_at("a.tif", b"not an image at all\n" * 9), ("a.tif", "no TIFF")),
    "folder of nothing": (lambda b: b.sample.update(image=str(b.root)), ("neither Zarr",)),
    "unequal planes": (_folder, ("1.tif", "equal")),
    "no key": (_hdf5("rwa", IMAGE), ("image.h5", "'rwa'", "raw")),
    "truncated HDF5": (_torn_hdf5, ("image.h5", "truncated")),
    "complex": (_hdf5("raw", IMAGE.astype(np.complex64)), ("image.h5", "complex64")),
    "zero-size axis": (_hdf5("raw", np.zeros((0, 40, 44), np.uint8)), ("Axis z", "size 0")),
    "channels as z": (
        _tiff(IMAGE, metadata={"axes": "CYX"}, ome=True),
        ("image.tif", "4 channels"),
    ),
    "no voxel size": (lambda b: b.sample.pop("voxel_size"), ("image.tif", "voxel_size")),
    "no length": (lambda b: b.sample.update(unit="kg"), ("'kg'", "image.tif")),
    "axes": (lambda b: b.sample.update(axes="czyx"), ("4 axes", "image.tif")),
    "labels into a TIFF": (
        lambda b: b.data.update(output={"labels_into": "input"}),
        ("image.tif", "labels_into: results"),
    ),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images(bench: Bench, name: str) -> None:
    spoil, words = IMAGES[name]
    spoil(bench)
    bench.refuses("ingest", *words)


def _nan(b: Bench) -> None:
    image = IMAGE.astype(np.float32)
    image[2, 5, 7] = np.nan
    _tiff(image)(b)


def _damaged_plane(b: Bench) -> None:
    path = b.folder / "image.tif"
    tifffile.imwrite(path, IMAGE, compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[2].dataoffsets[0]
    raw = bytearray(path.read_bytes())
    raw[offset : offset + 64] = bytes(64)
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(_nan, ("nan", "z 2, y 5, x 7")), (_damaged_plane, ("z 0–3", "damaged"))],
    ids=["NaN", "damaged plane"],
)
def test_voxels(bench: Bench, spoil: Spoil, words: tuple[str, ...]) -> None:
    """What only the voxels show is no matter of the forecast, which reads none."""
    spoil(bench)
    bench.refuses("ingest", "image.tif", *words, plan=False)


def test_ome_zarr(bench: Bench, ome_zarr: Write, refusal: Refusal) -> None:
    for order, words in {
        "zcyx": ("outside the OME-Zarr specification",),
        "qzyx": ("not all of t, c, z, y, x",),
        "tzyx": ("2 time points", "timepoint"),
    }.items():
        bench.sample["axes"] = None
        ome_zarr(np.stack([IMAGE] * 2, axis=order.find("c") if "c" in order else 0), order)
        bench.refuses("ingest", "image.zarr", *words)
    bench.sample["timepoint"] = 7
    bench.refuses("ingest", "image.zarr", "Time point 7")
    (bench.folder / "image.zarr" / "zarr.json").write_text("{ torn")
    bench.refuses("ingest", "image.zarr")


def test_foreign_labels_in_the_input(bench: Bench, ome_zarr: Write) -> None:
    root = zarr.open_group(ome_zarr(IMAGE))
    root.create_group("labels/objects").create_array("0", data=IMAGE)
    bench.data["output"] = {"labels_into": "input"}
    bench.refuses("ingest", "labels/objects", "not made by volsam")


def test_missing_chunks_are_told_once(bench: Bench, ome_zarr: Write) -> None:
    path = ome_zarr(IMAGE)
    for x in "12":  # two together, as where data end
        (path / "0" / "c" / "1" / "0" / x).unlink()
    told = f"warning: 2 of 12 chunks of {path} are missing and read as 0."
    plan, ingest, stage = bench.plan(), bench.run("ingest"), bench.run("plan")
    assert plan.code == ingest.code == stage.code == 0
    assert plan.out.count(told) == 1
    assert (ingest.err + stage.err).count(told) == 1


def test_a_lost_chunk_is_refused(bench: Bench, ome_zarr: Write) -> None:
    path = ome_zarr(IMAGE)
    (path / "0" / "c" / "1" / "0" / "2").unlink()
    bench.refuses("plan", "z 2–3", "probably lost")
    bench.sample["region"] = {"z": [0, 2]}
    assert bench.plan().code == 0
    # A plain array is refused before anything is copied.
    bench.sample |= {"image": str(path / "0"), "axes": "zyx", "region": None}
    bench.results = bench.root / "more"
    bench.data["results"] = str(bench.results)
    bench.refuses("ingest", "z 2–3", "probably lost")


def test_a_damaged_chunk_is_refused(bench: Bench, ome_zarr: Write) -> None:
    chunk = ome_zarr(IMAGE) / "0" / "c" / "1" / "0" / "2"
    chunk.write_bytes(chunk.read_bytes()[:10])
    bench.refuses("plan", "z 2–3", "damaged", plan=False)  # the forecast reads no voxels


def test_labels_into_an_image_inside_the_input(bench: Bench, ome_zarr: Write) -> None:
    """The labels lie beside the image they belong to, which may be a group within the store."""
    image = ome_zarr(IMAGE)
    outer = bench.folder / "plate.zarr"
    zarr.open_group(outer, mode="w", zarr_format=3)
    image.rename(outer / "image")
    bench.sample["image"] = str(outer)
    bench.data["output"] = {"labels_into": "input"}
    bench.run_before("measure")
    assert (outer / "image" / "labels" / "objects" / "zarr.json").is_file()
    assert not (outer / "labels").exists()
