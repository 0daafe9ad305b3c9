"""`volsam preview`: one crop through the network and the watershed, as a picture."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volsam.blocks.stage import Block, Job
from volsam.config import Config, Region, Scale, validate
from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.stages.plan import Plan
from volsam.stages.runplan import RunPlan

EDGE = 512


def write_preview(config: Config, sample: str, region: str | None, output: Path) -> None:
    """Segment the middle slice of a region, tile by tile, and write a picture.

    The tiles, the normalisation and the thresholds are those of the run, so away from its border
    the crop looks as it will in the result, before slices are joined.

    Parameters
    ----------
    region : str or None
        ``z=a:b,y=a:b,x=a:b``; the centre of the volume by default.
    """
    from volsam.models.model import Source
    from volsam.report.figures import preview_figure
    from volsam.segment.ais import AisParameters, segment_ais
    from volsam.segment.tiles import TileReader
    from volsam.stages.segment import predictor

    stage = Plan(Job(_with_region(config, sample, region), sample))
    chosen = stage.sample
    image = {"path": chosen.image, "key": chosen.key, "axes": chosen.axes}
    plan, expected = stage.resolve(image)
    print(expected.text(plan))
    box = _crop(plan, region)
    z = box.start[0]
    reader = TileReader(plan)
    predict = predictor(plan, reader)
    stated = stage.config.ais.model_dump(exclude_none=True)
    parameters = AisParameters(**{**plan.ais, **stated})
    labels = np.zeros(box.shape[1:], np.uint32)
    plane = Box(box.start[1:], box.stop[1:])
    for tile in range(len(plan.grid)):
        part = plan.grid.inner(tile).intersect(plane)
        if not part.size or reader.is_empty(z, tile):
            continue
        block = Block((z, tile), box)
        (predicted,) = predict(block, [(z, tile)])
        foreground, center, boundary = predicted.maps
        found = segment_ais(foreground, center, boundary, parameters)
        piece = found[part.relative_to(plan.valid(tile)).slices]
        labels[part.relative_to(plane).slices] = np.where(piece, piece + labels.max(), 0)
    preview_figure(reader.raw(z, plane), labels, output)
    print(f"slice {z}, {len(np.unique(labels)) - 1} fragments: {output}")
    known = Source.find(plan.model).diameter if plan.predictions is None else None
    if hint := size_hint(labels, known, stage.config.scale != Scale()):
        print(hint)


def size_hint(labels: NDArray[np.uint32], known: float | None, stated: bool) -> str:
    """What a user needs for `scale.diameter`; empty where there is no fragment.

    Parameters
    ----------
    labels : (h, w) uint32
        Fragments.
    known : float or None
        Diameter of the objects that the model was trained on, in pixels.
    stated : bool
        Whether the configuration sets a scale.
    """
    areas = np.bincount(labels.ravel())[1:]
    areas = areas[areas > 0]
    if not areas.size:
        return ""
    across = 2 * float(np.sqrt(np.median(areas) / np.pi))
    found = f"typical fragment: {across:.3g} pixels across"
    if known is None or stated:
        return found
    return (
        f"{found}, and the model was trained on objects of {known:g}; where small ones fuse, "
        f"scale: {{diameter: {across:.3g}}} shows them to it at that size"
    )


def _with_region(config: Config, sample: str, region: str | None) -> Config:
    if region is None:
        return config
    data = config.of_sample(sample).model_dump(mode="json")
    data["samples"][sample]["region"] = parse_region(region).model_dump(mode="json")
    return validate(data)


def parse_region(text: str) -> Region:
    """A region from ``z=10:12,y=0:512,x=0:512``; axes left out are whole."""
    ranges: dict[str, list[int]] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*([zyx])\s*=\s*(\d+)\s*:\s*(\d+)\s*", part)
        if not match:
            raise VolsamError(
                f"Region {text!r} is not understood at {part!r}; write it like z=10:12,y=0:512,x=0:512."
            )
        ranges[match[1]] = [int(match[2]), int(match[3])]
    return Region(**ranges)


def _crop(plan: RunPlan, region: str | None) -> Box:
    """The middle slice of the region, at most `EDGE` pixels square if no region was asked for."""
    (z0, y0, x0), (z1, y1, x1) = plan.region
    if region is None:
        y0, x0 = (max(a, (a + b - EDGE) // 2) for a, b in ((y0, y1), (x0, x1)))
        y1, x1 = min(y1, y0 + EDGE), min(x1, x0 + EDGE)
    middle = (z0 + z1) // 2
    return Box((middle, y0, x0), (middle + 1, y1, x1))
