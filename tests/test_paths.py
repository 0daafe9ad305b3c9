"""Files under their final name are whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from volsam.paths import SamplePaths, replace, sweep, write_json


def test_replace_leaves_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    replace(path, lambda partial: partial.write_text("first"))

    def fail(partial: Path) -> None:
        partial.write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        replace(path, fail)
    assert path.read_text() == "first"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_write_json_is_the_same_for_the_same_data(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": 1, "a": [1.5]})
    write_json(tmp_path / "b", {"a": [1.5], "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert json.loads((tmp_path / "a").read_text()) == {"a": [1.5], "b": 1}


def test_sweep_takes_only_what_replace_left(tmp_path: Path) -> None:
    for name in (".a.txt.x1.partial", "a.txt", "b.partial"):
        (tmp_path / name).touch()
    sweep(tmp_path)
    sweep(tmp_path / "none")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b.partial"]


def test_everything_of_a_sample_lies_in_its_folder() -> None:
    paths = SamplePaths("out", "a")
    work = (paths.marker("plan"), paths.ledger("plan"), paths.tables("plan"), paths.fragments)
    assert all(path.is_relative_to(paths.work) for path in work)
    assert paths.work.is_relative_to(paths.folder)
    assert paths.store == Path("out/a/a.ome.zarr")
