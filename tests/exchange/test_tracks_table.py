"""The table of tracks: what napari takes, and a lineage again."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from families import family, lineages, same
from hypothesis import given, settings

from volsam.errors import VolsamError
from volsam.exchange.tracks_table import lineage_of_csv, read_tracks_csv, write_tracks_csv
from volsam.track.lineage import Lineage


@settings(max_examples=25, deadline=None)
@given(lineages(largest_id=2**64 - 1))
def test_a_table_reads_back(lineage: Lineage) -> None:
    with TemporaryDirectory() as folder:
        place = Path(folder) / "tracks.csv"
        write_tracks_csv(place, lineage)
        assert same(lineage_of_csv(place), lineage)
        data, graph = read_tracks_csv(place)
    assert data.shape == (len(lineage.objects), 5 if lineage.objects.position[:, 0].any() else 4)
    born = np.flatnonzero(lineage.parent)
    assert graph == {int(t) + 1: [int(lineage.parent[t])] for t in born}


def test_napari_takes_it(tmp_path: Path) -> None:
    layers = pytest.importorskip("napari.layers")
    write_tracks_csv(tmp_path / "tracks.csv", family())
    data, graph = read_tracks_csv(tmp_path / "tracks.csv")
    layer = layers.Tracks(data, graph=graph)
    assert layer.data.tolist()[0] == [1, 0, 0, 1, 2]
    assert layer.graph == {2: [1], 3: [1]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no table of tracks"),
        ("track_id,t,y,x,parent,size\n1,0,0,0,0,1\n", "has no column id"),
        ("track_id,t,y,x,parent,id,size\n1,a,0,0,0,1,1\n", "is no table of tracks"),
        ("track_id,t,y,x,parent,id,size\n1,0,0,0,0,,1\n", "empty value in column id"),
        ("track_id,t,y,x,parent,id,size\n1,0,0,0,0,1,1\n1,1,0,0,0,1,1\n", "an id twice"),
        ("track_id,t,y,x,parent,id,size\n1,0,0,0,0,1,1\n1,0,0,0,0,2,1\n", "forward in time"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(VolsamError, match=said):
        lineage_of_csv(tmp_path / "a.csv")
