"""The table of corrections."""

from __future__ import annotations

from pathlib import Path

import pytest

from volsam.errors import VolsamError
from volsam.track.correction_table import (
    COLUMNS,
    Place,
    Row,
    corrects_objects,
    digest_of_objects,
    read_rows,
    write_rows,
)

LINK = Row("link", Place(0, 0.0, 1.25, 2.0), Place(1, 0.0, 12345.6789, 2.0))
SPLIT = Row("split", Place(3, 0.0, 1.0, 2.0), Place(3, 0.0, 1.0, 4.0))


def test_written_and_read(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    write_rows(table, [LINK, SPLIT])
    assert read_rows(table) == [LINK._replace(line=2), SPLIT._replace(line=3)]
    assert read_rows(table, ["split"]) == [SPLIT._replace(line=3)]
    assert not list(tmp_path.glob(".*"))


def test_places_are_centres_of_voxels() -> None:
    spacing = (2.0, 0.3, 0.7)
    for voxel in ((0, 0, 0), (3, 12345, 99999)):
        row = Row("merge", Place.of(4, voxel, spacing), Place.of(4, voxel, spacing))
        assert row.first.voxel(spacing) == voxel
    assert Place(0, 0.9, 0.16, 0.3).voxel(spacing) == (0, 1, 0)


def test_links_are_no_part_of_what_is_said_of_objects(tmp_path: Path) -> None:
    one, other, links = (tmp_path / name for name in ("one.csv", "other.csv", "links.csv"))
    write_rows(one, [SPLIT])
    write_rows(other, [LINK, SPLIT, LINK])
    write_rows(links, [LINK])
    assert digest_of_objects(one) == digest_of_objects(other) != digest_of_objects(links)
    assert corrects_objects(one)
    assert not corrects_objects(links)
    assert not corrects_objects(None)
    # What cannot be understood is for the stage to refuse, not to be passed over.
    assert corrects_objects(tmp_path / "none.csv")
    one.write_text(one.read_text().replace("split", "Split") + ",,,,,,,,\n")
    assert corrects_objects(one)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("glue,0,0,0,0,0,0,0,1", r"Line 3 .* says 'glue'; use link, cut, merge or split"),
        ("merge,0,0,0,0,1,0,0,1", r"Line 3 .* merge of objects in frames 0 and 1"),
        ("merge,0,0,0,0,0,0,0,nan", r"Line 3 .* something else than numbers"),
        ("cut,0,0,0,0,x,0,0,1", r"Line 3 .* something else than numbers"),
        ("cut,0.5,0,0,0,1,0,0,1", r"Line 3 .* whole ones for frames"),
        ("cut,0,0,0", r"is no table of corrections"),
    ],
)
def test_faults_are_told(tmp_path: Path, line: str, message: str) -> None:
    table = tmp_path / "t.csv"
    table.write_text(f"{','.join(COLUMNS)}\ncut,0,0,0,0,1,0,0,1\n{line}\n")
    with pytest.raises(VolsamError, match=message):
        read_rows(table)
    table.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(VolsamError, match="no text file"):
        read_rows(table)
    with pytest.raises(VolsamError, match="No such file"):
        read_rows(tmp_path / "none.csv")
