"""`volsam preview`: a picture of one crop, and what the user needs to set the object scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from volsam.cli.preview import size_hint, write_preview
from volsam.config import Config, validate
from volsam.exchange.sample import blobs


def discs(across: int, count: int) -> np.ndarray:
    """Fragments, and one twice as wide."""
    labels = np.zeros((count + 2, 1, 3 * across, 3 * across), np.uint32)
    y, x = np.mgrid[: 3 * across, : 3 * across] - (3 * across - 1) / 2
    for number in range(1, count + 2):
        radius = across / 2 if number <= count else across
        labels[number - 1, 0][np.hypot(y, x) < radius] = number
    return labels.reshape(-1, 3 * across)


def config(folder: Path, **sections: object) -> Config:
    image = (blobs(96, 12) * 200).astype(np.uint16)
    tifffile.imwrite(folder / "image.tif", image[None], photometric="minisblack")
    sample = {
        "image": str(folder / "image.tif"),
        "axes": "zyx",
        "voxel_size": {"z": 1, "y": 1, "x": 1},
    }
    return validate(
        {
            "task": "segment",
            "results": str(folder / "results"),
            "model": "embedded",
            "samples": {"cells": sample},
            **sections,
        }
    )


def test_the_typical_size_is_the_median_and_leads_to_a_diameter() -> None:
    hint = size_hint(discs(11, 4), 16.4, stated=False)
    assert "11.1 pixels across" in hint
    assert "scale: {diameter: 11.1}" in hint
    assert size_hint(discs(11, 4), 16.4, stated=True) == "typical fragment: 11.1 pixels across"
    assert "scale" not in size_hint(discs(11, 4), None, stated=False)
    assert not size_hint(np.zeros((4, 4), np.uint32), 16.4, stated=False)


def test_a_picture_and_its_fragments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_preview(config(tmp_path), "cells", None, tmp_path / "preview.png")
    said = capsys.readouterr().out
    assert "slice 0, " in said
    assert "scale: {diameter: " in said
    assert Image.open(tmp_path / "preview.png").size[0] > 96
    scaled = config(tmp_path, scale={"diameter": 12})
    write_preview(scaled, "cells", "y=0:64,x=0:64", tmp_path / "scaled.png")
    said = capsys.readouterr().out
    assert "typical fragment: " in said
    assert "scale:" not in said
