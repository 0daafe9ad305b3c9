"""The typed configuration: the one source of defaults, the JSON schema and ``config/README.md``.

Invariants
----------
- Every key a user may write is a field here, with its unit and meaning; unknown keys are refused.
- What to run lives here; where it runs (workers, cluster) lives in the Snakemake profile.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from volsam.errors import VolsamError, fault
from volsam.evaluate.settings import HELD_OUT, Evaluate
from volsam.section import Fraction, Name, PathText, Range, Section
from volsam.sheet import with_sheet
from volsam.track.settings import Track
from volsam.train.settings import Train


class VoxelSize(Section):
    """Edge lengths of a voxel."""

    z: float = Field(default=1.0, gt=0)
    """Distance between slices; 1 for a 2D image."""
    y: float = Field(gt=0)
    """Height of a pixel."""
    x: float = Field(gt=0)
    """Width of a pixel."""

    def zyx(self) -> tuple[float, float, float]:
        """Edge lengths in array order."""
        return self.z, self.y, self.x


class Region(Section):
    """A box of voxels at the chosen level; an axis left out is taken whole."""

    t: Range | None = None
    """First frame and the one after the last, of a sequence that is tracked."""
    z: Range | None = None
    """First slice and the one after the last."""
    y: Range | None = None
    """First row and the one after the last."""
    x: Range | None = None
    """First column and the one after the last."""


class Sample(Section):
    """One image to segment."""

    image: PathText
    """Path of an OME-Zarr, TIFF, folder of TIFFs, plain Zarr or HDF5 file."""
    axes: Annotated[str, Field(pattern=r"^[tczyxs]{1,6}$")] | None = None
    """Order of the axes, letters of `t c z y x`, where the file does not say."""
    key: str | None = None
    """Array within a Zarr or HDF5 file."""
    level: int = Field(default=0, ge=0)
    """Resolution level of an OME-Zarr image to segment."""
    channel: int | str | dict[str | int, float] | None = None
    """Channel by number or name, or a mix as `{name: weight}`; needed if there are several."""
    timepoint: int | None = Field(default=None, ge=0)
    """Time point to segment; needed if there are several."""
    voxel_size: VoxelSize | None = None
    """Voxel edge lengths in `unit`, at level 0 whatever the `level`; wins over the file's metadata, and
    a contradiction is said."""
    frame_interval: float | None = Field(default=None, gt=0)
    """Seconds between the frames of a sequence."""
    unit: str | None = None
    """Unit of `voxel_size`, as OME-Zarr spells it. Left out, it is the file's if `voxel_size` is left
    out or repeats the file's numbers; else micrometer."""
    region: Region | None = None
    """Region of interest in voxels; the rest stays background."""
    mask: PathText | None = None
    """Label or mask volume of the same shape; tiles where it is zero are skipped."""
    mask_key: str | None = None
    """Array within the mask file."""
    segmentation: PathText | None = None
    """Labels of the same shape that are tracked instead of what a model finds; each label of a frame
    is an object, its number need not be that of a track."""
    segmentation_key: str | None = None
    """Array within the segmentation file."""
    prompts: PathText | None = None
    """Table of points and boxes of single objects, which are followed through a sequence of planes
    instead of all that the model finds (docs/prompted-tracking.md)."""
    corrections: PathText | None = None
    """Table of corrections: objects that were merged or split, and links of a tracked sequence
    (`volsam track correct`)."""
    truth: PathText | None = None
    """True labels of the same shape; asks for `metrics.json`."""
    truth_key: str | None = None
    """Array within the truth file."""
    truth_tracks: PathText | None = None
    """Folder of a tracked truth as in the Cell Tracking Challenge (`01_GT`); asks for
    `tracking.json`."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Sections of this page that differ for this sample, e.g. `{scale: {diameter: 30}}`."""


