"""The images of the embedded model as files, as the training rule takes them.

``python -m volsam.train.embedded_data DATA OUT`` writes ``<set>/images/*.tif`` and
``<set>/labels/*.tif`` for the sets ``dsb2018`` (fluorescence, training split), ``stardist`` and
``synthetic``, and ``dsb2018-tuning`` where asked for. All of them are permissive or ours.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import tifffile

from volsam.train.data import Example, hold_out, load_dsb2018, load_stardist
from volsam.train.synthetic import nuclei_slices


def write_examples(examples: Iterable[Example], folder: Path) -> int:
    """Write images (float32, normalised) and labels (int32) as TIFF; returns how many."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    count = 0
    for example in examples:
        if not (example.labels > 0).any():
            continue
        tifffile.imwrite(folder / "images" / f"{example.name}.tif", example.image)
        tifffile.imwrite(folder / "labels" / f"{example.name}.tif", example.labels)
        count += 1
    return count


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the annotated data")
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("--volumes", type=int, default=100, help="synthetic volumes")
    parser.add_argument(
        "--tuning",
        type=int,
        default=0,
        help="images of dsb2018 that become the set dsb2018-tuning, to tune thresholds by",
    )
    arguments = parser.parse_args()
    synthetic = [
        Example(f"{number:04}", *pair)
        for number, pair in enumerate(nuclei_slices(0, arguments.volumes))
    ]
    kept, tuning = hold_out(load_dsb2018(arguments.data, "train"), arguments.tuning)
    sets = {
        "dsb2018": kept,
        "dsb2018-tuning": tuning,
        "dsb2018-validation": load_dsb2018(arguments.data, "val"),
        "stardist": load_stardist(arguments.data),
        "synthetic": synthetic,
    }
    for name, examples in sets.items():
        print(name, write_examples(examples, arguments.output / name))


if __name__ == "__main__":
    main()
