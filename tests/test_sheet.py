"""Sample sheets: what is read, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from volsam.config import validate
from volsam.errors import VolsamError


def sheet(folder: Path, text: str) -> dict[str, str]:
    path = folder / "samples.csv"
    path.write_text(text)
    return {"results": "r", "sheet": str(path)}


def test_columns_become_keys(tmp_path: Path) -> None:
    text = (
        "name,image,axes,voxel_size.z,voxel_size.y,voxel_size.x,channel,level,truth\n"
        "a,001.tif,zyx,2,0.5,0.5,1,0,\n"
        "b,b.ome.zarr,,,,,DAPI,1,t.tif\n"
    )
    config = validate(sheet(tmp_path, text) | {"samples": {"c": {"image": "c.tif"}}})
    assert set(config.samples) == {"a", "b", "c"}
    a, b = config.samples["a"], config.samples["b"]
    assert a.image == "001.tif"
    assert a.voxel_size is not None
    assert a.voxel_size.zyx() == (2.0, 0.5, 0.5)
    assert (a.channel, a.truth) == (1, None)
    assert (b.channel, b.level, b.truth, b.axes) == ("DAPI", 1, "t.tif", None)
    assert config.of_sample("a").samples["a"].image == "001.tif"


def test_tabs_and_overrides(tmp_path: Path) -> None:
    text = "name\timage\toverrides.scale.diameter\na\ti.tif\t30\n"
    assert validate(sheet(tmp_path, text)).of_sample("a").scale.diameter == 30


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image\na.tif\n", "no column name"),
        ("name\na\n", "no column image"),
        ("name,image\n,a.tif\n", "Line 2 .* has no name"),
        ("name,image\na,a.tif\na,b.tif\n", "Sample a .* occurs twice"),
        ("name,image\na,b,c\n", "another number of cells"),
        ("name,image,axes\na,b\n", "another number of cells"),
        ("name,image,colour\na,b,red\n", r"samples\.a\.colour is unknown"),
        ("name,image,level\na,b,red\n", r"samples\.a\.level is wrong"),
        ("name,image\n", "samples"),
    ],
)
def test_bad_sheets(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(VolsamError, match=says):
        validate(sheet(tmp_path, text))


def test_missing_sheet() -> None:
    with pytest.raises(VolsamError, match="Cannot read the sample sheet none"):
        validate({"sheet": "none.csv"})
