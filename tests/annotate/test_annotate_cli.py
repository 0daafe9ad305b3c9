"""`volsam annotate`: what its commands print and refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from volsam.annotate.store import AnnotationStore
from volsam.cli.annotate import app
from volsam.errors import VolsamError


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, VolsamError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    image, labels = tmp_path / "image.tif", tmp_path / "labels.tif"
    rng = np.random.default_rng(0)
    tifffile.imwrite(image, rng.integers(0, 255, (20, 30)).astype(np.uint8))
    drawn = np.zeros((20, 30), np.uint16)
    drawn[3:9, 3:9], drawn[15:, :] = 1, 9
    tifffile.imwrite(labels, drawn)
    return image, labels


def test_add_and_list(files: tuple[Path, Path], tmp_path: Path) -> None:
    image, labels = files
    store = tmp_path / "annotations"
    places = (labels, "--image", image, "--store", store)
    said = call("add", *places, "--ignore-label", 9, "--complete", "--limits", "3,200")
    assert "1 objects, complete" in said
    assert "1 annotations in" in said
    with pytest.raises(VolsamError, match="--replace"):
        call("add", *places)
    assert "1 annotations in" in call("add", *places, "--skip")
    call("add", *places, "--replace", "--tool", "micro-sam", "--author", "ada")
    (found,) = AnnotationStore(store)
    assert found.provenance.tool == "micro-sam"
    assert found.provenance.objects == 2
    listed = call("list", "--store", store)
    assert f"{found.id}  1x20x30  2 objects  sparse  micro-sam by ada" in listed
    assert "1 annotations, 2 objects" in listed
    assert "0 annotations" in call("list", "--store", tmp_path / "none")


def test_options_are_checked(files: tuple[Path, Path], tmp_path: Path) -> None:
    image, labels = files
    places = ("add", labels, "--image", image, "--store", tmp_path / "s")
    for limits in ("3", "5,1", "a,b"):
        with pytest.raises(VolsamError, match="two rising numbers"):
            call(*places, "--limits", limits)
    with pytest.raises(VolsamError, match="is not understood"):
        call(*places, "--region", "everything")
    assert not (tmp_path / "s").exists()


def test_volumes_of_the_cell_tracking_challenge(tmp_path: Path) -> None:
    """What is not said on the command line is not stated."""
    images, gold = tmp_path / "01", tmp_path / "01_GT" / "SEG"
    gold.mkdir(parents=True)
    images.mkdir()
    volume = np.arange(5 * 20 * 30, dtype=np.uint16).reshape(5, 20, 30)
    tifffile.imwrite(images / "t000.tif", volume, photometric="minisblack")
    mask = np.zeros((5, 20, 30), np.uint16)
    mask[1:3, 4:9, 4:9] = 2
    tifffile.imwrite(gold / "man_seg000.tif", mask, photometric="minisblack")
    said = call("add", images, "--store", tmp_path / "store", "--licence", "CC-BY-4.0")
    assert "1 objects" in said
    (found,) = AnnotationStore(tmp_path / "store")
    np.testing.assert_array_equal(found.labels(), mask)
    assert found.provenance.licence == "CC-BY-4.0"
