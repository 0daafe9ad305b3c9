"""`volsam models`: what its commands print and leave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner, Result

from volsam.cli.models import app
from volsam.errors import VolsamError
from volsam.exchange import bioimageio


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def done(*arguments: str | Path) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.exception
    return result.stdout


def test_in_and_out(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bioimageio, "has_validator", lambda: False)
    root = ("--models", tmp_path / "models")
    assert "no trained models" in done("list", *root)
    assert "nuclei version 1" in done("import", package, "nuclei", *root)
    assert done("list", *root).startswith("* nuclei 1  ")
    assert "# nuclei, version 1" in done("show", "nuclei", *root)
    assert "the first version, from embedded.zip" in done("show", "nuclei", *root)
    assert "nuclei is version 1 now" in done("promote", "nuclei", "1", "--reason", "why not", *root)
    image = tmp_path / "image.tif"
    tifffile.imwrite(image, np.arange(3 * 130 * 140, dtype=np.uint16).reshape(3, 130, 140))
    out = tmp_path / "out.zip"
    # The three planes are colours as far as the file says.
    several = invoke("export", "nuclei", out, "--image", image, *root).exception
    assert "3 channels; choose one" in str(several)
    chosen = ("--image", image, "--channel", "1")
    assert "not tested: pip install" in done("export", "nuclei", out, *chosen, *root)
    assert out.is_file()
    done("export", "embedded", tmp_path / "e.zip", "--author", "A", *root)


def test_what_cannot_be(package: Path, tmp_path: Path) -> None:
    root = ("--models", tmp_path / "models")
    done("import", package, "nuclei", *root)
    for arguments, says in (
        (("show", "cells"), "models there are nuclei"),
        (("promote", "nuclei", "2"), "it has 1"),
        (("export", "nuclei", tmp_path / "x.pt"), "none of SAM's own"),
        (("export", "nuclei", tmp_path / "x.onnx"), "something.zip"),
        (("import", tmp_path / "none.zip", "nuclei"), "no zip file"),
    ):
        error = invoke(*arguments, *root).exception
        assert isinstance(error, VolsamError)
        assert says in str(error)


def test_before_anything_is_in_use(package: Path, tmp_path: Path) -> None:
    root = ("--models", tmp_path / "models")
    done("import", package, "nuclei", *root)
    (tmp_path / "models" / "nuclei" / "promoted.json").unlink()
    shown = done("show", "nuclei", *root)
    assert "No version of nuclei is in use; this is the newest" in shown
    assert "# nuclei, version 1" in shown
    error = invoke("export", "nuclei", tmp_path / "x.pt", *root).exception
    assert isinstance(error, VolsamError)
    assert "state one: --version 1." in str(error)
