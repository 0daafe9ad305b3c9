"""Plan: settle every decision of the run once, forecast its cost, and refuse what cannot work.

Voxels are read only for the normalisation, a bounded sample of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from volsam.blocks.stage import Block, Job, Stage
from volsam.config import Region
from volsam.errors import VolsamError
from volsam.geometry import Box
from volsam.models.names import resolve
from volsam.segment.ais import in_pixels, of_stacks
from volsam.stages.forecast import TIMED_FROM, Forecast, forecast
from volsam.stages.propagate import check_prompted, prompted_arguments
from volsam.stages.runplan import RunPlan
from volsam.volume.checks import open_fitting
from volsam.volume.chunks import check_chunks
from volsam.volume.info import VolumeInfo, require_voxel_size
from volsam.volume.ingest import copy_size, image_layout
from volsam.volume.normalise import estimate
from volsam.volume.pyramid import pyramid_factors
from volsam.volume.source import ALL, Timepoint, Volume, labels_arguments, open_volume

if TYPE_CHECKING:
    from volsam.models import Model

# Without a network there is no input size to fill: the default tile for stored predictions.
PREDICTION_OUTER = 512
# Pixels that a model must see at once: the smallest tile with the smallest sensible halo.
SMALLEST = 20


class Plan(Stage[None]):
    """Stage `plan`."""

    name = "plan"
    upstream: tuple[str, ...] = ("ingest",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.warnings: list[str] = []

    def blocks(self) -> list[Block]:
        return []

    def reset(self) -> None:
        """Nothing is stored but the marker."""

    def finalize(self, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        plan, expected = self.resolve(self.job.marker("ingest")["outputs"]["image"])
        known = self.job.marker("ingest")["outputs"].get("warnings", ())
        for warning in self.warnings:
            if warning not in known:
                print(f"warning: {warning}", file=sys.stderr)
        print(expected.text(plan), file=sys.stderr)
        expected.check(self.paths.folder, self.config.compute)
        return {
            "plan": plan.to_json(),
            "forecast": expected.to_json(),
            "warnings": self.warnings,
        }

    def resolve(
        self, image: dict[str, Any], *, sample_voxels: bool = True
    ) -> tuple[RunPlan, Forecast]:
        """The run plan and its forecast.

        Parameters
        ----------
        image : dict
            path, key and axes of the image that workers will read.
        sample_voxels : bool
            Estimate the normalisation; without it the plan is good for a forecast only, for which a
            tile is timed however few there are.
        """
        config, compute = self.config, self.config.compute
        labels = self.sample.segmentation
        name = f"segmentation:{labels}" if labels else resolve(config)
        kind, _, path = name.partition(":")
        stored = kind in ("predictions", "segmentation")
        volume, arguments = self._open(image)
        info = volume.info
        predictions = self._predictions(path, info) if kind == "predictions" else None
        segmentation = self._labels("segmentation", labels, self.sample.segmentation_key, info)
        if self.sample.prompts:
            check_prompted(self.job.sample, info, kind)
            segmentation = prompted_arguments(self.paths)
        voxel_size = require_voxel_size(info)
        model = None if stored else self._model(name)
        scale = self._scale(model, voxel_size)
        tile, halo = self._tiles(model, scale)
        region = self._region(info)
        self.warnings = self._warnings(volume, image["path"] == self.sample.image, region)
        method: str = config.normalise.method
        if method == "auto":
            # Without a network the limits are for those who look at the image.
            method = model.normalisation if model else "percentile" if labels else "none"
        normalisation: dict[str, Any] = {}
        threshold: float | None = None
        if sample_voxels:
            settings = config.normalise.model_dump() | {"method": method}
            estimated = estimate(volume, **settings)
            normalisation = estimated.to_json()
            wanted = config.foreground.threshold
            threshold = estimated.otsu if wanted == "otsu" else wanted
        plan = RunPlan(
            image=arguments,
            predictions=predictions,
            shape=info.shape,
            dtype=info.dtype,
            voxel_size=voxel_size,
            unit=info.unit,
            translation=info.translation,
            factors=pyramid_factors(info),
            region=(region.start, region.stop),  # type: ignore[arg-type]
            tile=tile,
            halo=halo,
            scale=scale,
            model=name,
            model_hash=self.inputs[kind][1] if model is None else model.hash,
            ais=self._ais(model, scale, info),
            normalisation=normalisation,
            threshold=threshold,
            mask=self._labels("mask", self.sample.mask, self.sample.mask_key, info),
            device=compute.device,
            precision=compute.precision,
            compat=compute.compat,
            compile=compute.compile,
            allow_pickle=compute.allow_pickle,
            batch=compute.batch,
            threads=compute.threads,
            block_slices=compute.block_slices,
            block_tiles=compute.block_tiles,
            segmentation=segmentation,
            frames=info.frames,
            z_axis=info.z_axis,
        )
        output = config.output
        return plan, forecast(
            plan,
            info,
            None if plan.prompted else model,  # objects are prompted, not tiles
            timed_from=TIMED_FROM if sample_voxels else 1,
            shard=output.shard if output.ome_zarr != "0.4" else output.chunk,
            copy=self._copy(info, info.path == self.sample.image),
            enlarged=1 / scale if config.tiles.size is None else 1.0,
        )

    def _copy(self, info: VolumeInfo, own: bool) -> tuple[int, int]:
        """Bytes that the copy of the image still needs, and its files."""
        if own and info.format.startswith("ome-zarr"):
            return 0, 0
        layout = image_layout(info, self.config.output.ome_zarr)
        size, files = copy_size(info, layout, pyramid_factors(info))
        return size if own else 0, files  # what is not the user's is the copy

    def _open(self, image: dict[str, Any]) -> tuple[Volume, dict[str, Any]]:
        sample = self.sample
        # An ingested image holds one time point, its voxel size in the metadata.
        own = image["path"] == sample.image
        size = sample.voxel_size
        arguments = {
            **image,
            "level": sample.level,
            "channel": sample.channel,
            "timepoint": self.timepoint(own),
            "voxel_size": size.zyx() if own and size else None,
            "unit": sample.unit if own else None,
        }
        if sample.level and not own:
            raise VolsamError(
                f"Sample {self.job.sample} asks for level {sample.level}, but {sample.image} is no "
                "OME-Zarr and has no levels; leave level out."
            )
        volume = open_volume(**arguments)
        return volume, arguments

    def _warnings(self, volume: Volume, own: bool, region: Box) -> list[str]:
        """What a user should know of the image, one sentence each; one with a lost chunk is refused."""
        told = None
        if own:  # a copy of ours leaves out chunks that are empty
            whole = not volume.info.format.startswith("ome-zarr")  # and will be copied
            told = check_chunks(volume, None if whole else region)
        return [*volume.info.warnings, *([told] if told else [])]

    def timepoint(self, own: bool = True) -> Timepoint:
        """All frames of what is tracked; else the one asked for, which an ingested image is."""
        if self.job.config.task == "track":
            return ALL
        return self.sample.timepoint if own else None

    def _predictions(self, path: str, image: VolumeInfo) -> dict[str, Any]:
        """Arguments of `open_volume` for stored predictions."""
        axes = "czyx" if image.frames is None else "ctyx" if image.depth == 1 else "ctzyx"
        arguments: dict[str, Any] = {"path": path, "axes": axes, "channel": 0}
        arguments["timepoint"] = None if image.frames is None else ALL
        volume = open_volume(**arguments)
        if volume.info.channels != 3 or volume.info.shape != image.shape:
            raise VolsamError(
                f"The predictions {path} have {volume.info.channels} channels and shape "
                f"{volume.info.shape}; 3 channels (foreground, centre, boundary) of the image's shape "
                f"{image.shape} are needed."
            )
        if not volume.info.dtype.startswith("float"):
            raise VolsamError(
                f"The predictions {path} hold {volume.info.dtype}; floating-point numbers from 0 "
                "to 1 are needed."
            )
        return arguments

    def _model(self, name: str) -> Model:
        from volsam.models import load_model

        compute = self.config.compute
        return load_model(
            name,
            device=compute.device,
            precision=compute.precision,
            need_decoder=self.sample.prompts is None,
            allow_pickle=compute.allow_pickle,
        )

    def _scale(self, model: Model | None, voxel_size: tuple[float, float, float]) -> float:
        wanted = self.config.scale
        if model is None or wanted.diameter is wanted.pixel_size is None:
            return 1.0
        if wanted.diameter is not None:
            if model.diameter is None:
                raise VolsamError(
                    f"Model {model.name} does not say which object diameter it was trained at; "
                    "use scale.pixel_size, or leave scale out."
                )
            return model.diameter / wanted.diameter
        if voxel_size[1] != voxel_size[2]:
            raise VolsamError(
                f"Pixels of {self.sample.image} are not square ({voxel_size[1]} x {voxel_size[2]}); "
                "use scale.diameter instead of scale.pixel_size."
            )
        return voxel_size[2] / float(wanted.pixel_size or 1)

    def _tiles(self, model: Model | None, scale: float) -> tuple[int, int]:
        tiles = self.config.tiles
        largest = PREDICTION_OUTER if model is None else int(model.image_size / scale)
        halo = tiles.halo if tiles.halo is not None else largest // 8
        tile = tiles.size if tiles.size is not None else largest - 2 * halo
        if model is not None and largest < SMALLEST < model.image_size:
            raise VolsamError(
                f"Key scale resamples the image by a factor of {scale:.3g}, so that model {model.name} "
                f"sees {largest} of its pixels at once; correct scale.diameter or scale.pixel_size."
            )
        if model is not None and tile + 2 * halo > largest and self.config.compute.compat == "none":
            raise VolsamError(
                f"A tile of {tile} with a halo of {halo} is larger than the {largest} pixels that "
                f"model {model.name} sees at this scale; make tiles.size or tiles.halo smaller."
            )
        if tile < 16 or halo > tile:
            raise VolsamError(
                f"A tile of {tile} with a halo of {halo} pixels wastes most of the work; make "
                "tiles.size at least 16 and no smaller than tiles.halo."
            )
        return tile, halo

    def _region(self, info: VolumeInfo) -> Box:
        region = self.sample.region or Region()
        if info.frames is not None and region.z is not None:
            raise VolsamError(
                f"Sample {self.job.sample} is a sequence, whose slices cannot be chosen; leave region.z "
                "out, or choose frames with region.t."
            )
        if info.frames is None and region.t is not None:
            raise VolsamError(
                f"Key samples.{self.job.sample}.region.t chooses frames, and the task is not to track; "
                "use timepoint instead."
            )
        extent = (info.frames or info.shape[0], *info.shape[1:])
        axes = "zyx" if info.frames is None else "tyx"
        ranges = [getattr(region, axis) or [0, n] for axis, n in zip(axes, extent, strict=True)]
        for axis, (start, stop), n in zip(axes, ranges, extent, strict=True):
            if not 0 <= start < stop <= n:
                raise VolsamError(
                    f"Region {axis}: [{start}, {stop}] of sample {self.job.sample} is empty or "
                    f"reaches beyond the volume's {n} voxels; choose 0 <= start < stop <= {n}."
                )
        if info.frames is not None:
            ranges[0] = [frame * info.depth for frame in ranges[0]]
        return Box(tuple(r[0] for r in ranges), tuple(r[1] for r in ranges))

    def _labels(
        self, role: str, path: str | None, key: str | None, image: VolumeInfo
    ) -> dict[str, Any] | None:
        """Arguments of `open_volume` for labels of the image's shape."""
        if path is None:
            return None
        arguments = labels_arguments(path, key, image.shape, image.frames)
        open_fitting(role, arguments, image.shape, numbered=role != "mask")
        return arguments

    def _ais(self, model: Model | None, scale: float, info: VolumeInfo) -> dict[str, float]:
        """The model's tuned values that count here, in pixels of the image."""
        tuned, ours = dict(model.ais) if model else {}, self.config.compute.compat == "none"
        if info.shape[0] > 1 or not ours:  # slices or frames; micro-sam judges no object
            tuned = of_stacks(tuned)
        return in_pixels(tuned, scale) if ours else tuned
