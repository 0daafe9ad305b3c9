"""A sequence is segmented frame by frame: as if each frame were a volume of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import scenes
import tifffile
import zarr
from ome_zarr_models import open_ome_zarr

from volsam.errors import VolsamError
from volsam.evaluate.contingency import Contingency
from volsam.stages.evaluate import one_id_per_frame
from volsam.volume.info import TimeAxis
from volsam.volume.labels import set_time
from volsam.volume.source import ALL, open_volume

FRAMES = 3


def write_sequence(folder: Path, depth: int) -> list[npt.NDArray[Any]]:
    """Frames that differ, with noise that differs; each also as a volume in a folder of its own."""
    frames = [scenes.cells((depth, 40, 44), 20, (4, 6), seed) for seed in range(FRAMES)]
    for number, frame in enumerate(frames):
        scenes.write_scene(folder / str(number), frame, seed=number)
    parts = [zarr.open_array(folder / str(n) / "predictions.zarr")[:] for n in range(FRAMES)]
    stack = np.stack(parts, axis=1)  # channel, frame, z, y, x
    images = np.stack([tifffile.imread(folder / str(n) / "image.tif") for n in range(FRAMES)])
    truth = np.stack(frames)
    if depth == 1:
        stack = stack[:, :, 0]
        images, truth = images.reshape(FRAMES, 40, 44), truth.reshape(FRAMES, 40, 44)
    array = zarr.create_array(
        folder / "predictions.zarr", shape=stack.shape, dtype="f4", chunks=stack.shape
    )
    array[:] = stack
    tifffile.imwrite(folder / "image.tif", images, photometric="minisblack")
    tifffile.imwrite(folder / "truth.tif", truth, photometric="minisblack")
    return frames


def settings(folder: Path, results: Path, depth: int, **sections: Any) -> dict[str, Any]:
    axes = "tyx" if depth == 1 else "tzyx"
    sample = {"axes": axes, "frame_interval": 300.0, **sections.pop("sample", {})}
    return {**scenes.settings(folder, results, sample=sample, **sections), "task": "track"}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("depth", [1, 4])
def test_frames_are_segmented_as_volumes_of_their_own(
    tmp_path: Path, depth: int, version: str
) -> None:
    write_sequence(tmp_path, depth)
    output = {"chunk": [2, 20, 20], "shard": [2, 40, 40], "ome_zarr": version}
    compute = {"block_slices": 3, "block_tiles": 1}
    paths = scenes.run_pipeline(
        settings(tmp_path, tmp_path / "all", depth, output=output, compute=compute)
    )
    labels = scenes.read_labels(paths)
    assert labels.shape == ((FRAMES, 40, 44) if depth == 1 else (FRAMES, depth, 40, 44))
    table = pq.read_table(paths.objects).to_pandas()
    assert len(table) == labels.max() > 20
    for number in range(FRAMES):
        alone = scenes.run_pipeline(
            scenes.settings(tmp_path / str(number), tmp_path / f"r{number}", output=output)
        )
        expected = scenes.read_labels(alone).reshape(labels[number].shape)
        same = Contingency.of(labels[number], expected)
        assert len(same.count) == len(np.unique(labels[number])) == len(np.unique(expected))
        rows = table[table["frame"] == number]
        assert set(rows["id"]) == set(np.unique(labels[number])) - {0}
        own = pq.read_table(alone.objects).to_pandas()
        for column in ("voxels", "centroid_z", "centroid_y", "bbox_z_start", "slices"):
            np.testing.assert_allclose(sorted(rows[column]), sorted(own[column]))


@pytest.mark.parametrize("depth", [1, 4])
def test_blocks_are_no_part_of_the_result(tmp_path: Path, depth: int) -> None:
    write_sequence(tmp_path, depth)
    digests = []
    for slices, tiles in ((1, 1), (5, 2), (20, 9)):
        compute = {"block_slices": slices, "block_tiles": tiles}
        results = tmp_path / f"{slices}"
        paths = scenes.run_pipeline(settings(tmp_path, results, depth, compute=compute))
        digests.append(scenes.result_digest(paths))
    assert digests[0] == digests[1] == digests[2]


@pytest.mark.parametrize(("depth", "axes"), [(1, ["t", "y", "x"]), (4, ["t", "z", "y", "x"])])
def test_labels_are_valid_ome_zarr_with_time(tmp_path: Path, depth: int, axes: list[str]) -> None:
    write_sequence(tmp_path, depth)
    paths = scenes.run_pipeline(settings(tmp_path, tmp_path / "r", depth))
    set_time(paths.store, ("objects",), TimeAxis(300.0, "second"))
    for place in (paths.store, paths.store / "labels" / "objects"):
        image = open_ome_zarr(zarr.open_group(place, mode="r"))
        (multiscale,) = image.ome_attributes.multiscales
        assert [axis.name for axis in multiscale.axes] == axes
        assert multiscale.axes[0].unit == "second"
        scale = multiscale.datasets[0].coordinateTransformations[0].scale
        assert list(scale) == [300.0, *([] if depth == 1 else [3.0]), 1.0, 1.0]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_consolidated_metadata_follow_the_time(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever consolidated them; and a kill leaves none rather than those of before."""
    write_sequence(tmp_path, 1)
    data = settings(tmp_path, tmp_path / "r", 1, output={"ome_zarr": version})
    store = scenes.run_pipeline(data).store
    zarr.consolidate_metadata(store)

    def told() -> float:
        """Step of time of the labels, from consolidated metadata if there are any."""
        attributes: Any = zarr.open_group(store, mode="r")["labels/objects"].attrs.asdict()
        (multiscale,) = attributes.get("ome", attributes)["multiscales"]
        step: float = multiscale["datasets"][0]["coordinateTransformations"][0]["scale"][0]
        return step

    set_time(store, ("objects",), TimeAxis(300.0, "second"))
    assert zarr.open_group(store, mode="r", use_consolidated=True).metadata.consolidated_metadata
    assert told() == 300.0
    monkeypatch.setattr(zarr, "consolidate_metadata", killed)
    with pytest.raises(KeyboardInterrupt):
        set_time(store, ("objects",), TimeAxis(60.0, "second"))
    assert told() == 60.0


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_some_frames_only(tmp_path: Path) -> None:
    write_sequence(tmp_path, 4)
    sample = {"region": {"t": [1, 2]}}
    paths = scenes.run_pipeline(settings(tmp_path, tmp_path / "r", 4, sample=sample))
    labels = scenes.read_labels(paths)
    assert labels[1].any()
    assert not labels[0].any()
    assert not labels[2].any()
    assert set(pq.read_table(paths.objects)["frame"].to_pylist()) == {1}


