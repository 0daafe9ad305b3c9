"""All settings of a training run, in a file that is kept beside the weights it made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Base of the parts of a recipe: immutable, no unknown keys, described by their texts."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DataRecipe(Part):
    """What is trained on."""

    dsb2018: float = 0.75
    """Share of crops from the fluorescence images of the training split of DSB2018."""
    stardist: float = 0.03
    """Share of crops from StarDist's two sample images."""
    synthetic: float = 0.22
    """Share of crops from slices of synthetic volumes."""
    synthetic_volumes: int = 60
    """Number of synthetic volumes."""
    tuning_images: int = 32
    """Images of the training split that are held out to tune the thresholds of AIS."""
    crop: int = 256
    """Side of a crop in pixels."""
    gentle: float = 0.4
    """Share of crops of real images whose intensities are hardly changed; the others, and all of
    synthetic ones, are degraded."""
    margin: int = 16
    """Targets are computed on crops larger by this on each side, so that objects cut by the border
    of a crop have the targets of what lies beyond it."""
    min_size: int = 8
    """Objects with fewer pixels are background."""


class OptimiserRecipe(Part):
    """How it is trained."""

    steps: int = 2000
    """Optimiser steps."""
    minutes: float | None = None
    """Wall-clock limit; the learning rate then follows the time used and `steps` is the least
    upper bound of both. A run with a limit is not reproducible step by step."""
    batch: int = 8
    """Crops per step."""
    learning_rate: float = 2e-3
    """Largest learning rate of the one-cycle schedule."""
    weight_decay: float = 0.02
    """Of AdamW, on weights with two and more axes."""
    warmup: float = 0.05
    """Share of the run in which the learning rate rises."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.995
    """Decay of the moving average of the weights, which is what is saved."""


class TrainRecipe(Part):
    """A training run."""

    seed: int = 0
    """Of weights, crops and synthetic volumes."""
    threads: int = 2
    """CPU threads of the network."""
    workers: int = 1
    """Processes that prepare crops."""
    precision: str = "bf16"
    """"bf16" for mixed precision, or "fp32"."""
    data_root: str = "../shared/data"
    """Folder of the annotated data."""
    encoder: dict[str, Any] = {}
    """Arguments of `volsam.models.tiny_vit.TinyViT`."""
    decoder: dict[str, Any] = {}
    """Arguments of `volsam.models.unetr.UNETR`."""
    plain_unet: int | None = None
    """Train a plain U-Net with this many filters instead, to compare with."""
    data: DataRecipe = DataRecipe()
    optimiser: OptimiserRecipe = OptimiserRecipe()
    initial_weights: str | None = None
    """A safetensors file to start from instead of random weights."""

    @classmethod
    def from_file(cls, path: Path) -> TrainRecipe:
        """Read a recipe from a YAML file."""
        return cls.model_validate(yaml.safe_load(path.read_text()) or {})

    def to_file(self, path: Path) -> None:
        """Write the recipe, defaults included, as YAML."""
        path.write_text(yaml.safe_dump(self.model_dump(), sort_keys=False))
