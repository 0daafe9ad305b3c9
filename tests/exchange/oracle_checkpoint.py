"""A checkpoint that volsam wrote, in micro-sam itself: does it load there, and give the same masks?

Not a test, and in three steps, because micro-sam has an environment of its own::

    python tests/exchange/oracle_checkpoint.py write <folder>       # here
    python tests/exchange/oracle_checkpoint.py micro-sam <folder>   # where micro-sam is installed
    python tests/exchange/oracle_checkpoint.py compare <folder>     # here

Leaves ``checkpoint.pt`` (a random vit_b with decoder), ``image.npy`` and ``oracle.npz`` in the folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

SIDE, BOX = 1024, (300, 250, 620, 700)  # a whole input, so that nothing is resized


def write(folder: Path) -> None:
    """Write a checkpoint of random weights, all of which matter, and an image."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
    from seeded import seeded_state

    from volsam.models.export import write_checkpoint
    from volsam.models.sam import VIT_B, build_sam
    from volsam.models.unetr import UNETR

    folder.mkdir(parents=True, exist_ok=True)
    state = seeded_state(build_sam(VIT_B.encoder(), VIT_B.image_size))
    state |= {f"decoder.{key}": value for key, value in seeded_state(UNETR()).items()}
    write_checkpoint(folder / "checkpoint.pt", state)
    image = np.random.default_rng(0).integers(0, 256, (SIDE // 16, SIDE // 16, 3), dtype=np.uint8)
    image[0, 0], image[0, 1] = 0, 255  # micro-sam stretches contrast: leave it nothing to stretch
    np.save(folder / "image.npy", image.repeat(16, axis=0).repeat(16, axis=1))


def micro_sam(folder: Path) -> None:
    """Load with micro-sam; record masks of a box prompt and the maps of the decoder."""
    from micro_sam import instance_segmentation, util

    path, image = folder / "checkpoint.pt", np.load(folder / "image.npy")
    util.get_sam_model(model_type="vit_b", checkpoint_path=path, device="cpu")
    predictor, decoder = instance_segmentation.get_predictor_and_decoder("vit_b", path, "cpu")
    predictor.set_image(image)
    record = {}
    for multimask in (False, True):
        masks, iou, logits = predictor.predict(
            box=np.array(BOX), multimask_output=multimask, return_logits=True
        )
        what = "three" if multimask else "one"
        record |= {f"{what}_masks": masks, f"{what}_iou": iou, f"{what}_logits": logits}
    with torch.no_grad():
        maps = decoder(predictor.features, (SIDE, SIDE), (SIDE, SIDE))
    np.savez(folder / "oracle.npz", maps=maps[0].numpy(), **record)


def compare(folder: Path) -> None:
    """Predict the same here and print by how much it differs."""
    from volsam.models import load_model
    from volsam.segment.prompts import Prompts, decode, upscale

    record, image = np.load(folder / "oracle.npz"), np.load(folder / "image.npy")
    model = load_model(str(folder / "checkpoint.pt"))
    embedding = model.embed(torch.from_numpy(image).permute(2, 0, 1)[None].float())
    found = {"maps": model.decode(embedding)[0].numpy()}
    prompts = Prompts(boxes=torch.tensor([BOX], dtype=torch.float32))
    for what, multimask in (("one", False), ("three", True)):
        with torch.inference_mode():
            logits, iou = decode(model.sam, embedding, prompts, multimask)
            masks = upscale(logits, model.image_size, (SIDE, SIDE))
        found |= {f"{what}_masks": masks[0].numpy(), f"{what}_iou": iou[0].numpy()}
        found[f"{what}_logits"] = logits[0].numpy()
    worst = 0.0
    for what, ours in found.items():
        theirs = record[what]
        worst = max(worst, float(np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max())))
        line = f"{what}: max {np.abs(ours - theirs).max():.2e} of {np.abs(theirs).max():.2f}"
        same = (ours > 0) == (theirs > 0)
        print(line + (f", {np.mean(same):.6f} of pixels alike" if "masks" in what else ""))
    if worst > 1e-3:
        raise SystemExit(f"differs by {worst:.1e}")


if __name__ == "__main__":
    steps = {"write": write, "micro-sam": micro_sam, "compare": compare}
    steps[sys.argv[1]](Path(sys.argv[2]))
