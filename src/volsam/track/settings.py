"""Section `track` of the configuration: how objects of a time-lapse become lineages."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from volsam.section import PathText, Section
from volsam.track.prompted import Propagation


class Track(Section):
    """Linking objects of neighbouring frames, with divisions."""

    solver: Literal["global", "fast"] = "global"
    """`global` finds the best lineages of a window; `fast` links frame by frame, then adds divisions
    and closes gaps."""
    kind: Literal["auto", "general", "bacteria", "points"] = "auto"
    """What is tracked, for the weights: `points` knows positions only; `auto` is `general`, or `points`
    where there are no labels to overlap."""
    weights: PathText | None = None
    """Weights fitted from tracked truth (`volsam track fit`), instead of those of the kind."""
    associations: PathText | None = None
    """Folder of a model of trackastra (`config.yaml`, `train_config.yaml`, `model.pt`), which then says
    what objects of neighbouring frames come from; needs `pip install 'volsam[trackastra]'`."""
    divisions: bool = True
    """Whether objects divide."""
    max_gap: int = Field(default=2, ge=0, le=10)
    """Frames that an object may be missing within its track."""
    radius: float | None = Field(default=None, gt=0)
    """How far an object gets by itself from one frame to the next at most, in median object diameters;
    by default 2, or six times what is usual where that is more."""
    window: int = Field(default=50, ge=1)
    """Frames that are linked at once."""
    overlap: int = Field(default=5, ge=0)
    """Frames beyond a window, on both sides, that its links are chosen with."""

    prompted: Propagation = Propagation()
    """Following objects that are prompted (`prompts` of a sample)."""

    @model_validator(mode="after")
    def _covered(self) -> Track:
        if self.overlap <= self.max_gap:
            raise ValueError("overlap must be greater than max_gap")
        return self