class Normalise(Section):
    """How intensities become 0 to 1: one decision per volume or slice, never per tile."""

    method: Literal["auto", "percentile", "minmax", "range", "none"] = "auto"
    """`auto` takes what the model was trained with, percentiles for most."""
    lower: float = 1.0
    """Lower percentile, or intensity if the method is `range`."""
    upper: float = 99.8
    """Upper percentile, or intensity if the method is `range`."""
    scope: Literal["volume", "slice"] = "volume"
    """One pair of limits for the volume, or one for each slice (uneven staining or depth)."""

    @model_validator(mode="after")
    def _ordered(self) -> Normalise:
        if self.lower >= self.upper:
            raise ValueError("lower must be below upper")
        if self.method in ("auto", "percentile") and not (0 <= self.lower < self.upper <= 100):
            raise ValueError("percentiles lie between 0 and 100")
        return self


class Scale(Section):
    """Object scale: the image is resampled to the scale the model was trained at."""

    diameter: float | None = Field(default=None, gt=0)
    """Typical diameter of an object's section in a slice, in pixels."""
    pixel_size: float | None = Field(default=None, gt=0)
    """Pixel size to resample to, in the unit of the voxel size."""

    @model_validator(mode="after")
    def _one(self) -> Scale:
        if self.diameter is not None and self.pixel_size is not None:
            raise ValueError("state diameter or pixel_size, not both")
        return self


class Tiles(Section):
    """The tile grid, in pixels of the image."""

    size: int | None = Field(default=None, ge=16)
    """Edge of the inner tile; by default what fills the model's input at the object scale."""
    halo: int | None = Field(default=None, ge=0)
    """Context on each side, at least an object's radius; by default an eighth of the input."""


class Foreground(Section):
    """Skip what is empty."""

    threshold: float | Literal["otsu"] | None = None
    """Tiles whose brightest pixel is not above this are skipped."""


class Ais(Section):
    """Automatic instance segmentation; unset values are the ones tuned for the model."""

    foreground_threshold: Fraction | None = None
    """A pixel belongs to an object where the predicted foreground is above this."""
    center_threshold: Fraction | None = None
    """Seeds lie where the predicted centre distance is below this."""
    boundary_threshold: Fraction | None = None
    """Seeds lie where the predicted inverted boundary distance is below this."""
    foreground_smoothing: float | None = Field(default=None, ge=0)
    """Gaussian sigma of the foreground, in pixels of the image."""
    distance_smoothing: float | None = Field(default=None, ge=0)
    """Gaussian sigma of both distances, in pixels of the image."""
    min_size: int | None = Field(default=None, ge=0)
    """Fragments of fewer pixels are dropped."""
    min_foreground: Fraction | None = None
    """Fragments of a lower mean predicted foreground are dropped; 0 keeps all. In stacks and sequences
    the model's own value does not count, nor that of the next key: fragments are parts there."""
    max_center: Fraction | None = None
    """Fragments are dropped whose least predicted centre distance is above this; 1 keeps all."""


class Stitch(Section):
    """Joining fragments across tiles and slices into 3D objects."""

    tile_threshold: Fraction = 0.4
    """Intersection over union in the common halo above which two tiles' fragments attract."""
    slice_threshold: Fraction = 0.45
    """Similarity above which fragments of neighbouring slices attract: the mean of their
    intersection over union and of the overlap over the smaller one."""
    skip_threshold: Fraction = 0.5
    """The same for fragments further apart; such edges mend slices that are missing or wrong."""
    max_gap: int = Field(default=1, ge=0, le=8)
    """Missing slices that an object may bridge; they are filled in."""
    dip_weight: float = Field(default=4.0, ge=0)
    """How much a dip of brightness along z separates: nuclei on top of each other dim in between.
    Without effect where objects are not brighter than what is around them."""
    min_extent: int = Field(default=2, ge=1)
    """Objects in fewer slices are dropped, unless the volume has fewer."""


