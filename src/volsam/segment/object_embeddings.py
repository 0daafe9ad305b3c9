"""What objects look like to the network: the mean of its embedding over each label.

Linking compares objects by these vectors. They are short: a projection on a few orthogonal directions
keeps distances nearly, whatever the data are (Johnson and Lindenstrauss 1984), so that a vector of every
object of a long sequence fits into memory.

Invariants
----------
- The directions depend on the number of channels alone; vectors of one model can be compared.
- A label's vector is a function of its tile's embedding and of its pixels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

SIZE = 32
"""Numbers per object, fewer where the embedding has fewer channels."""

Floats = npt.NDArray[np.float32]


def project(embeddings: Tensor) -> Floats:
    """Embeddings in few channels.

    Parameters
    ----------
    embeddings : (n, c, rows, columns) tensor
        On any device.

    Returns
    -------
    (n, min(c, SIZE), rows, columns) float32 array
    """
    import torch

    from volsam.models.model import memory_errors

    with torch.inference_mode(), memory_errors():
        basis = torch.from_numpy(directions(embeddings.shape[1])).to(embeddings.device)
        short = torch.einsum("nchw,cd->ndhw", embeddings.float(), basis)
        array: Floats = short.cpu().numpy()
    return array


@lru_cache(maxsize=4)
def directions(channels: int) -> Floats:
    """Orthonormal directions at random, (channels, min(channels, SIZE)) float32."""
    normal = np.random.default_rng(channels).normal(size=(channels, min(channels, SIZE)))
    basis: Floats = np.linalg.qr(normal)[0].astype(np.float32)
    return basis


def mean_embeddings(embedding: Floats, labels: npt.NDArray[np.integer], covered: float) -> Floats:
    """Mean of an embedding over each label.

    Parameters
    ----------
    embedding : (d, rows, columns) float32
    labels : (h, h) integers
        Labels 1..n of the tile that was embedded, each of which occurs; 0 is background.
    covered : float
        Rows of the embedding that the tile covers; the rest is padding.

    Returns
    -------
    (n + 1, d) float32
        0 for the background.
    """
    d, _, columns = embedding.shape
    y, x = np.nonzero(labels)
    label = labels[y, x].astype(np.int64)
    row, column = (((p + 0.5) * (covered / len(labels))).astype(np.int64) for p in (y, x))
    cells, count = np.unique(
        (label * embedding.shape[1] + row) * columns + column, return_counts=True
    )
    label, cell = np.divmod(cells, embedding.shape[1] * columns)
    n = int(labels.max(initial=0)) + 1
    pixels = np.maximum(np.bincount(label, count, n), 1)
    flat = embedding.reshape(d, -1)
    sums = [np.bincount(label, count * channel[cell], n) for channel in flat]
    means: Floats = (np.stack(sums, axis=1) / pixels[:, None]).astype(np.float32)
    return means
