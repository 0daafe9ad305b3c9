"""TensorBoard event files of a training run, where the optional package ``tensorboard`` is installed.

Invariants
----------
- A log never ends a training: without the package, or on a disk that refuses, one sentence is said
  and every call does nothing.
- Everything is logged against the step. A run that goes on hides, in TensorBoard, what was logged
  after its state was saved, and it does so by step.
- Losses of parts that are not trained are exactly 0 and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Say = Callable[[str], None]


class Board:
    """Event files in a folder; a run that goes on adds to them.

    Parameters
    ----------
    folder : Path
        What ``tensorboard --logdir`` is given, or a folder in it. Made if there is none.
    enabled : bool
        Whether anything is written: of several processes only the first should.
    step : int
        Finished steps of the run that goes on; 0 for a new one.
    say : callable
        Receives the sentence on why there are no logs.
    """

    def __init__(
        self, folder: Path, enabled: bool = True, *, step: int = 0, say: Say = print
    ) -> None:
        self._say = say
        self._writer: Any = self._open(folder, step) if enabled else None

    @property
    def active(self) -> bool:
        """Whether logs are written."""
        return self._writer is not None

    def losses(self, step: int, rate: float, dice: float, iou: float, automatic: float) -> None:
        """Log the learning rate and the losses of a row of `volsam.train.loop.Progress.losses`."""
        self._scalars(
            step,
            {
                "loss/prompts_dice": dice,
                "loss/prompts_iou": iou,
                "loss/automatic": automatic,
                "learning_rate": rate,
            },
        )

    def metric(self, epoch: int, step: int, metric: float, dice: float, automatic: float) -> None:
        """Log a row of `volsam.train.loop.Progress.metrics`; the lower, the better."""
        self._scalars(
            step,
            {
                "validation/metric": metric,
                "validation/prompts_dice": dice,
                "validation/automatic": automatic,
                "epoch": epoch,
            },
        )
        self._call("flush")

    def images(self, step: int, images: Mapping[str, NDArray[np.uint8]]) -> None:
        """Log pictures.

        Parameters
        ----------
        step : int
            Finished steps.
        images : mapping of str to (h, w, 3) uint8 array
            Pictures by name.
        """
        for name, picture in images.items():
            self._call("add_image", f"pictures/{name}", picture, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is pending; calls after this do nothing."""
        self._call("close")
        self._writer = None

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        for tag, value in values.items():
            if value:
                self._call("add_scalar", tag, value, step)

    def _call(self, method: str, *values: Any, **options: Any) -> None:
        if self._writer is None:
            return
        try:
            getattr(self._writer, method)(*values, **options)
        except OSError as error:
            self._writer = None
            self._give_up(error)

    def _open(self, folder: Path, step: int) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._say("no TensorBoard logs: its package is missing; pip install 'volsam[train]'")
            return None
        try:
            # What a killed run logged after its last state is of steps that are done again.
            return SummaryWriter(str(folder), purge_step=step + 1, flush_secs=30)
        except OSError as error:
            self._give_up(error)
            return None

    def _give_up(self, error: OSError) -> None:
        self._say(f"no TensorBoard logs from here on: {error.strerror or error}")
