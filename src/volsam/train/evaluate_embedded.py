"""Scores of the embedded model on the validation images, beside simpler methods.

``python -m volsam.train.evaluate_embedded --data ../shared/data`` prints the table of the model
card. Thresholds are never tuned on these images: the network's come with the model, the classical
baseline's are found on held-out training images. With ``--tune`` the network's are first searched
on all training images and noted in ``model.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from volsam.evaluate.baselines import WatershedParameters, candidates, otsu_watershed
from volsam.evaluate.suite import predict_image
from volsam.models import load_model
from volsam.segment.ais import AisParameters
from volsam.train.data import Example, hold_out, load_dsb2018
from volsam.train.duplicates import near_duplicates
from volsam.train.predict import predict_maps
from volsam.train.publish import load_run
from volsam.train.tune import mean_scores, segment_maps, tune_ais

Segment = Callable[[NDArray[np.float32]], NDArray[Any]]
MODEL = "embedded model"
EMBEDDED = Path(__file__).parents[1] / "models" / "embedded"


def model_segmenter(folder: Path) -> Segment:
    """Build the function from an image to instances for a published model, or a plain U-Net."""
    description = json.loads((folder / "model.json").read_text())
    parameters = AisParameters(**description["ais"])
    if not description["encoder"]:
        network, _ = load_run(folder)
        return lambda image: segment_maps(predict_maps(network, image), parameters)
    model = load_model(str(folder / "model.json"))
    return lambda image: segment_maps(predict_image(model, image), parameters)


def tune(data: Path, folder: Path, workers: int = 1) -> dict[str, float]:
    """Search the thresholds on all training images, note them, and return the scores there."""
    path = folder / "model.json"
    description = json.loads(path.read_text())
    model, images = load_model(str(path)), load_dsb2018(data, "train")
    found, scores = tune_ais(
        [predict_image(model, example.image) for example in images],
        [example.labels for example in images],
        start=AisParameters(**description["ais"]),
        workers=workers,
    )
    description["ais"] = asdict(found)
    path.write_text(json.dumps(description, indent=2) + "\n")
    return {"n": len(images), **scores}


def classical_segmenter(tuning: Sequence[Example]) -> Segment:
    """Build Otsu's threshold with a distance watershed, set up on the tuning images."""
    truths = [example.labels for example in tuning]

    def quality(parameters: WatershedParameters) -> float:
        labels = [otsu_watershed(example.image, None, parameters) for example in tuning]
        return mean_scores(labels, truths)["mSA"]

    best = max(candidates(2), key=quality)
    return lambda image: otsu_watershed(image, None, best)


def evaluate(data: Path, models: dict[str, Path]) -> list[dict[str, Any]]:
    """Score every method on all validation images and on those without a near-duplicate.

    Parameters
    ----------
    data : Path
        Folder of the annotated data.
    models : dict
        Folders of published models by the name to show.

    Returns
    -------
    list of dict
        One row per method and set of images: method, images, n, mSA, SA50, SA75.
    """
    train, val = load_dsb2018(data, "train"), load_dsb2018(data, "val")
    _, tuning = hold_out(train, 32)
    doubles = near_duplicates(val, train)
    methods = {"Otsu and distance watershed": classical_segmenter(tuning)}
    methods |= {name: model_segmenter(folder) for name, folder in models.items()}
    rows = []
    for method, segment in methods.items():
        labels = [segment(example.image) for example in val]
        for images, chosen in {
            "all": range(len(val)),
            "no near-duplicate": [i for i, e in enumerate(val) if e.name not in doubles],
        }.items():
            scores = mean_scores([labels[i] for i in chosen], [val[i].labels for i in chosen])
            rows.append({"method": method, "images": images, "n": len(chosen), **scores})
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Format rows as a Markdown table."""
    lines = ["| method | validation images | n | mSA | SA50 | SA75 |", "|---|---|---|---|---|---|"]
    for row in rows:
        scores = " | ".join(f"{row[key]:.3f}" for key in ("mSA", "SA50", "SA75"))
        lines.append(f"| {row['method']} | {row['images']} | {row['n']} | {scores} |")
    return "\n".join(lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", type=Path, default=EMBEDDED, help="folder of a published model")
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="another published model for the same table",
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tune", action="store_true", help="search thresholds on training images")
    parser.add_argument("--record", action="store_true", help="note the scores in model.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    others = {name: Path(folder) for name, folder in (o.split("=", 1) for o in arguments.compare)}
    if arguments.tune:
        print(tune(arguments.data, arguments.model, arguments.threads))
    rows = evaluate(arguments.data, {MODEL: arguments.model, **others})
    print(table(rows))
    if arguments.record:
        path = arguments.model / "model.json"
        ours = next(row for row in rows if row["method"] == MODEL)
        scores = {key: round(ours[key], 4) for key in ("n", "mSA", "SA50", "SA75")}
        description = json.loads(path.read_text()) | {"validation": scores}
        path.write_text(json.dumps(description, indent=2) + "\n")


if __name__ == "__main__":
    main()
