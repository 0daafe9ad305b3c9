"""Batch, objects per crop and precision that fit a piece of hardware.

Sizes follow the configurations that micro-sam's authors publish (25 objects on 80 GB, 10 on 16 GB, 5 on
8 GB for SAM's encoders of 1024 px); encoders of our own are so small that the CPU's suit all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from volsam.train.settings import Train


@dataclass(frozen=True)
class Preset:
    """What a preset sets.

    Attributes
    ----------
    batch : int
        Crops per step and device.
    objects : int
        Objects per crop that are prompted.
    chunk : int
        Objects that are decoded at a time.
    precision : str
        Number format of forward passes.
    """

    batch: int
    objects: int
    chunk: int
    precision: str


PRESETS = {
    "cpu": Preset(1, 10, 5, "fp32"),
    "8gb": Preset(1, 5, 5, "fp16"),
    "16gb": Preset(1, 10, 10, "fp16"),
    "24gb": Preset(1, 15, 15, "bf16"),
    "80gb": Preset(2, 25, 25, "bf16"),
}
SMALL_INPUT = 512  # inputs up to this side are cheap: more crops per step
SMALL_BATCH, SMALL_CHUNK = 4, 16


def choose(settings: Train, image_size: int) -> Preset:
    """The preset of the settings, with what they state in its place.

    Parameters
    ----------
    settings : Train
        Stated values win.
    image_size : int
        Side of the network's input.
    """
    name = settings.preset
    preset = PRESETS[_detect() if name == "auto" else name]
    small = image_size <= SMALL_INPUT
    batch = max(preset.batch, SMALL_BATCH) if small else preset.batch
    return Preset(
        settings.batch or batch,
        settings.objects or preset.objects,
        max(preset.chunk, SMALL_CHUNK) if small else preset.chunk,
        settings.precision or preset.precision,
    )


def _detect() -> str:
    if not torch.cuda.is_available():
        return "cpu"
    gigabytes = torch.cuda.get_device_properties(0).total_memory / 2**30
    fitting = [name for name in PRESETS if name != "cpu" and float(name[:-2]) <= gigabytes * 1.05]
    return fitting[-1] if fitting else "8gb"
