"""Record iterations of micro-sam's joint trainer with a miniature SAM: ``micro_sam_training.npz``.

Not a test: run it where micro-sam is installed::

    python tests/train/oracle_micro_sam_training.py
"""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path += [str(FOLDER.parent / "models"), str(FOLDER.parents[1] / "benchmarks" / "peer")]

import numpy as np  # noqa: E402
import train_iterations  # noqa: E402  (first: it brings the stand-in for torchvision's binary)
from micro_sam.training.trainable_sam import TrainableSAM  # noqa: E402
from miniature import ITERATIONS, OBJECTS, miniature  # noqa: E402
from seeded import seeded_state  # noqa: E402
from segment_anything import modeling  # noqa: E402
from torch_em.model.unetr import UNETR  # noqa: E402
from torch_em.transform.label import PerObjectDistanceTransform  # noqa: E402


def small_batch() -> dict[str, np.ndarray]:
    """An image of 64 x 64 pixels with discs, their labels and targets."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    labels = np.zeros((64, 64), np.int32)
    for number, (cy, cx, r) in enumerate(((12, 14, 9), (14, 45, 11), (40, 20, 12), (46, 50, 8)), 1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 < r**2] = number
    image = (np.where(labels > 0, 160, 50) + rng.normal(0, 20, labels.shape)).clip(0, 255)
    targets = PerObjectDistanceTransform(
        distances=True,
        boundary_distances=True,
        directed_distances=False,
        foreground=True,
        instances=False,
    )(labels)
    image = np.repeat(image.astype(np.float32)[None], 3, axis=0)
    return {"image": image, "labels": labels, "targets": targets.astype(np.float32)}


def main() -> None:
    sam = miniature(modeling)
    sam.load_state_dict(seeded_state(sam))
    unetr = UNETR(
        encoder=sam.image_encoder,
        out_channels=3,
        use_sam_stats=True,
        final_activation="Sigmoid",
        use_skip_connection=False,
        use_conv_transpose=False,
        resize_input=True,
        initial_features=4,
    )
    decoder = {k: v for k, v in seeded_state(unetr).items() if not k.startswith("encoder.")}
    unetr.load_state_dict(decoder, strict=False)
    batch = small_batch()
    model = TrainableSAM(sam)
    record = train_iterations.iterate(model, unetr, batch, ITERATIONS, OBJECTS, dilation=2)
    np.savez_compressed(FOLDER / "micro_sam_training.npz", **batch, **record)


if __name__ == "__main__":
    main()
