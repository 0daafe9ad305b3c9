"""GEFF: valid by the official validator, and read back."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from families import family, lineages, same
from hypothesis import given, settings

from volsam.errors import VolsamError
from volsam.exchange.geff import read_geff, write_geff
from volsam.track.lineage import Lineage, Objects

geff = pytest.importorskip("geff")


def check(folder: Path) -> None:
    """Structure, graph, tracklets and lineages by the official package."""
    from geff.core_io import read_to_memory
    from geff.validate.data import ValidationConfig

    geff.validate_structure(folder)
    read_to_memory(
        folder, data_validation=ValidationConfig(graph=True, lineage=True, tracklet=True)
    )


@settings(max_examples=6, deadline=None)
@given(lineages())
def test_a_valid_graph_reads_back(lineage: Lineage) -> None:
    with TemporaryDirectory() as folder:
        place = Path(folder) / "tracks.geff"
        write_geff(place, lineage, spacing=(2.0, 0.3, 0.3), unit="micrometer")
        check(place)
        assert same(read_geff(place), lineage)


def test_metadata_says_where_and_in_what_units(tmp_path: Path) -> None:
    lineage = family()
    more = {"intensity": np.arange(6.0), "embedding": np.ones((6, 3), np.float32)}
    objects = lineage.objects
    objects = Objects(objects.id, objects.frame, objects.position, objects.size, more)
    place = tmp_path / "tracks.geff"
    for _ in range(2):  # our own is replaced
        write_geff(
            place,
            Lineage.of(objects, lineage.links()),
            spacing=(2.0, 0.5, 0.5),
            unit="micrometer",
            interval=30.0,
            time_unit="minute",
            labels="../s.ome.zarr/labels/tracks",
            image="../s.ome.zarr",
            provenance={"input": "s"},
        )
    check(place)
    said = json.loads((place / ".zattrs").read_text())["geff"]  # Zarr 2
    axes = [(a["name"], a["unit"], a["scale"], a["scaled_unit"]) for a in said["axes"]]
    assert axes[0] == ("t", "frame", 30.0, "minute")
    assert axes[1] == ("z", "pixel", 2.0, "micrometer")
    assert said["track_node_props"] == {"tracklet": "track", "lineage": "family"}
    assert [(r["type"], r["label_prop"]) for r in said["related_objects"]] == [
        ("labels", "track"),
        ("image", None),
    ]
    assert said["extra"]["volsam"]["input"] == "s"
    found = read_geff(place)
    assert found.objects.values["embedding"].shape == (6, 3)
    assert sorted(found.objects.values) == ["embedding", "intensity"]
    assert [path.name for path in tmp_path.iterdir()] == ["tracks.geff"]


def test_other_folders_are_not_replaced(tmp_path: Path) -> None:
    place = tmp_path / "tracks.geff"
    place.mkdir()
    (place / "notes.txt").write_text("mine")
    with pytest.raises(VolsamError, match="holds other things"):
        write_geff(place, family())
    with pytest.raises(VolsamError, match="is no valid GEFF"):
        read_geff(place)
    with pytest.raises(VolsamError, match="does not exist"):
        read_geff(tmp_path / "absent.geff")


def graph(folder: Path, frames: list[float], edges: list[tuple[int, int]], **more: bool) -> Path:
    """A graph of another program: nodes from 0, no size, its axes in another order."""
    import geff_spec
    from geff.core_io import write_arrays

    values = {"time": np.array(frames), "x": np.arange(len(frames)), "y": np.zeros(len(frames))}
    axes = [
        geff_spec.Axis(name=n, type="time" if n == "time" else "space") for n in ("time", "x", "y")
    ]
    write_arrays(
        folder,
        np.arange(len(frames)),
        {name: {"values": value, "missing": None} for name, value in values.items()},
        np.array(edges),
        {},
        geff_spec.GeffMetadata(
            directed=more.get("directed", True),
            axes=axes,
            node_props_metadata={},
            edge_props_metadata={},
        ),
    )
    return folder


def test_graphs_of_others(tmp_path: Path) -> None:
    found = read_geff(graph(tmp_path / "a", [0, 1, 1], [(0, 1), (0, 2)]))
    assert found.links().tolist() == [[1, 2], [1, 3]]
    assert found.objects.position[2].tolist() == [0, 0, 2]  # zyx, whatever the order of axes
    with pytest.raises(VolsamError, match="several predecessors"):
        read_geff(graph(tmp_path / "b", [0, 0, 1], [(0, 2), (1, 2)]))
    with pytest.raises(VolsamError, match="no frames"):
        read_geff(graph(tmp_path / "c", [0.5, 1], [(0, 1)]))
    with pytest.raises(VolsamError, match="which way"):
        read_geff(graph(tmp_path / "d", [0, 1], [(0, 1)], directed=False))


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "geff", None)
    with pytest.raises(VolsamError, match=r"volsam\[track\]"):
        write_geff(tmp_path / "tracks.geff", family())
