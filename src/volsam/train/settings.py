"""Section `train` of the configuration: what a training run depends on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from volsam.section import Fraction, Name, PathText, Section


class TrainData(Section):
    """Images with their true instances; the two patterns match the same number of files."""

    image: PathText
    """Path of an image or volume, or a pattern such as `images/*.tif`."""
    labels: PathText
    """Path of its labels, or a pattern; files are paired in the order of their names."""
    axes: Annotated[str, Field(pattern=r"^[tczyxs]{1,6}$")] | None = None
    """Order of the image's axes where the file does not say."""
    key: str | None = None
    """Array within a Zarr or HDF5 image."""
    labels_key: str | None = None
    """Array within Zarr or HDF5 labels."""
    channel: int | str | None = None
    """Channel by number or name; needed if there are several."""
    level: int = Field(default=0, ge=0)
    """Resolution level of the image; labels are on its grid."""
    timepoint: int | None = Field(default=None, ge=0)
    """Time point of an image and labels that have several."""
    slices: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None
    """Slices to use, all by default."""
    ignore: int | None = None
    """Label of pixels that are not known, and neither learnt from nor scored."""
    sparse: bool = False
    """Pixels without a label are not known, instead of background."""
    share: float = Field(default=1.0, gt=0)
    """Share of the crops that come from these images, relative to the others'."""
    licence: str | None = None
    """Licence of the data, for the model's card."""


class Schedule(Section):
    """How long is trained, and how fast."""

    epochs: int = Field(default=100, ge=1)
    """Epochs at most."""
    steps: int | None = Field(default=None, ge=1)
    """Steps per epoch; by default every slice once, and at least 100 crops."""
    minutes: float | None = Field(default=None, gt=0)
    """Wall-clock limit; a run that ends by it cannot be repeated exactly."""
    patience: int = Field(default=10, ge=1)
    """Epochs without a better validation metric after which training ends."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Of AdamW; by default what suits the parent, 1e-5 for SAM's encoders."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Of AdamW, on weights with two and more axes."""
    decline: Literal["plateau", "cosine"] = "plateau"
    """The learning rate falls by a tenth after 3 epochs without progress, or along half a cosine."""
    warmup: Fraction = 0.0
    """Share of a cosine schedule in which the learning rate rises."""
    clip: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient."""
    average: float = Field(default=0.0, ge=0, lt=1)
    """Decay of a moving average of the weights, which then is what is kept; 0 for none."""


class Interactive(Section):
    """Training with simulated prompts, as published for µSAM."""

    sub_iterations: int = Field(default=8, ge=1)
    """Rounds of prompting per step; after each, points are added where the prediction is wrong."""
    mask_probability: Fraction = 0.5
    """Chance that the last prediction is a prompt of the next round."""
    box_distortion: Fraction = 0.025
    """Boxes are larger than the object by up to this share of their sides."""


class Promotion(Section):
    """When a new version replaces the one in use."""

    when: Literal["better", "always", "never"] = "better"
    """`better` compares with the parent on held-out images."""
    metric: Literal["mSA", "SA50", "SA75", "box", "point"] = "mSA"
    """What has to be better: scores of automatic segmentation, or mean IoU from one prompt."""
    margin: float = 0.0
    """By how much."""


class Train(Section):
    """Training of a model from annotations."""

    name: Name
    """Name of the new model."""
    parent: PathText = "embedded"
    """Model to start from: as the key `model`."""
    data: PathText | list[TrainData] = "annotations"
    """Folder of annotations (`volsam annotate`), or a list of images with labels."""
    when: Literal["asked", "new-annotations"] = "asked"
    """`new-annotations` trains within a segmentation run, before it, if there are new ones."""
    parts: Literal["joint", "prompts", "automatic"] = "joint"
    """Train prompts and automatic segmentation in turn, or one of them only."""
    adapt: Literal["full", "lora", "decoder", "last-blocks"] = "full"
    """All weights of the image encoder, low-rank additions to them, none, or its last blocks."""
    rank: int = Field(default=4, ge=1)
    """Rank of the low-rank additions (LoRA)."""
    blocks: int = Field(default=1, ge=1)
    """Blocks that `last-blocks` trains."""
    preset: Literal["auto", "cpu", "8gb", "16gb", "24gb", "80gb"] = "auto"
    """Hardware to fill: sets batch, objects and precision where they are not stated."""
    batch: int | None = Field(default=None, ge=1)
    """Crops per step and device."""
    accumulate: int = Field(default=1, ge=1)
    """Batches whose gradients are added up before a step."""
    objects: int | None = Field(default=None, ge=1)
    """Objects per crop that are prompted."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Number format of forward passes."""
    crop: int | None = Field(default=None, ge=32)
    """Side of a crop in pixels of the images; by default what fills the model's input."""
    scale: float = Field(default=1.0, gt=0)
    """Pixels of the model's input per pixel of the images."""
    min_size: int = Field(default=25, ge=0)
    """Objects of fewer pixels are not learnt."""
    augment: Literal["flips", "strong"] = "flips"
    """Flips and quarter turns; `strong` adds rotation, scale, blur, noise and uneven light."""
    decoder_loss: Literal["dice", "dice+error"] = "dice"
    """`dice+error` adds cross-entropy and absolute errors of the distances."""
    interactive: Interactive = Interactive()
    schedule: Schedule = Schedule()
    validation: Fraction = 0.1
    """Share of the slices that stop the training and tune thresholds."""
    held_out: Fraction = 0.1
    """Share of the slices that are kept for the comparison with the parent."""
    promotion: Promotion = Promotion()
    licence: str | None = None
    """Licence of the trained model (SPDX identifier), for its card."""
    seed: int = Field(default=0, ge=0)
    """Of all random choices."""

    @model_validator(mode="after")
    def _comparable(self) -> Train:
        if self.validation + self.held_out >= 1:
            raise ValueError("validation and held_out leave nothing to train on")
        if self.promotion.when == "better" and not self.held_out:
            raise ValueError("held_out is 0, so promotion.when must be always or never")
        return self
