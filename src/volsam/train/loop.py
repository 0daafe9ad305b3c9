"""The training loop: epochs of joint steps, a metric after each, and a state that survives a kill.

Invariants
----------
- The state file holds everything that the next step depends on and appears under its name when it is
  complete. A run that was killed goes on from it; on one CPU with a fixed number of threads it ends in
  the same weights as an unbroken run.
- Crops, prompts and validation are functions of seed and step: no generator's state is carried along.
- Weights with which a loss or the metric is no number are never kept.
- With several processes each sees crops of its own and gradients are averaged, so all hold the same
  weights; the first one writes.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from volsam.errors import VolsamError
from volsam.paths import replace, write_json
from volsam.train.average import calibrate, one_cycle
from volsam.train.board import Board
from volsam.train.crops import Crop, Crops, CropSettings, collate
from volsam.train.data import Example
from volsam.train.devices import agreed, average_gradients, own_device, ranks, worst
from volsam.train.joint import (
    JointNetwork,
    Prompting,
    automatic_step,
    prompt_step,
    trainable,
)
from volsam.train.presets import Preset
from volsam.train.progress import Progress
from volsam.train.settings import Train
from volsam.train.validate import finite, learn, validate

STATE = "state.pt"
SAVE_EVERY = 120.0  # seconds between states
SAY_EVERY = 10.0
CALIBRATION = 48  # batches
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Loop:
    """A training run in a folder.

    Parameters
    ----------
    network : JointNetwork
        Adapted already; trained in place.
    settings : Train
        All settings.
    preset : Preset
        Batch, objects and precision.
    groups : sequence of (share, examples)
        What to learn from.
    validation : sequence of Crop
        What the metric is computed on; without any the last weights are the best.
    folder : Path
        For the state; a state of an earlier run with the same settings is gone on with.
    learning_rate : float
        Where the settings do not state one.
    report : callable
        Receives a line of progress every few seconds.
    """

    def __init__(
        self,
        network: JointNetwork,
        settings: Train,
        preset: Preset,
        groups: Sequence[tuple[float, Sequence[Example]]],
        validation: Sequence[Crop],
        folder: Path,
        *,
        learning_rate: float = 1e-5,
        report: Callable[[str], None] = print,
    ) -> None:
        self.settings, self.preset, self.validation = settings, preset, list(validation)
        self.folder, self.report = folder, report
        self.device = own_device()
        self.rank, self.world = ranks()
        self.network = network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        schedule, interactive = settings.schedule, settings.interactive
        self.prompting = Prompting(
            interactive.sub_iterations,
            interactive.mask_probability,
            interactive.box_distortion,
            preset.chunk,
        )
        side = round(network.image_size / settings.scale)
        strong = settings.augment == "strong"
        self.crops = CropSettings(settings.crop or side, settings.min_size, strong)
        self.groups = groups
        slices = sum(len(examples) for _, examples in groups)
        batch = preset.batch * settings.accumulate * self.world
        self.steps = schedule.steps or math.ceil(max(slices, 100) / batch)
        self.progress = Progress()
        self.rate = schedule.learning_rate or learning_rate
        self.optimiser = torch.optim.AdamW(
            _decayed(trainable(network), schedule.weight_decay), lr=self.rate
        )
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimiser, factor=0.9, patience=3
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=preset.precision == "fp16")
        self.average = None
        if schedule.average:
            self.average = torch.optim.swa_utils.AveragedModel(
                network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(schedule.average)
            )
        self.best: dict[str, Tensor] = {}
        self._recent: deque[Tensor] = deque(maxlen=CALIBRATION)

    @property
    def state_path(self) -> Path:
        """The state file."""
        return self.folder / STATE

    def run(self) -> JointNetwork:
        """Train to the end; returns the network with the best weights, on the CPU."""
        torch.manual_seed(self.settings.seed)
        self._resume()
        self.board = Board(
            self.folder / "tensorboard",
            enabled=self.rank == 0,
            step=self.progress.step,
            say=self.report,
        )
        while not self.progress.ended:
            self._epoch()
        self.board.close()
        self.network.load_state_dict(self.best)
        return self.network.cpu().eval()

    def _epoch(self) -> None:
        schedule, progress = self.settings.schedule, self.progress
        begun, said, saved = time.monotonic(), time.monotonic(), time.monotonic()
        used, computed, before = progress.seconds, progress.cpu, time.process_time()
        last = (progress.epoch + 1) * self.steps
        sums: deque[tuple[float, float, float]] = deque(maxlen=50)
        learn(self.network)
        for batch in self._batches(last):
            self._set_rate()
            losses = self._step(batch)
            # A step that overflows in fp16 is left out by the scaler.
            if not (math.isfinite(worst(sum(losses), self.device)) or self.scaler.is_enabled()):
                self._diverge()
                break
            sums.append(losses)
            progress.step += 1
            now = time.monotonic()
            progress.seconds = agreed(used + now - begun, self.device)
            progress.cpu = computed + time.process_time() - before
            late = schedule.minutes is not None and progress.seconds > 60 * schedule.minutes
            if now - said > SAY_EVERY or progress.step == last or late:
                said = now
                self._say(sums)
            if now - saved > SAVE_EVERY:
                saved = now
                self._save()
            if late:
                break
        if not progress.ended:
            self._end_epoch(float(np.mean([sum(row) for row in sums])) if sums else math.inf)
        progress.seconds = agreed(used + time.monotonic() - begun, self.device)
        progress.cpu = computed + time.process_time() - before
        self._save()

    def _batches(self, last: int) -> Iterator[list[Crop]]:
        """Batches of the steps from here to the end of the epoch, `accumulate` for each step."""
        size = self.preset.batch * self.settings.accumulate
        first = self.progress.step * size * self.world
        crops = Crops(self.groups, self.crops, self.settings.seed, first, last * size * self.world)
        mine = torch.utils.data.Subset(crops, range(self.rank, len(crops), self.world))
        workers = 1 if self.device.type == "cpu" else 4
        return iter(DataLoader(mine, size, num_workers=workers, collate_fn=collate))

    def _step(self, crops: list[Crop]) -> tuple[float, float, float]:
        """The two steps on one batch, in turn; their losses."""
        parts, step = self.settings.parts, self.progress.step
        batches = [
            crops[n : n + self.preset.batch] for n in range(0, len(crops), self.preset.batch)
        ]
        dice = error = automatic = 0.0
        if self.average is not None:
            self._recent.extend(torch.stack([c.image[:1] for c in batch]) for batch in batches)
        if parts != "automatic":
            for number, batch in enumerate(batches):
                rng = np.random.default_rng((self.settings.seed, step, number, self.rank))
                truths = [crop.objects(self.preset.objects, rng) for crop in batch]
                with self._cast():
                    found = prompt_step(
                        self.network,
                        self._images(batch),
                        truths,
                        step % 2 == 1,
                        self.prompting,
                        rng,
                        lambda loss: self._backward(loss, len(batches)),
                    )
                dice, error = (
                    dice + found["dice"] / len(batches),
                    error + found["iou"] / len(batches),
                )
            self._update()
        if parts != "prompts":
            for batch in batches:
                targets = torch.stack([crop.targets for crop in batch])
                known = torch.stack([crop.known for crop in batch])
                errors = self.settings.decoder_loss == "dice+error"
                with self._cast():
                    loss = automatic_step(
                        self.network,
                        self._images(batch),
                        targets,
                        known,
                        errors,
                        lambda loss: self._backward(loss, len(batches)),
                    )
                automatic += loss / len(batches)
            self._update()
        return dice, error, automatic

    def _backward(self, loss: Tensor, count: int) -> None:
        self.scaler.scale(loss / count).backward()

    def _update(self) -> None:
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        average_gradients(parameters)
        if all(parameter.grad is None for parameter in parameters):
            return  # no object in the batch
        if self.settings.schedule.clip:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(parameters, self.settings.schedule.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.network)

    def _set_rate(self) -> None:
        schedule, progress = self.settings.schedule, self.progress
        if schedule.decline != "cosine":
            return
        by_time = progress.seconds / (60 * schedule.minutes) if schedule.minutes else 0.0
        done = max(progress.step / (self.steps * schedule.epochs), by_time)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * one_cycle(min(done, 1.0), schedule.warmup)

    def _end_epoch(self, loss: float) -> None:
        schedule, progress = self.settings.schedule, self.progress
        kept = self._kept()
        dice, automatic = validate(kept, self.validation, self.settings, self.prompting)
        metric = agreed(dice + automatic / 3 if self.validation else loss, self.device)
        if not (math.isfinite(metric) if self.validation else finite(kept)):
            self._diverge()
            return
        progress.epoch += 1
        progress.metrics.append(
            [progress.epoch, progress.step, progress.seconds, metric, dice, automatic]
        )
        self.board.metric(progress.epoch, progress.step, metric, dice, automatic)
        progress.since += 1
        if metric < progress.best or not self.best or not self.validation:
            progress.best, progress.since = metric, 0
            self.best = {k: v.detach().cpu().clone() for k, v in kept.state_dict().items()}
        if schedule.decline == "plateau" and self.validation:
            self.plateau.step(metric)
        if schedule.minutes is not None and progress.seconds > 60 * schedule.minutes:
            progress.ended = f"the {schedule.minutes:g} minutes are over"
        elif progress.epoch >= schedule.epochs:
            progress.ended = f"{schedule.epochs} epochs are done"
        elif progress.since >= schedule.patience:
            progress.ended = f"no progress in {schedule.patience} epochs"
        mark = "  best" if not progress.since else ""
        self._print(f"epoch {progress.epoch}  metric {metric:.4f}{mark}")
        if progress.ended:
            self._print(f"ends: {progress.ended}")

    def _diverge(self) -> None:
        """Stop: with the weights that the metric chose before, if it chose any."""
        progress = self.progress
        reason = f"the training diverged after step {progress.step}"
        advice = "lower train.schedule.learning_rate"
        if not self.validation or not self.best:
            self.state_path.unlink(missing_ok=True)  # nothing to go on with
            raise VolsamError(f"{reason[0].upper()}{reason[1:]}: a loss is no number; {advice}.")
        progress.ended = f"{reason}, the best weights before are kept; {advice}"
        self._print(f"ends: {progress.ended}")

    def _kept(self) -> JointNetwork:
        """What is kept: the network, or the average with batch statistics of its own."""
        if self.average is None:
            return self.network
        kept: JointNetwork = self.average.module  # type: ignore[assignment]
        with torch.no_grad():
            calibrate(kept, self._recent, lambda grey: kept.maps(grey.expand(-1, 3, -1, -1)))
        return kept

    def _images(self, crops: Sequence[Crop]) -> Tensor:
        images = torch.stack([crop.image for crop in crops])
        return images.to(self.device)

    def _cast(self) -> contextlib.AbstractContextManager[Any]:
        dtype = _TYPES.get(self.preset.precision)
        return torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None)

    def _say(self, sums: Sequence[tuple[float, float, float]]) -> None:
        progress, schedule = self.progress, self.settings.schedule
        dice, error, automatic = np.mean(sums, axis=0)
        rate = self.optimiser.param_groups[0]["lr"]
        progress.losses.append(
            [progress.step, progress.seconds, rate, float(dice), float(error), float(automatic)]
        )
        self.board.losses(progress.step, rate, float(dice), float(error), float(automatic))
        total = self.steps * schedule.epochs
        left = progress.seconds / max(progress.step, 1) * (total - progress.step)
        if schedule.minutes is not None:
            left = min(left, 60 * schedule.minutes - progress.seconds)
        self._print(
            f"step {progress.step} of {total}  prompts {dice:.4f} + {error:.4f}  automatic "
            f"{automatic:.4f}  at most {max(left, 0) / 60:.1f} min left"
        )

    def _print(self, text: str) -> None:
        if self.rank == 0:
            self.report(text)

    def _save(self) -> None:
        if self.rank:
            return
        state = {
            "progress": vars(self.progress),
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "plateau": _plain(self.plateau.state_dict()),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "best": self.best,
            "recent": list(self._recent),
            "batch": [*vars(self.preset).values(), self.world],
        }
        replace(self.state_path, lambda path: torch.save(state, path))
        write_json(self.folder / "progress.json", vars(self.progress) | {"steps": self.steps})

    def _resume(self) -> None:
        if not self.state_path.is_file():
            return
        try:
            state = torch.load(self.state_path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises whatever its reader meets
            raise VolsamError(
                f"The state of training {self.state_path} is damaged ({type(error).__name__}); "
                "remove it to start again."
            ) from None
        batch = [*vars(self.preset).values(), self.world]
        if state["batch"] != batch:
            raise VolsamError(
                f"The training in {self.folder} was begun with (batch, objects, chunk, precision, "
                f"processes) = {state['batch']} and would go on with {batch}; state train.preset and "
                "--devices as before, or remove the folder to start again."
            )
        self.progress = Progress(**state["progress"])
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.plateau.load_state_dict(state["plateau"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.best = state["best"]
        self._recent.extend(state["recent"])
        self._print(f"goes on after step {self.progress.step}")


def _decayed(parameters: dict[str, Tensor], decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels, none for biases, norms and position biases."""
    plain = {
        name: p for name, p in parameters.items() if p.ndim < 2 or name.endswith("attention_biases")
    }
    return [
        {"params": [p for n, p in parameters.items() if n not in plain], "weight_decay": decay},
        {"params": list(plain.values()), "weight_decay": 0.0},
    ]


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """What `weights_only` can load of a scheduler's state."""
    return {k: float(v) if isinstance(v, np.floating) else v for k, v in state.items()}