def test_truth_with_ids_of_tracks_scores_frames(tmp_path: Path) -> None:
    frames = write_sequence(tmp_path, 4)
    sample = {"truth": str(tmp_path / "truth.tif")}
    stages = (*scenes.STAGES, "evaluate")
    paths = scenes.run_pipeline(settings(tmp_path, tmp_path / "r", 4, sample=sample), stages=stages)
    scores = json.loads(paths.metrics.read_text())
    assert scores["truth_objects"] == sum(len(np.unique(frame)) - 1 for frame in frames)


@pytest.mark.parametrize("depth", [1, 4])
def test_labels_that_are_there_become_objects(tmp_path: Path, depth: int) -> None:
    frames = write_sequence(tmp_path, depth)
    sample = {"segmentation": str(tmp_path / "truth.tif")}
    stages = ("ingest", "plan", "number", "label", "measure")
    paths = scenes.run_pipeline(
        settings(tmp_path, tmp_path / "r", depth, sample=sample), stages=stages
    )
    labels = scenes.read_labels(paths)
    expected = 0
    for number, frame in enumerate(frames):
        same = Contingency.of(labels[number], frame.reshape(labels[number].shape))
        assert len(same.count) == len(np.unique(frame))
        ids = np.unique(labels[number])[1:]
        assert ids.tolist() == list(range(expected + 1, expected + len(ids) + 1))
        expected += len(ids)
    assert pq.read_table(paths.objects).num_rows == expected


