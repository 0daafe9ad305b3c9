"""Objects of a sequence carry what the network made of them to the links."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scenes
import tifffile

from volsam.cli.clean import clean_sample
from volsam.config import validate
from volsam.errors import VolsamError
from volsam.stages.link import Link
from volsam.stages.tabled import columns, read_file, read_tables, vectors
from volsam.track.defaults import DEFAULTS

SEQUENCE = ("ingest", "plan", "segment", "overlap", "partition", "label", "measure", "observe")
CENTRES = ((24, 24), (24, 90), (90, 60), (100, 110))


def frames() -> np.ndarray[Any, Any]:
    """Bright discs that move a little; the last two touch."""
    rows, columns_ = np.indices((128, 150))
    random = np.random.default_rng(0)
    stack = random.normal(100, 5, (3, 128, 150))
    for t, frame in enumerate(stack):
        for n, (y, x) in enumerate(CENTRES):
            disc = np.hypot(rows - y - t, columns_ - x) <= 8 + n / 2
            frame[disc] += 300 + 100 * n + 20 * np.sin(rows[disc] * (1 + n) / 2)
    return stack.astype(np.uint16)


def test_a_table_is_read_as_arrow_reads_it(tmp_path: Path) -> None:
    long = np.arange(12.0).reshape(4, 3)
    table = pa.table({"a": [1, 2, 3, 4], "v": vectors(long), "w": vectors(long), "b": ["x"] * 4})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=3)
    for without in ((), ("v",), ("a", "w")):
        kept = [name for name in table.column_names if name not in without]
        assert read_file(tmp_path / "t.parquet", without).equals(table.select(kept))


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    tifffile.imwrite(tmp_path / "image.tif", frames(), photometric="minisblack")
    sample = {"image": str(tmp_path / "image.tif"), "axes": "tyx", "voxel_size": {"y": 1, "x": 1}}
    return {
        "task": "track",
        "results": str(tmp_path / "r"),
        "model": "embedded",
        "tiles": {"size": 64, "halo": 16},
        "compute": {"block_slices": 2, "block_tiles": 2, "precision": "fp32"},
        "samples": {scenes.SAMPLE: sample},
    }


def observed(data: dict[str, Any], stages: tuple[str, ...]) -> dict[int, np.ndarray[Any, Any]]:
    paths = scenes.run_pipeline(data, stages=stages)
    rows = columns(read_tables(paths, "observe", "objects-"))
    return dict(zip(rows["id"].tolist(), rows["embedding"], strict=True))


def test_objects_have_the_mean_of_their_fragments(data: dict[str, Any]) -> None:
    vectors = observed(data, SEQUENCE)
    paths = scenes.run_pipeline(data, stages=())
    fragments = columns(pq.read_table(paths.fragment_table))
    found = np.load(paths.lookup)
    assert len(vectors) >= 12
    assert np.isfinite(list(vectors.values())).all()
    several = 0
    for number, vector in vectors.items():
        own = found == number
        expected = np.average(fragments["embedding"][own], axis=0, weights=fragments["size"][own])
        np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)
        several += own.sum() > 1
    assert several  # tiles cut some
    # Blocks of the same slices are joined at a time, and ids go through.
    table = pq.ParquetFile(paths.fragment_table)
    assert table.num_row_groups == 2
    keys = np.stack([fragments[name].astype(int) for name in ("z", "tile", "local")])
    assert (np.lexsort(keys[::-1]) == np.arange(len(found))).all()
    # The same cell a frame later looks more like itself than like another one.
    objects = pq.read_table(paths.objects).to_pandas().set_index("id")
    first, second = (objects[objects["frame"] == t].index for t in (0, 1))
    for a in first:
        apart = [np.linalg.norm(vectors[a] - vectors[b]) for b in second]
        near = np.hypot(
            *(objects.loc[second, f"centroid_{x}"] - objects.loc[a, f"centroid_{x}"] for x in "yx")
        )
        assert np.argmin(apart) == np.argmin(near)


def test_only_weights_of_ones_own_read_them(data: dict[str, Any], tmp_path: Path) -> None:
    scenes.run_pipeline(data, stages=SEQUENCE)
    DEFAULTS["general"].write(tmp_path / "weights.json")
    for weights in (None, str(tmp_path / "weights.json")):
        data["track"] = {"weights": weights}
        stage = scenes.make_stage(validate(data), "link")
        assert isinstance(stage, Link)
        values = stage.scene().objects.values
        assert ("embedding" in values) == (weights is not None)
        assert "intensity" in values
        assert "embedding" in stage.scene(embedded=True).objects.values


def test_what_was_cleaned_away_is_asked_for(data: dict[str, Any]) -> None:
    """Another gap makes `observe` look again, and so at fragments."""
    before = observed(data, SEQUENCE)
    clean_sample(validate(data), scenes.SAMPLE)
    data["track"] = {"max_gap": 1}
    with pytest.raises(VolsamError, match="Stage partition of sample a is not finished"):
        observed(data, ("observe",))
    after = observed(data, SEQUENCE)
    assert list(after) == list(before)
    np.testing.assert_array_equal(list(after.values()), list(before.values()))


def test_corrected_objects(data: dict[str, Any], tmp_path: Path) -> None:
    """A merged object has the mean of its parts, a cut one none."""
    before = observed(data, SEQUENCE)
    paths = scenes.run_pipeline(data, stages=())
    labels = scenes.read_labels(paths)
    a, b, cut = (int(labels[0, y, x]) for y, x in (CENTRES[0], CENTRES[1], CENTRES[2]))
    objects = pq.read_table(paths.objects).to_pandas().set_index("id")
    (tmp_path / "corrections.csv").write_text(
        "action,frame,z,y,x,next_frame,next_z,next_y,next_x\n"
        "merge,0,0,24,24,0,0,24,90\nsplit,0,0,90,56,0,0,90,64\n"
    )
    data["samples"][scenes.SAMPLE]["corrections"] = str(tmp_path / "corrections.csv")
    after = observed(data, (*SEQUENCE[:5], "regroup", *SEQUENCE[5:]))
    labels = scenes.read_labels(paths)
    merged, left, right = (int(labels[0, y, x]) for y, x in ((24, 24), (90, 56), (90, 64)))
    assert labels[0, 24, 90] == merged
    assert left != right
    sizes = objects["voxels"]
    mean = (sizes[a] * before[a] + sizes[b] * before[b]) / (sizes[a] + sizes[b])
    np.testing.assert_allclose(after[merged], mean, rtol=0.02, atol=0.02)
    assert np.isnan(after[left]).all()
    assert np.isnan(after[right]).all()
    assert cut
    assert sum(np.isnan(vector).any() for vector in after.values()) == 2
