"""Turn a finished run into a model that `volsam.models.load_model` reads.

Tunes the AIS parameters on held-out training images, then writes weights,
``model.json``, recipe and log into one folder: ``python -m volsam.train.publish RUN TARGET``.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors.torch import load_file
from torch import nn

from volsam.train.data import hold_out, load_dsb2018
from volsam.train.network import build_network
from volsam.train.predict import predict_maps
from volsam.train.recipe import TrainRecipe
from volsam.train.tune import tune_ais

DATA = [
    "DSB2018 stage 1, fluorescence images of the training split (CC0-1.0)",
    "StarDist sample images nuclei2d and nuclei2d_dsb (BSD-3-Clause)",
    "slices of synthetic volumes (volsam.train.synthetic)",
]


def load_run(folder: Path) -> tuple[nn.Module, TrainRecipe]:
    """Build the network of a run with its weights."""
    recipe = TrainRecipe.from_file(folder / "recipe.yaml")
    network = build_network(recipe)
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    return network.eval(), recipe


def publish(run: Path, target: Path) -> dict[str, float]:
    """Tune and describe the model of a run; return its scores on the tuning images.

    Parameters
    ----------
    run : Path
        Output folder of `volsam.train.trainer.train`.
    target : Path
        Folder of the model; its files are replaced.
    """
    network, recipe = load_run(run)
    kept, tuning = hold_out(
        load_dsb2018(Path(recipe.data_root), "train"), recipe.data.tuning_images
    )
    maps = [predict_maps(network, example.image) for example in tuning]
    parameters, scores = tune_ais(maps, [example.labels for example in tuning])
    description = {
        "name": "embedded",
        "weights": "weights.safetensors",
        "encoder": recipe.encoder,
        "decoder": recipe.decoder,
        "normalisation": "percentile",
        "diameter": round(float(np.median([example.diameter for example in kept])), 1),
        "pixel_size": None,
        "ais": asdict(parameters),
        "tuning": {"images": len(tuning), **{k: round(v, 4) for k, v in scores.items()}},
        "licence": "MIT",
        "data": DATA,
    }
    target.mkdir(parents=True, exist_ok=True)
    for name in ("weights.safetensors", "recipe.yaml", "training-log.csv"):
        if (run / name).resolve() != (target / name).resolve():
            shutil.copyfile(run / name, target / name)
    (target / "model.json").write_text(json.dumps(description, indent=2) + "\n")
    return scores


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="output folder of a training run")
    parser.add_argument("target", type=Path, help="folder of the model")
    arguments = parser.parse_args()
    print(publish(arguments.run, arguments.target))


if __name__ == "__main__":
    main()
