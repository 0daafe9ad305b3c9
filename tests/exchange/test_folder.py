"""Folders are whole or absent, whatever interrupts their writing or their removal."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from volsam.exchange.folder import remove_folder, replace_folder


def fill(folder: Path) -> None:
    (folder / "a").write_text("a")
    (folder / "b").write_text("b")


def always(folder: Path) -> bool:
    return True


def test_folders_of_others_stay(tmp_path: Path) -> None:
    fill(tmp_path)
    remove_folder(tmp_path, lambda path: not (path / "b").exists())
    assert (tmp_path / "a").exists()


def test_removal_that_stops_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "ctc"
    replace_folder(folder, fill, lambda path: False)

    def stop(path: Path, **_: object) -> None:
        if path.exists():
            (path / "a").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", stop)
        with pytest.raises(KeyboardInterrupt):
            remove_folder(folder, always)
    assert not folder.exists()  # what is left of it is not taken for somebody else's
    replace_folder(folder, fill, lambda path: False)
    assert [path.name for path in tmp_path.iterdir()] == ["ctc"]


def test_removal_takes_what_a_kill_left(tmp_path: Path) -> None:
    for name in (".ctc.new", ".ctc.old"):
        (tmp_path / name).mkdir()
        fill(tmp_path / name)
    remove_folder(tmp_path / "ctc", always)
    assert not [*tmp_path.iterdir()]
