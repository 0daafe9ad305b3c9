"""Link: objects of all frames become lineages.

Blocks have two phases. First a block is a run of frames, and leaves the candidates from their objects
with what each gains. Then it is a window in time, or a share of the independent components of a wide one,
and leaves the links from the window's own objects; the links of all make the lineage. Only tables are
read: in the first phase those of the whole sequence, once per worker.

Invariant: runs and shares are no part of the result (`track.link`).
"""

from __future__ import annotations

import math
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
from volsam.track.lineage import Ids, Ints, Lineage, Objects, find_rows
from volsam.track.link import Constraints, Found, choose, choose_weights, gained, join
from volsam.track.prompted import prompted_links, read_prompts
from volsam.track.scene import Overlaps, Scene
from volsam.track.solve import Problem
from volsam.track.tables import candidate_table, lineage_table, read_candidates
from volsam.track.truth import true_links
from volsam.track.windows import Window, windows

RUN = 100_000  # objects of a run of frames, about; a frame is not divided
SHARE = 1_000_000  # objects of a window that are linked in one block; a wider one is shared out
CANDIDATES, LINKS = "candidates-", "links-"  # kinds of tables


class Link(TabledStage[Problem | Found]):
    """Stage `link`."""

    name = "link"
    upstream: tuple[str, ...] = ("observe",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.read = job.marker("observe")["digest"]  # of the tables
        self.run, self.share = RUN, SHARE  # as the driver has them

    @property
    def windows(self) -> list[Window]:
        """Windows of the sequence."""
        track = self.config.track
        return windows(self.plan.frames or 1, track.window, track.overlap)

    def frame(self) -> Ints:
        """Frame of each object, in the order of a lineage's objects."""
        return read_frames(self.paths, self.read)

    def runs(self) -> list[Block]:
        """Blocks of the first phase."""
        objects = np.bincount(self.frame(), minlength=self.plan.frames or 1)
        run_of = (np.cumsum(objects) - objects) // self.run
        starts = np.flatnonzero(np.diff(run_of, prepend=-1)).tolist()
        ends = zip(starts, [*starts[1:], len(objects)], strict=True)
        return [Block((n,), Box((start,), (stop,))) for n, (start, stop) in enumerate(ends)]

    def shares(self, window: Window) -> int:
        """In how many blocks a window is linked."""
        if self.config.track.solver != "global":
            return 1
        first, stop = np.searchsorted(self.frame(), [window.seen.start, window.seen.stop]).tolist()
        return max(1, math.ceil((stop - first) / self.share))

    def blocks(self) -> Iterator[Block]:
        if self.plan.prompted:
            return  # the table of prompts says it all
        yield from self.runs()
        for number, window in enumerate(self.windows):
            for share in range(self.shares(window)):
                yield Block((number, share), Box((window.own.start,), (window.own.stop,)), 1)

    def reset(self) -> None:
        for path in (self.paths.track_of, self.paths.lineage):
            path.unlink(missing_ok=True)
        super().reset()

    def compute(self, block: Block, attempt: Attempt) -> Problem | Found:
        return self._choose(*block.index) if block.phase else self._gained(block)

    def _gained(self, block: Block) -> Problem:
        """Candidates from a run of frames."""
        scene, settings = self.scene(), self.config.track
        must, never = read_corrections(
            self.sample.corrections, scene.objects, scene.units.diameter / 2
        )
        constraints = Constraints.of(scene.objects, must, never)
        weights = choose_weights(settings, scene)
        frames = range(block.box.start[0], block.box.stop[0])
        return Problem.join(
            [gained(scene, frame, settings, weights, constraints) for frame in frames]
        )

    def _choose(self, number: int, share: int) -> Found:
        """Links of a window, or a share of them."""
        window = self.windows[number]
        seen = Box((window.seen.start,), (window.seen.stop,))
        runs = [run for run in self.runs() if run.box.intersect(seen).size]
        problem = Problem.join([read_candidates(self.table_path(run, CANDIDATES)) for run in runs])
        shares = self.shares(window)
        return choose(problem, self.frame(), window, self.config.track, share, shares)

    def scene(self, embedded: bool | None = None) -> Scene:
        """Objects and overlaps of the whole sequence; embeddings if weights may use them."""
        if embedded is None:
            embedded = self.config.track.weights is not None  # those that ship do not
        return read_scene(self.paths, self.read, self.plan.depth == 1, embedded)

    def write(self, block: Block, result: Problem | Found) -> dict[str, Any]:
        if isinstance(result, Problem):
            self.write_table(block, candidate_table(result), CANDIDATES)
            return {"candidates": len(result.gain)}
        source, target = result.pairs.T
        table = pa.table({"source": source, "target": target, "gain": result.gain})
        self.write_table(block, table, LINKS)
        return {"links": len(result.pairs)}

    def _links(self, objects: Objects) -> Ids:
        """Links of all windows, or of the tracks that were prompted."""
        if self.plan.prompted:
            return prompted_links(
                np.load(self.paths.numbers), read_prompts(self.sample.prompts or "")
            )
        source, target, gain = columns(read_tables(self.paths, self.name, LINKS)).values()
        return objects.id[join([Found(np.stack([source, target], axis=1), gain)])]

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        objects = read_objects(self.paths, self.plan.depth == 1)
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
    scene = stage.scene(embedded=True)
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
def read_frames(paths: SamplePaths, digest: str) -> Ints:
    """Frames of the objects of a sequence, in order; `digest` is that of stage `observe`."""
    return np.sort(pq.read_table(paths.objects, columns=["frame"])["frame"].to_numpy())


@lru_cache(maxsize=1)
def read_scene(paths: SamplePaths, digest: str, planar: bool, embedded: bool) -> Scene:
    """Objects and overlaps of a sequence, of planes or volumes; `digest` is that of stage `observe`."""
    overlaps = Overlaps(*columns(read_tables(paths, "observe", "overlaps-")).values())
    associations = None
    if table_files(paths, "observe", "associations-"):
        scores = columns(read_tables(paths, "observe", "associations-"))
        seen = read_tables(paths, "observe", "objects-")["id"].to_numpy()
        associations = Associations(**scores, seen=seen)
    return Scene(read_objects(paths, planar, embedded), overlaps, associations)


def read_objects(paths: SamplePaths, planar: bool, embedded: bool = False) -> Objects:
    """Objects of a sequence, with what was observed of them."""
    table = pq.read_table(paths.objects)
    column = columns(table)
    unit = str((table.schema.metadata or {})[b"unit"].decode())
    position = np.stack([column[f"centroid_{axis}_{unit}"] for axis in "zyx"], axis=1)
    voxel = [float(v) for v in (table.schema.metadata or {})[b"voxel_size_zyx"].decode().split(",")]
    size = column["volume"] / (voxel[0] if planar else 1.0)
    without = () if embedded else (EMBEDDING,)
    seen = columns(read_tables(paths, "observe", "objects-", without))
    values = _values(seen, column["id"])
    return Objects.sort(column["id"], column["frame"], position, size, values)


def _values(
    seen: dict[str, np.ndarray[Any, Any]], ids: np.ndarray[Any, Any]
) -> dict[str, np.ndarray[Any, Any]]:
    """What was observed of each object; medians for those too small to be seen at that resolution."""
    if not len(seen["id"]):  # nothing is left at that resolution
        return {"motion": np.zeros((len(ids), 3))}
    rows, known = find_rows(seen["id"], ids)
    values = {}
    for name, column in seen.items():
        if name == EMBEDDING:
            values[name] = np.where(known[:, None], column[rows], np.float32(np.nan))
        elif name != "id":
            values[name] = np.where(known, column[rows], np.median(column))
    motion = [np.where(known, values.pop(f"motion_{axis}"), 0.0) for axis in "zyx"]
    return values | {"motion": np.stack(motion, axis=1)}
