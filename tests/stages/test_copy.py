"""The copy of an image: begun anew where another version cut it into other blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scenes
import tifffile
import zarr

from volsam.stages import ingest
from volsam.volume.layout import clip_layout

LABELS = scenes.cells((12, 60, 60), 8, (9, 12), 0)


def test_an_unfinished_copy_of_another_cut_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Block numbers of the one would otherwise stand for other voxels of the other."""
    scenes.write_scene(tmp_path, LABELS)
    data = scenes.settings(tmp_path, tmp_path / "results")

    def copy(shards: tuple[int, int, int]) -> tuple[Any, list[str]]:
        def layout(info: Any, version: str) -> Any:
            return clip_layout(info.shape, (4, 16, 16), shards)

        monkeypatch.setattr(ingest, "image_layout", layout)
        paths = scenes.run_pipeline(data, stages=("ingest",))
        ledger = paths.ledger("ingest")
        lines = ledger.read_text().splitlines(keepends=True)
        ledger.write_text("".join(lines[:5]))  # as if killed after four blocks
        return zarr.open_array(paths.store / "0", mode="r"), lines

    copy((4, 16, 16))
    array, lines = copy((8, 32, 32))
    np.testing.assert_array_equal(array[:], tifffile.imread(tmp_path / "image.tif"))
    assert array.shards == (8, 32, 32)
    again = copy((8, 32, 32))[1]
    assert again[:5] == lines[:5]  # and goes on where nothing changed
