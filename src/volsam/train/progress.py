"""Where a training is: what its report, its log and its next step are made from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Progress:
    """Where a run is; all of it is in the state file.

    Attributes
    ----------
    step, epoch : int
        Finished steps and epochs.
    best : float
        Best validation metric; lower is better.
    since : int
        Epochs without a better one.
    seconds, cpu : float
        Time and CPU time used so far, interruptions left out.
    ended : str
        Why the run is over; empty while it is not.
    losses, metrics : list
        Rows of the log: (step, seconds, learning rate, dice, iou, automatic), and
        (epoch, step, seconds, metric, dice, automatic).
    """

    step: int = 0
    epoch: int = 0
    best: float = math.inf
    since: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    ended: str = ""
    losses: list[list[float]] = field(default_factory=list)
    metrics: list[list[float]] = field(default_factory=list)
