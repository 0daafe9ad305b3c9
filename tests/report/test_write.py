import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from volsam.geometry import Box
from volsam.report.collect import Run, summarise
from volsam.report.write import ReportInputs, read_inputs, render, write_report

PLAN = {
    "shape": [6, 40, 50], "region": [[0, 0, 0], [6, 40, 50]], "voxel_size": [2.0, 0.5, 0.5],
    "unit": "micrometer", "dtype": "uint16", "tile": 32, "halo": 8, "scale": 1.0,
    "model": "embedded", "model_hash": "abc123", "device": "cpu", "precision": "fp32",
    "compat": "none",
}  # fmt: skip
STATISTICS = {
    "edges": {"tiles": 10, "slices+1": 2000, "slices+2": 0},
    "merged": {"tiles": 9, "slices+1": 1500, "slices+2": 0},
    "cut": {"tiles": 0, "slices+1": 4, "slices+2": 0},
    "iou_tiles": [1] + [0] * 18 + [9], "iou_slices": [0] * 20,
    "objects_across_tiles": 3, "dropped_small": 1,
}  # fmt: skip
INGEST = {
    "format": "tiff",
    "image": {"path": "results/s/s.ome.zarr"},
    "warnings": ["<b>Odd</b> voxel size"],
}


def full_run() -> Run:
    markers = {
        "ingest": {"settings": {"sample.image": "in.tif"}, "inputs": {"image": ["1", "f00d"]},
                   "outputs": INGEST, "version": "0.1.0", "seconds": 2.0},
        "plan": {"settings": {"model": "embedded"}, "outputs": {"plan": PLAN}, "seconds": 70.0},
        "partition": {"outputs": {"statistics": STATISTICS, "objects": 3}},
    }  # fmt: skip
    record = {"block": "0:0", "seconds": 1.0, "pid": 1, "retries": 1, "reasons": ["OOM"]}
    stages = [summarise(name, marker, [record]) for name, marker in markers.items()]
    return Run(markers, stages, ["<b>Odd</b> voxel size"])


def full_inputs() -> ReportInputs:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 900, (6, 40, 50)).astype(np.uint16)
    labels = np.zeros(image.shape, np.uint64)
    labels[1:5, 5:15, 5:20] = 2**40
    labels[2:4, 20:35, 8:30] = 3
    objects = {
        name: np.array([5.0, 9.0, 4.0]) for name in ("centroid_z", "centroid_y", "centroid_x")
    }
    objects["voxels"] = np.array([600, 660, 40])
    scores = {"mSA": 0.7, "SA50": 0.91, "SA75": 0.8, "tp": 3, "fp": 0, "fn": 0}
    metrics = {**scores, "truth": "truth.tif", "baseline": {"SA50": 0.44, "name": "Otsu"}}
    return ReportInputs(
        "my sample", full_run(), objects, metrics,
        lambda box: image[box.slices], lambda box: labels[box.slices], "volsam view --sample s",
    )  # fmt: skip


class Page(HTMLParser):
    """Tags, their balance, and all addresses."""

    VOID = frozenset({"meta", "img", "br", "hr", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href")]
        if tag not in self.VOID and tag not in ("line", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "rect"):
            assert self.open.pop() == tag


def test_full_report() -> None:
    text = render(full_inputs())
    page = Page(text)
    assert page.open == []
    assert page.tags.count("img") == 8
    assert page.tags.count("svg") == 2
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert "script" not in page.tags
    assert not re.search(r"https?://|@import|url\(", text)
    assert "<b>Odd</b>" not in text
    assert "&lt;b&gt;Odd&lt;/b&gt; voxel size" in text
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))
    for expected in (
        "my sample", "0.91", "classical baseline 0.44", "1 min 12 s", "volsam view --sample s",
        "neighbouring slices 2,000 1,500 (75.0 %) 4 (0.2 %)", "in.tif", "f00d", "abc123",
        "2 × 0.5 × 0.5 µm (z × y × x)", "Stage plan tried a block again after OOM (1×)",
        "32 px with a halo of 8 px", "Otsu",
    ):  # fmt: skip
        assert expected in plain, expected


@pytest.mark.parametrize(
    "missing", ["run", "objects", "metrics", "image", "labels", "view_command", "sample only"]
)
def test_renders_with_anything_missing(missing: str) -> None:
    full = full_inputs()
    given = {name: getattr(full, name) for name in full.__dataclass_fields__}
    if missing == "sample only":
        given = {"sample": "s"}
    else:
        del given[missing]
    page = Page(render(ReportInputs(**given)))
    assert page.open == []
    assert ("img" in page.tags) == (missing in ("objects", "metrics", "view_command"))


@pytest.mark.parametrize("stage", ["ingest", "plan", "partition"])
def test_renders_with_empty_markers(stage: str) -> None:
    inputs = full_inputs()
    inputs.run.markers[stage] = {"outputs": None, "settings": None, "inputs": None}
    assert Page(render(inputs)).open == []
    inputs.run.markers[stage] = {}
    assert Page(render(inputs)).open == []


def test_says_when_nothing_was_found() -> None:
    inputs = ReportInputs("s", full_run(), {"voxels": np.empty(0, np.int64)}, {})
    assert "No object was found" in render(inputs)


def test_reads_a_folder_and_writes_one_file(tmp_path: Path) -> None:
    work = tmp_path / "s" / ".volsam"
    work.mkdir(parents=True)
    (work / "plan.json").write_text(json.dumps({"outputs": {"plan": PLAN}, "seconds": 3}))
    columns = {"voxels": [9, 8], "centroid_z": [1.0, 2], "centroid_y": [1.0, 2], "id": [1, 2]}
    pq.write_table(
        pa.table({**columns, "centroid_x": [1.0, 2]}), tmp_path / "s" / "objects.parquet"
    )
    (tmp_path / "s" / "metrics.json").write_text('{"SA50": 0.5, "mSA": 0.25}')

    def read(box: Box) -> np.ndarray:
        return np.zeros(box.shape, np.uint8)

    inputs = read_inputs(tmp_path / "s", "s", image=read, labels=read)
    assert inputs.objects is not None
    assert inputs.metrics == {"SA50": 0.5, "mSA": 0.25}
    write_report(tmp_path / "s" / "report.html", inputs)
    names = sorted(p.name for p in (tmp_path / "s").iterdir())
    assert names == [".volsam", "metrics.json", "objects.parquet", "report.html"]
    assert "<b>2</b>objects" in (tmp_path / "s" / "report.html").read_text(encoding="utf-8")
    assert read_inputs(tmp_path / "none", "none").metrics is None
