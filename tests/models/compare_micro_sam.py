"""Compare with what ``oracle_micro_sam.py`` recorded: ``python compare_micro_sam.py <folder>``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch

from volsam.models import load_model
from volsam.segment.predict import _as_micro_sam, predict_clipped


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    record = np.load(folder / "oracle.npz")
    for precision in ("fp32", "bf16"):
        model = load_model(str(folder / "vit_b.pt"), precision=precision)
        for name in ("square", "wide"):
            image = record[f"{name}_image"]
            embedding = model.embed(_as_micro_sam(image, model.image_size)[None]).numpy()
            start = time.process_time()
            maps = predict_clipped(model, image)
            seconds = time.process_time() - start
            for what, ours in (("embedding", embedding), ("maps", maps)):
                theirs = record[f"{name}_{what}"]
                difference = np.abs(ours - theirs)
                print(
                    f"{precision} {name} {what}: max {difference.max():.2e}, mean "
                    f"{difference.mean():.2e} (deviation of the values {theirs.std():.2f}, "
                    f"{theirs.min():.2f} to {theirs.max():.2f})"
                )
            print(f"{precision} {name}: {seconds:.1f} CPU s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
