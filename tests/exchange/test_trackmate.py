"""TrackMate XML: read back by us and by another reader."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from families import FRAMES, family, lineages, same
from hypothesis import given, settings

from volsam.errors import VolsamError
from volsam.exchange.trackmate import read_trackmate, write_trackmate
from volsam.track.lineage import Lineage


@settings(max_examples=25, deadline=None)
@given(lineages(largest_id=2**63))
def test_a_file_reads_back(lineage: Lineage) -> None:
    with TemporaryDirectory() as folder:
        place = Path(folder) / "tracks.xml"
        depth = 4 if lineage.objects.position[:, 0].any() else 1
        write_trackmate(place, lineage, shape=(FRAMES, depth, 100, 100))
        assert same(read_trackmate(place), lineage)


def written(folder: Path) -> Path:
    write_trackmate(
        folder / "tracks.xml",
        family(),
        shape=(5, 1, 40, 50),
        spacing=(1.0, 0.5, 0.25),
        unit='µm "x" & y',
        interval=30.0,
        time_unit="minute",
        image="/data/a & b.tif",
    )
    return folder / "tracks.xml"


def test_a_family_is_one_track(tmp_path: Path) -> None:
    root = ElementTree.parse(written(tmp_path)).getroot()
    tracks = root.findall("Model/AllTracks/Track")
    assert [(t.get("TRACK_ID"), t.get("NUMBER_SPOTS"), len(t)) for t in tracks] == [("1", "5", 4)]
    assert len(root.findall("Model/FilteredTracks/TrackID")) == 1
    spots = root.findall("Model/AllSpots/SpotsInFrame/Spot")
    assert [s.get("name") for s in spots] == ["1", "2", "3", "4", "5", "6"]
    assert spots[5].get("POSITION_T") == "120.0"
    assert float(spots[0].get("RADIUS") or 0) == pytest.approx(np.sqrt(4 / np.pi))
    assert root.find("Model").get("spatialunits") == 'µm "x" & y'  # type: ignore[union-attr]
    image = root.find("Settings/ImageData")
    assert image is not None
    assert (image.get("filename"), image.get("folder")) == ("a & b.tif", "/data")
    assert (image.get("pixelwidth"), image.get("nframes")) == ("0.25", "5")
    for needed in ("InitialSpotFilter", "SpotFilterCollection", "TrackFilterCollection"):
        assert root.find(f"Settings/{needed}") is not None  # TrackMate fails without


@pytest.mark.filterwarnings("ignore")
def test_the_reader_of_geff_agrees(tmp_path: Path) -> None:
    convert = pytest.importorskip("geff.convert")
    from volsam.exchange.geff import read_geff

    place = tmp_path / "tracks.xml"
    write_trackmate(place, family(), shape=(5, 1, 40, 50), unit="micrometer")
    convert.from_trackmate_xml_to_geff(place, tmp_path / "tracks.geff")
    found = read_geff(tmp_path / "tracks.geff")
    assert np.array_equal(found.links(), family().links())


def test_links_of_trackmate_have_no_direction_and_ids_count_from_0(tmp_path: Path) -> None:
    spot = '<Spot ID="{0}" name="ID{0}" FRAME="{1}" RADIUS="1" {2}/>'
    where = 'POSITION_X="1" POSITION_Y="2" POSITION_Z="0"'
    spots = "".join(spot.format(i, frame, where) for i, frame in ((0, 1), (1, 0)))
    edge = '<Edge SPOT_SOURCE_ID="0" SPOT_TARGET_ID="{}"/>'
    place = tmp_path / "a.xml"
    place.write_text(f'<TrackMate version="7">{spots}{edge.format(1)}</TrackMate>')
    found = read_trackmate(place)
    assert found.links().tolist() == [[2, 1]]
    assert found.objects.position[0].tolist() == [0, 2, 1]
    place.write_text(f'<TrackMate version="7">{spots}{edge.format(9)}</TrackMate>')
    with pytest.raises(VolsamError, match="a spot that is not there"):
        read_trackmate(place)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('<!DOCTYPE a [<!ENTITY b "c">]><TrackMate>&b;</TrackMate>', "declares a document type"),
        ("<Other/>", "no TrackMate file"),
        ("<TrackMate>", "no TrackMate file"),
        ('<TrackMate><Spot ID="1"/></TrackMate>', "no TrackMate file"),
        ('<TrackMate><Spot ID="x"/></TrackMate>', "no TrackMate file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(VolsamError, match=said):
        read_trackmate(tmp_path / "a.xml")


def test_all_frames_are_needed(tmp_path: Path) -> None:
    with pytest.raises(VolsamError, match="frame 4 of 4"):
        write_trackmate(tmp_path / "a.xml", family(), shape=(4, 1, 9, 9))
    assert not list(tmp_path.iterdir())
