"""AIS maps of a whole 2D image, for tuning and scoring outside of the pipeline."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

MARGIN = 32
MULTIPLE = 32


def predict_maps(network: nn.Module, image: NDArray[np.floating]) -> NDArray[np.float32]:
    """Predict foreground, centre and boundary distance of an image in one piece.

    Parameters
    ----------
    network : Module
        Maps images in 0..255 to logits, as `volsam.train.network.AisNetwork`.
    image : (h, w) array
        Normalised signal; clipped to 0..1. It is mirrored at its border, by `MARGIN` or more.

    Returns
    -------
    (3, h, w) float32 array
    """
    height, width = image.shape
    pad = [(MARGIN, MARGIN + -(extent + 2 * MARGIN) % MULTIPLE) for extent in image.shape]
    padded = np.pad(np.clip(image, 0, 1).astype(np.float32), pad, mode="symmetric")
    batch = torch.from_numpy(padded * np.float32(255)).expand(1, 3, -1, -1)
    network.eval()
    with torch.inference_mode():
        maps = network(batch).float().sigmoid()[0].numpy()
    return maps[:, MARGIN : MARGIN + height, MARGIN : MARGIN + width]