class Objects(Section):
    """Which objects to keep."""

    min_size: int = Field(default=0, ge=0)
    """Fewest voxels."""
    max_size: int | None = Field(default=None, ge=1)
    """Most voxels."""

    @model_validator(mode="after")
    def _ordered(self) -> Objects:
        if self.max_size is not None and self.max_size < self.min_size:
            raise ValueError("max_size is below min_size")
        return self


class Output(Section):
    """Layout of what is written."""

    ome_zarr: Literal["0.5", "0.4"] = "0.5"
    """OME-Zarr version; 0.5 is sharded."""
    labels_into: Literal["results", "input"] = "results"
    """`input` writes the label group into an OME-Zarr input instead of leaving it unchanged."""
    chunk: tuple[int, int, int] = (8, 256, 256)
    """Chunk of the label image, zyx voxels."""
    shard: tuple[int, int, int] = (16, 1024, 1024)
    """Shard of the label image, a whole number of chunks; one shard is the unit of writing."""
    dtype: Literal["auto", "uint16", "uint32", "uint64"] = "auto"
    """Type of the label ids; `auto` is the smallest of uint32 and uint64 that holds them."""

    @model_validator(mode="after")
    def _aligned(self) -> Output:
        if min(self.chunk) < 1 or any(
            s < 1 or s % c for s, c in zip(self.shard, self.chunk, strict=True)
        ):
            raise ValueError("shard must be a whole number of chunks on every axis")
        return self


class Export(Section):
    """Formats in which lineages are written beside the label image of the tracks."""

    formats: tuple[Literal["geff", "ctc", "csv", "trackmate"], ...] = (
        "geff",
        "ctc",
        "csv",
        "trackmate",
    )
    """`tracks.geff`, `ctc/` (Cell Tracking Challenge), `tracks.csv` (napari) and `tracks.xml`
    (TrackMate)."""
    wide_ctc: bool = False
    """Write CTC images with 32 bits where there are more than 65 535 tracks, which the challenge's own
    programs do not read."""


class Compute(Section):
    """How blocks are computed; fixed for a run so that its result is reproducible."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the network; `auto` is fp32 on a CPU and bf16 or fp16 on a GPU."""
    batch: int = Field(default=4, ge=1)
    """Tiles per call of the network; halved for a block that runs out of memory."""
    threads: int = Field(default=1, ge=1)
    """CPU threads of one worker."""
    block_slices: int = Field(default=4, ge=1)
    """Slices of a block of tiles."""
    block_tiles: int = Field(default=2, ge=1)
    """Tile rows and tile columns of a block."""
    store_embeddings: bool = False
    """Keep the embeddings of all tiles, for prompts and repeated segmentation."""
    compile: bool = False
    """Compile the image encoder with `torch.compile` on a GPU, which takes minutes in every worker and
    pays on long runs; on a CPU the encoder's own layers are faster, and nothing is compiled."""
    allow_pickle: bool = False
    """Load a checkpoint that holds Python objects, as training checkpoints may; such a file can
    run code, so only allow it for files you made or trust."""
    compat: Literal["none", "micro-sam"] = "none"
    """`micro-sam` normalises and clips tiles as that program does."""
    max_memory_gb: float | None = Field(default=None, gt=0)
    """Refuse a plan whose worker would need more; by default the machine's memory."""
    max_files: int | None = Field(default=None, ge=1)
    """Refuse a plan that would write more files (quota of the file system)."""


# What no sample may have for itself.
OF_ALL = ("samples", "results", "sheet", "task", "train", "models")