def test_ids_of_frames_differ() -> None:
    truth = np.array([0, 3])[None, None].repeat(4, axis=0).astype(np.uint16)
    ids = one_id_per_frame(truth, start=2, depth=2)
    assert not ids[..., 0].any()
    assert ids[0, 0, 1] == ids[1, 0, 1] != ids[2, 0, 1] == ids[3, 0, 1]


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        ({"timepoint": 1}, "region"),
        ({"axes": "zyx"}, "no time axis"),
        ({"region": {"z": [0, 1]}}, "region.t"),
        ({"region": {"t": [2, 9]}}, "reaches beyond"),
        ({"segmentation": "{folder}/0/truth.tif"}, "shape"),
    ],
)
def test_what_cannot_be_tracked_is_refused(
    tmp_path: Path, sample: dict[str, Any], said: str
) -> None:
    write_sequence(tmp_path, 1)
    sample = {k: v.format(folder=tmp_path) if isinstance(v, str) else v for k, v in sample.items()}
    with pytest.raises(VolsamError, match=said):
        scenes.run_pipeline(settings(tmp_path, tmp_path / "r", 1, sample=sample))


def test_labels_share_the_time_axis_of_an_image_in_place(tmp_path: Path) -> None:
    """Whatever interval is stated: viewers lay them on the image by their scales."""
    write_sequence(tmp_path, 1)
    made = scenes.run_pipeline(settings(tmp_path, tmp_path / "made", 1), stages=("ingest",))
    set_time(made.store, (), TimeAxis(5.0, "minute"))
    sample = {"image": str(made.store), "axes": None, "frame_interval": 60.0}
    paths = scenes.run_pipeline(settings(tmp_path, tmp_path / "r", 1, sample=sample))
    assert open_volume(paths.store / "labels" / "objects", timepoint=ALL).info.time.seconds == 300.0


def test_labels_have_the_z_axis_of_their_image(tmp_path: Path) -> None:
    """Viewers lay axes on each other from the last to the first."""
    write_sequence(tmp_path, 1)
    image = tifffile.imread(tmp_path / "image.tif")
    group = zarr.create_group(tmp_path / "image.ome.zarr")
    axes = [{"name": a, "type": t} for a, t in zip("tczyx", ["time", "channel"], strict=False)]
    axes += [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    scale = {"type": "scale", "scale": [1.0] * 5}
    datasets = [{"path": "0", "coordinateTransformations": [scale]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    group.create_array("0", data=image[:, None, None], chunks=(1, 1, 1, 40, 44))
    output = {"chunk": [2, 20, 20], "shard": [2, 40, 40]}
    flat = scenes.run_pipeline(settings(tmp_path, tmp_path / "flat", 1, output=output))
    truth = tifffile.imread(tmp_path / "truth.tif")
    tifffile.imwrite(tmp_path / "deep.tif", truth[:, None], photometric="minisblack")
    sample = {"image": str(tmp_path / "image.ome.zarr"), "axes": None}
    sample["truth"] = str(tmp_path / "deep.tif")  # labels may have that axis as well
    deep = scenes.run_pipeline(
        settings(tmp_path, tmp_path / "deep", 1, sample=sample, output=output)
    )
    (multiscale,) = open_ome_zarr(
        zarr.open_group(deep.store / "labels" / "objects", mode="r")
    ).ome_attributes.multiscales
    assert [axis.name for axis in multiscale.axes] == list("tzyx")
    labels = scenes.read_labels(deep)
    assert labels.shape == (FRAMES, 1, 40, 44)
    assert np.array_equal(labels[:, 0], scenes.read_labels(flat))
