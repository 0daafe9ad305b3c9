"""Where a model's judgement of single objects counts: in images, not in stacks and sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scenes
import tifffile

from volsam.config import validate
from volsam.models import load_model

JUDGED = ("min_foreground", "max_center")


def parameters(
    folder: Path, axes: str, region: Any = None, compat: str = "none", **ais: float
) -> Any:
    """What stage `segment` works with for an image of these axes, three planes if more than one."""
    image = np.random.default_rng(0).integers(0, 2**16, (3, 64, 64), dtype=np.uint16)
    image = {"yx": image[0], "zyx": image, "tyx": image, "tzyx": image[:, None].repeat(2, 1)}[axes]
    tifffile.imwrite(folder / "image.tif", image, photometric="minisblack")
    sample = {"image": str(folder / "image.tif"), "axes": axes, "region": region}
    sample["voxel_size"] = {"z": 1, "y": 1, "x": 1} if "z" in axes else {"y": 1, "x": 1}
    task = "track" if "t" in axes else "segment"
    data = {"results": str(folder / "results"), "task": task, "model": "embedded", "ais": ais}
    data["compute"] = {"compat": compat}
    data["samples"] = {scenes.SAMPLE: sample}
    scenes.run_pipeline(data, stages=("ingest", "plan"))
    return scenes.make_stage(validate(data), "segment").parameters  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("axes", "judged"), [("yx", True), ("tyx", False), ("zyx", False), ("tzyx", False)]
)
def test_images_are_judged_and_stacks_are_not(tmp_path: Path, axes: str, judged: bool) -> None:
    tuned = load_model("embedded").ais
    assert tuned["min_foreground"] > 0
    assert tuned["max_center"] < 1
    found = parameters(tmp_path, axes)
    expected = tuple(tuned[name] for name in JUDGED) if judged else (0, 1)
    assert tuple(getattr(found, name) for name in JUDGED) == expected
    assert found.center_threshold == tuned["center_threshold"]


def test_one_slice_of_a_stack_is_of_a_stack(tmp_path: Path) -> None:
    assert parameters(tmp_path, "zyx", {"z": [1, 2]}).min_foreground == 0


def test_what_is_stated_counts_in_a_stack_too(tmp_path: Path) -> None:
    found = parameters(tmp_path, "zyx", min_foreground=0.6)
    assert (found.min_foreground, found.max_center) == (0.6, 1)


def test_as_micro_sam_no_object_is_judged(tmp_path: Path) -> None:
    assert parameters(tmp_path, "yx", compat="micro-sam").max_center == 1
