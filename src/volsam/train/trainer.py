"""The first trainer: AIS targets only, encoder and decoder from scratch, on CPU or GPU.

``python -m volsam.train.trainer RECIPE OUTPUT``; ``python -m volsam.train.publish`` makes a model of it.

A run leaves in its output folder ``weights.safetensors`` (the moving average, renewed during the
run), ``recipe.yaml`` and ``training-log.csv``. Files appear under their names only when complete.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from volsam.train.average import calibrate, one_cycle
from volsam.train.data import CropDataset, training_groups
from volsam.train.loss import ais_loss
from volsam.train.network import build_network
from volsam.train.recipe import OptimiserRecipe, TrainRecipe

SAVE_EVERY = 300.0  # seconds
CALIBRATION_BATCHES = 24


def train(recipe: TrainRecipe, output: Path, report: Callable[[str], None] = print) -> Path:
    """Train a network and return the path of its weights.

    Parameters
    ----------
    recipe : TrainRecipe
        All settings.
    output : Path
        Folder for weights, recipe and log; made where missing.
    report : callable
        Receives a line of progress about every ten seconds.
    """
    output.mkdir(parents=True, exist_ok=True)
    recipe.to_file(output / "recipe.yaml")
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    groups, _ = training_groups(Path(recipe.data_root), recipe.data, recipe.seed)
    report("training on " + ", ".join(f"{len(e)} images ({share:g})" for share, e in groups))
    settings = recipe.optimiser
    crops = CropDataset(groups, recipe.data, settings.steps * settings.batch, recipe.seed)
    loader = DataLoader(crops, settings.batch, num_workers=recipe.workers)

    network = build_network(recipe)
    if recipe.initial_weights:
        network.load_state_dict(load_file(recipe.initial_weights))
    network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(settings.ema)
    )
    recent: deque[Tensor] = deque(maxlen=CALIBRATION_BATCHES)
    optimiser = torch.optim.AdamW(_parameter_groups(network, settings), betas=(0.9, 0.98))

    start = saved = told = time.monotonic()
    mean_loss = 0.0
    log = (output / "training-log.csv").open("w", buffering=1)
    log.write("step,seconds,learning_rate,loss\n")
    with log:
        for step, (images, targets) in enumerate(loader):
            progress = _progress(settings, step, time.monotonic() - start)
            if progress >= 1:
                break
            rate = settings.learning_rate * one_cycle(progress, settings.warmup)
            for group in optimiser.param_groups:
                group["lr"] = rate
            bf16 = recipe.precision == "bf16"
            recent.append(images)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = network(images.to(device))
            loss = ais_loss(logits, targets.to(device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
            optimiser.step()
            average.update_parameters(network)

            smoothing = min(0.98, 1 - 1 / (step + 1))
            mean_loss = smoothing * mean_loss + (1 - smoothing) * float(loss.detach())
            now = time.monotonic()
            if now - told > 10:
                told = now
                log.write(f"{step},{now - start:.0f},{rate:.2e},{mean_loss:.4f}\n")
                left = (now - start) * (1 / max(progress, 1e-6) - 1)
                report(f"step {step}  loss {mean_loss:.4f}  {left / 60:.1f} min left")
            if now - saved > SAVE_EVERY:
                saved = now
                calibrate(average.module, recent)
                _save(average.module, output)
    calibrate(average.module, recent)
    return _save(average.module, output)


def _progress(settings: OptimiserRecipe, step: int, seconds: float) -> float:
    """Share of the run that is done, by steps or by time, whichever is further."""
    by_time = seconds / (60 * settings.minutes) if settings.minutes else 0.0
    return max(step / settings.steps, by_time)


def _parameter_groups(network: nn.Module, settings: OptimiserRecipe) -> list[dict[str, object]]:
    """Weight decay for matrices and kernels, none for biases, norms and attention biases."""
    decayed: list[Tensor] = []
    free: list[Tensor] = []
    for name, parameter in network.named_parameters():
        plain = parameter.ndim < 2 or name.endswith("attention_biases")
        (free if plain else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def _save(network: nn.Module, output: Path) -> Path:
    """Write the weights beside their final name and move them there."""
    path = output / "weights.safetensors"
    part = path.with_suffix(".part")
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    save_file(state, part)
    part.replace(path)
    return path


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path, help="YAML file, see volsam.train.recipe")
    parser.add_argument("output", type=Path, help="folder for weights and log")
    arguments = parser.parse_args()
    print(train(TrainRecipe.from_file(arguments.recipe), arguments.output))


if __name__ == "__main__":
    main()
