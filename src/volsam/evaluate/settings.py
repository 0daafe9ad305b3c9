"""Section `evaluate` of the configuration: scores of samples, and evaluations of models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from volsam.section import Name, PathText, Section
from volsam.train.settings import TrainData

HELD_OUT = "held-out"


class Evaluate(Section):
    """Scores against a truth: of samples that name one, and of models with `task: evaluate`."""

    baseline: bool = False
    """Score Otsu's threshold and a distance watershed beside the result of a sample; small volumes
    only. The other keys are read with `task: evaluate`."""
    name: Name = "models"
    """Folder of the result, below `evaluation` in the results."""
    models: Annotated[list[PathText], Field(min_length=1)] | None = None
    """Models to compare, the first with each of the others: as the key `model`, which is the
    default."""
    data: PathText | list[TrainData] = "annotations"
    """Images to score: a folder of annotations (`volsam annotate`), a list as `train.data`, or
    `held-out`: what the training of the section `train` keeps for comparison."""
    automatic: Literal["auto", "amg", "both"] = "auto"
    """Automatic segmentation: `auto` is AIS of models that have a decoder and AMG, automatic mask
    generation from a grid of points, of others; `amg` is AMG of all; `both` scores AMG beside AIS."""
    interactive: bool = True
    """Simulate interactive segmentation from a point and from a box, with and without mask prompt;
    models without prompts are left out."""
    rounds: int = Field(default=8, ge=0)
    """Rounds of corrections; each adds a point where the mask lacks the object and one where it
    exceeds it."""
    grid: bool = False
    """Search the parameters of automatic segmentation, and score with the best if there is
    `tuning`."""
    tuning: PathText | list[TrainData] | None = None
    """Images to search on, none of them in `data`; with `held-out` what the training validates with.
    Without them the search shows what parameters could gain at most."""
    neurites: bool = False
    """Report variation of information and adapted Rand error, for dense truth."""
    scale: float = Field(default=1.0, gt=0)
    """Pixels of the models' input per pixel of the images."""
    batch: int = Field(default=32, ge=1)
    """Objects, or points of AMG, that are prompted at once."""
    seed: int = Field(default=0, ge=0)
    """Of the simulated prompts."""

    @model_validator(mode="after")
    def _consistent(self) -> Evaluate:
        if self.models and len(set(self.models)) < len(self.models):
            raise ValueError("models names one of them twice")
        if self.tuning is not None and not self.grid:
            raise ValueError("tuning is for the search, so grid must be true")
        if self.tuning == HELD_OUT:
            raise ValueError("tuning on what is held out would make the scores worthless")
        return self
