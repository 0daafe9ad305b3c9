"""Link: objects of all frames become lineages.

A block is a window in time; it leaves the links from its own frames' objects. The links of all windows
make the lineage. Nothing but tables is read: of the whole sequence, once per worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from volsam.blocks.stage import Attempt, Block, Job
from volsam.errors import VolsamError
from volsam.exchange.ctc import open_ctc
from volsam.geometry import Box
from volsam.paths import SamplePaths, replace
from volsam.stages.embedded import EMBEDDING
from volsam.stages.fragments import save_array
from volsam.stages.frames import ObjectFrames
from volsam.stages.tabled import TabledStage, columns, read_tables, table_files
from volsam.track.associations import Associations
from volsam.track.corrected_links import read_corrections
from volsam.track.fit import Example
from volsam.track.lineage import Ids, Lineage, Objects
from volsam.track.link import Constraints, Found, choose_weights, join, link_window
from volsam.track.prompted import prompted_links, read_prompts
from volsam.track.scene import Overlaps, Scene
from volsam.track.tables import lineage_table
from volsam.track.truth import true_links
from volsam.track.windows import Window, windows


class Link(TabledStage[Found]):
    """Stage `link`."""

    name = "link"
    upstream: tuple[str, ...] = ("observe",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.read = job.marker("observe")["digest"]  # of the tables

    @property
    def windows(self) -> list[Window]:
        """Windows of the sequence."""
        track = self.config.track
        return windows(self.plan.frames or 1, track.window, track.overlap)

    def blocks(self) -> Iterator[Block]:
        if self.plan.prompted:
            return  # the table of prompts says it all
        for number, window in enumerate(self.windows):
            yield Block((number,), Box((window.own.start,), (window.own.stop,)))

    def reset(self) -> None:
        for path in (self.paths.track_of, self.paths.lineage):
            path.unlink(missing_ok=True)
        super().reset()

    def compute(self, block: Block, attempt: Attempt) -> Found:
        scene = self.scene()
        settings = self.config.track
        must, never = read_corrections(
            self.sample.corrections, scene.objects, scene.units.diameter / 2
        )
        constraints = Constraints.of(scene.objects, must, never)
        window = self.windows[block.index[0]]
        # The last frames of a sequence may be empty.
        window = Window(
            *(frames[: scene.frames - frames.start] for frames in (window.own, window.seen))
        )
        if window.own.start >= scene.frames:
            return Found(np.zeros((0, 2), np.int64), np.zeros(0))
        return link_window(scene, window, settings, choose_weights(settings, scene), constraints)

    def scene(self) -> Scene:
        """Objects and overlaps of the whole sequence."""
        return read_scene(self.paths, self.read, self.plan.depth == 1)

    def write(self, block: Block, result: Found) -> dict[str, Any]:
        source, target = result.pairs.T
        self.write_table(block, pa.table({"source": source, "target": target, "gain": result.gain}))
        return {"links": len(result.pairs)}

    def _links(self, objects: Objects) -> Ids:
        """Links of all windows, or of the tracks that were prompted."""
        if self.plan.prompted:
            return prompted_links(
                np.load(self.paths.numbers), read_prompts(self.sample.prompts or "")
            )
        source, target, gain = columns(read_tables(self.paths, self.name)).values()
        return objects.id[join([Found(np.stack([source, target], axis=1), gain)])]

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        objects = self.scene().objects
        lineage = Lineage.of(objects, self._links(objects))
        track_of = np.zeros(int(objects.id.max(initial=0)) + 1, np.uint64)
        track_of[objects.id] = lineage.track
        replace(self.paths.lineage, lambda partial: pq.write_table(lineage_table(lineage), partial))
        replace(self.paths.track_of, lambda partial: save_array(partial, track_of))
        return {
            "tracks": len(lineage),
            "links": len(lineage.links()),
            "divisions": len(lineage.divisions()),
        }


def example(job: Job) -> Example:
    """A tracked sample with its truth, to learn weights from."""
    stage = Link(job)
    scene = stage.scene()
    truth = open_ctc(str(stage.sample.truth_tracks))
    frames = ObjectFrames(job, stage.plan)
    if truth.frames.stop > (stage.plan.frames or 1):
        raise VolsamError(
            f"{stage.sample.truth_tracks} has frames up to {truth.frames.stop - 1} and sample "
            f"{job.sample} {stage.plan.frames} frames; give the truth of the same frames."
        )
    links, known = true_links(scene.objects, frames, truth.table, truth.read, truth.frames)
    return Example(scene, links, known, stage.config.track)


@lru_cache(maxsize=1)
def read_scene(paths: SamplePaths, digest: str, planar: bool) -> Scene:
    """Objects and overlaps of a sequence, of planes or volumes; `digest` is that of stage `observe`."""
    table = pq.read_table(paths.objects)
    column = columns(table)
    unit = str((table.schema.metadata or {})[b"unit"].decode())
    position = np.stack([column[f"centroid_{axis}_{unit}"] for axis in "zyx"], axis=1)
    voxel = [float(v) for v in (table.schema.metadata or {})[b"voxel_size_zyx"].decode().split(",")]
    size = column["volume"] / (voxel[0] if planar else 1.0)
    seen = columns(read_tables(paths, "observe", "objects-"))
    values = _values(seen, column["id"])
    objects = Objects.sort(column["id"], column["frame"], position, size, values)
    overlaps = Overlaps(*columns(read_tables(paths, "observe", "overlaps-")).values())
    associations = None
    if table_files(paths, "observe", "associations-"):
        scores = columns(read_tables(paths, "observe", "associations-"))
        associations = Associations(**scores, seen=seen["id"])
    return Scene(objects, overlaps, associations)


def _values(
    seen: dict[str, np.ndarray[Any, Any]], ids: np.ndarray[Any, Any]
) -> dict[str, np.ndarray[Any, Any]]:
    """What was observed of each object; medians for those too small to be seen at that resolution."""
    if not len(seen["id"]):  # nothing is left at that resolution
        return {"motion": np.zeros((len(ids), 3))}
    order = np.argsort(seen["id"])
    place = np.searchsorted(seen["id"], ids, sorter=order).clip(max=len(order) - 1)
    rows = order[place]
    known = seen["id"][rows] == ids
    values = {}
    for name, column in seen.items():
        if name == EMBEDDING:
            values[name] = np.where(known[:, None], column[rows], np.float32(np.nan))
        elif name != "id":
            values[name] = np.where(known, column[rows], np.median(column))
    motion = [np.where(known, values.pop(f"motion_{axis}"), 0.0) for axis in "zyx"]
    return values | {"motion": np.stack(motion, axis=1)}