class Config(Section):
    """What to run."""

    results: PathText = "results"
    """Folder of all results."""
    task: Literal["segment", "track", "train", "evaluate"] = "segment"
    """What to do; `track` segments all time points and joins their objects to lineages."""
    model: PathText = "embedded"
    """Name of a trained model or one in the registry, `embedded`, a checkpoint's path
    (`encoder.pt::decoder.pt` if in two files), or `predictions:<path>` for stored predictions (an
    array 3, z, y, x)."""
    models: PathText = "models"
    """Folder of trained models."""
    samples: dict[Name, Sample] = Field(default_factory=dict)
    """The images by name."""
    sheet: PathText | None = None
    """A CSV or TSV file with further samples: columns `name`, `image` and other keys of a sample,
    nested ones with a dot, e.g. `voxel_size.z`."""
    normalise: Normalise = Normalise()
    scale: Scale = Scale()
    tiles: Tiles = Tiles()
    foreground: Foreground = Foreground()
    ais: Ais = Ais()
    stitch: Stitch = Stitch()
    objects: Objects = Objects()
    output: Output = Output()
    track: Track = Track()
    export: Export = Export()
    evaluate: Evaluate = Evaluate()
    train: Train | None = None
    compute: Compute = Compute()

    @field_validator("model")
    @classmethod
    def _named(cls, model: str) -> str:
        if model.startswith(":") or model.endswith(":"):
            raise ValueError("a path is missing beside the colon")
        return model

    @model_validator(mode="after")
    def _complete(self) -> Config:
        if self.task == "train" and self.train is None:
            raise ValueError("task is train and the section train is missing")
        if self.evaluate.data == HELD_OUT and self.train is None:
            raise ValueError(f"evaluate.data is {HELD_OUT} and the section train is missing")
        if self.task in ("segment", "track") and not self.samples:
            raise ValueError("samples is empty; name at least one image")
        for name, sample in self.samples.items():
            if sample.truth_tracks and sample.region not in (None, Region()):
                raise ValueError(
                    f"samples.{name} names truth_tracks, which score whole sequences; leave region "
                    "out, or truth_tracks"
                )
        if self.task == "track":
            for name, sample in self.samples.items():
                if sample.timepoint is not None:
                    raise ValueError(
                        f"samples.{name}.timepoint chooses one time point and the task is track; use "
                        f"region: {{t: [{sample.timepoint}, …]}} for some of them"
                    )
                other = next(
                    (k for k in ("segmentation", "corrections") if getattr(sample, k)), None
                )
                if sample.prompts and other:
                    raise ValueError(
                        f"samples.{name} has both prompts and {other}; leave one of them out"
                    )
        return self

    def of_sample(self, name: str) -> Config:
        """The configuration of one sample, its overrides applied."""
        if name not in self.samples:
            raise VolsamError(
                f"There is no sample {name!r} in the configuration; it has {', '.join(self.samples)}."
            )
        sample = self.samples[name]
        data = self.model_dump(mode="json", exclude={"samples"})
        for section, values in sample.overrides.items():
            if section in OF_ALL or section not in data:
                raise VolsamError(
                    f"Key samples.{name}.overrides.{section} is no section that a sample may override; "
                    f"use one of {', '.join(k for k in data if k not in OF_ALL)}."
                )
            known = data[section]
            both = isinstance(known, dict) and isinstance(values, dict)
            data[section] = {**known, **values} if both else values
        plain = sample.model_dump(mode="json", exclude={"overrides"})
        return validate({**data, "samples": {name: plain}})


def validate(data: Mapping[str, Any]) -> Config:
    """Check a configuration; the first fault is told in one sentence with its key."""
    try:
        return Config.model_validate(with_sheet(data))
    except ValidationError as error:
        raise VolsamError(fault(error)) from None


def load(path: str | Path) -> Config:
    """Read a YAML or JSON configuration file, or a JSON text that starts with ``{``."""
    text = str(path)
    name = "given as text"
    if not text.lstrip().startswith("{"):
        name = text
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text file"
            raise VolsamError(f"Cannot read the configuration {path}: {reason}.") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise VolsamError(f"The configuration {name} is no valid YAML{where}; mend it.") from None
    if not isinstance(data, dict):
        raise VolsamError(f"The configuration {name} holds no keys; start from config/README.md.")
    return validate(data)
