"""Ingest: an image that is no OME-Zarr becomes one; one that is stays where it is, unread.

A block is a whole number of shards of one level; coarser levels are means of the finer one.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from volsam.blocks.stage import Attempt, Block, Job, Stage
from volsam.errors import VolsamError
from volsam.volume.chunks import check_chunks
from volsam.volume.info import require_voxel_size
from volsam.volume.ingest import create_image, image_layout, plan_ingest, write_image_block
from volsam.volume.labels import check_free
from volsam.volume.layout import open_image_level
from volsam.volume.pyramid import level_steps, plan_level, pyramid_factors, write_level_block
from volsam.volume.source import ALL, Volume, open_volume
from volsam.volume.store import sweep_partial


def image_path(image: Mapping[str, Any]) -> Path:
    """Folder of the OME-Zarr image itself, which may be a group of what the user named.

    Parameters
    ----------
    image : mapping
        path and key, as stage `ingest` leaves them and a plan keeps them.
    """
    return Path(image["path"]) / (image["key"] or "")


def no_labels_into(path: str) -> VolsamError:
    """Refusal of `labels_into: input` for an image that is copied."""
    return VolsamError(
        f"Labels cannot be written into {path}, which is no OME-Zarr; set output.labels_into: results."
    )


class Ingest(Stage[None]):
    """Stage `ingest`."""

    name = "ingest"
    upstream: tuple[str, ...] = ()

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.store = self.paths.store

    @cached_property
    def volume(self) -> Volume:
        """The input, all of its channels."""
        sample = self.sample
        size = sample.voxel_size
        volume = open_volume(
            sample.image,
            axes=sample.axes,
            key=sample.key,
            timepoint=ALL if self.job.config.task == "track" else sample.timepoint,
            channel=0,
            voxel_size=size.zyx() if size else None,
            unit=sample.unit,
        )
        require_voxel_size(volume.info)
        return volume

    @property
    def in_place(self) -> bool:
        """Whether the input is an OME-Zarr."""
        return self.volume.info.format.startswith("ome-zarr")

    @cached_property
    def warnings(self) -> list[str]:
        """What a user should know of the input, one sentence each; a copy is refused for a lost chunk.

        What is read in place is looked at by the plan, which knows level and region.
        """
        told = None if self.in_place else check_chunks(self.volume)
        return [*self.volume.info.warnings, *([told] if told else [])]

    def digest(self) -> str:
        """That of the settings, and of how a copy is cut, which another version may do otherwise."""
        digest = super().digest()
        if self.in_place:
            return digest
        info = self.volume.info
        layout = image_layout(info, self.config.output.ome_zarr)
        _, first = next(plan_ingest(info, layout))
        cut = f"{digest} {layout} {first.shape}"
        return hashlib.sha256(cut.encode()).hexdigest()[: len(digest)]

    @property
    def factors(self) -> tuple[tuple[int, int, int], ...]:
        """Downsampling of the coarser levels."""
        return pyramid_factors(self.volume.info)

    def blocks(self) -> Iterator[Block]:
        if self.in_place:
            return
        info = self.volume.info
        layout = image_layout(info, self.config.output.ome_zarr)
        yield from (Block(index, box) for index, box in plan_ingest(info, layout))
        for level in range(1, 1 + len(self.factors)):
            array = open_image_level(self.store, level, "r")
            yield from (Block(index, box, level) for index, box in plan_level(array))

    def reset(self) -> None:
        self.check_output()
        if self.in_place:
            return
        _ = self.warnings  # a lost chunk is refused before anything is copied
        info, version = self.volume.info, self.config.output.ome_zarr
        layout = image_layout(info, version)
        create_image(self.store, info, layout, self.factors, version, self.job.sample)

    def check_output(self) -> None:
        """Refuse labels in the input where that would fail only after all was computed."""
        if self.config.output.labels_into != "input":
            return
        info = self.volume.info
        if not self.in_place:
            raise no_labels_into(info.path)
        root = Path(info.path) / (info.key or "")
        check_free(root)
        if self.job.config.task == "track":
            check_free(root, "tracks")
        if not os.access(root, os.W_OK):
            raise VolsamError(
                f"Labels cannot be written into {root}, which you may not write; "
                "set output.labels_into: results."
            )

    def sweep(self) -> None:
        if not self.in_place:
            sweep_partial(self.store)

    def compute(self, block: Block, attempt: Attempt) -> None:
        """Nothing: a block is copied while it is written."""

    def write(self, block: Block, result: None) -> dict[str, Any]:
        if block.phase == 0:
            return {"bytes": write_image_block(self.store, self.volume, block.box)}
        finer = open_image_level(self.store, block.phase - 1, "r")
        target = open_image_level(self.store, block.phase)
        step = level_steps(self.factors)[block.phase - 1]
        write_level_block(finer, target, block.box, step, labels=False)
        return {}

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        info = self.volume.info
        for warning in self.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        image = {"path": self.sample.image, "key": info.key, "axes": self.sample.axes}
        if not self.in_place:
            image = {"path": str(self.store), "key": None, "axes": None}
        return {
            "ingested": not self.in_place,
            "image": image,
            "format": info.format,
            "shape": info.shape,
            "frames": info.frames,
            "time": (info.time.step, info.time.unit),
            "channels": info.channels,
            "dtype": info.dtype,
            "voxel_size": info.voxel_size,
            "unit": info.unit,
            "warnings": self.warnings,
        }
