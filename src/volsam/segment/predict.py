"""From tiles to predicted maps: scale to the network's pixels, encode, decode, scale back.

Pure functions of the model and the tiles. Encoding and decoding are separate, so that embeddings
can be stored between them. Tiles arrive normalised to 0..1 by the one decision for their volume or
slice; nothing is normalised per tile here, except by `predict_clipped`, which does as micro-sam.

Running out of memory is a `MemoryError`: call again with fewer tiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from volsam.errors import VolsamError
from volsam.models.model import memory_errors

if TYPE_CHECKING:
    from volsam.models import Model

Floats = npt.NDArray[np.float32]


class Embedder(Protocol):
    """What has an image encoder."""

    image_size: int

    def embed(self, images: Tensor) -> Tensor:
        """Images (n, 3, h, w) in 0..255 to embeddings."""
        ...


def predict_tiles(model: Model, tiles: Floats, *, scale: float = 1.0, batch: int = 1) -> Floats:
    """Predict the maps of automatic instance segmentation for square tiles.

    Parameters
    ----------
    model : Model
        With a decoder.
    tiles : (n, h, h) or (n, 3, h, h) float32 array
        Intensities, normalised; what lies outside of 0..1 is clipped.
    scale : float
        Pixels of the network's input per pixel of a tile.
    batch : int
        Tiles per call of the network.

    Returns
    -------
    (n, 3, h, h) float32 array
        Foreground, distance to the centre, distance to the boundary; see `Model.decode`.

    Raises
    ------
    MemoryError
        If memory runs out.
    VolsamError
        If a tile is larger than what the model sees at this scale.
    """
    maps = np.empty((len(tiles), 3, *tiles.shape[-2:]), np.float32)
    for start in range(0, len(tiles), batch):
        part = slice(start, start + batch)
        embeddings = embed_tiles(model, tiles[part], scale=scale)
        maps[part] = decode_tiles(model, embeddings, scale=scale, size=tiles.shape[-1])
    return maps


def embed_image(model: Embedder, image: npt.NDArray[np.floating], scale: float = 1.0) -> Tensor:
    """Embed one image of any shape that fits the network's input.

    Parameters
    ----------
    model : Embedder
        `volsam.models.Model` qualifies.
    image : (h, w) array
        Intensities, normalised; what lies outside of 0..1 is clipped.
    scale : float
        Pixels of the network's input per pixel of the image.

    Returns
    -------
    (1, c, rows, columns) float32 tensor
    """
    pixels = np.clip(image, 0, 1).astype(np.float32) * np.float32(255)
    batch = torch.from_numpy(pixels)[None, None]
    shape = [max(1, min(model.image_size, round(side * scale))) for side in image.shape]
    if shape != list(image.shape):
        batch = F.interpolate(batch, shape, mode="bilinear", antialias=True)
    return model.embed(batch.expand(-1, 3, -1, -1))


def embed_tiles(model: Model, tiles: Floats, *, scale: float = 1.0) -> Tensor:
    """Embed tiles; arguments as of `predict_tiles`.

    Returns
    -------
    (n, *model.embedding_shape) float32 tensor
        On the model's device.
    """
    side = network_side(model, tiles.shape[-1], scale)
    with torch.inference_mode(), memory_errors():
        images = torch.from_numpy(np.ascontiguousarray(tiles, np.float32)).to(model.device)
        if images.ndim == 3:
            images = images[:, None]
        images = images.clamp(0, 1) * 255
        if side != images.shape[-1]:
            images = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
        return model.embed(images.expand(-1, 3, -1, -1))


def decode_tiles(model: Model, embeddings: Tensor, *, scale: float = 1.0, size: int) -> Floats:
    """Decode the embeddings of tiles of `size` pixels; returns maps as `predict_tiles` does."""
    side = network_side(model, size, scale)
    with torch.inference_mode(), memory_errors():
        maps = model.decode(embeddings)[..., :side, :side]
        if side != size:
            maps = F.interpolate(maps, (size, size), mode="bilinear", align_corners=False)
        result: Floats = maps.contiguous().cpu().numpy()
    return result


def predict_clipped(model: Model, image: npt.NDArray[np.generic]) -> Floats:
    """Predict the maps of one tile exactly as micro-sam does.

    The tile is stretched to its own minimum and maximum, truncated to 8 bits, and its longer side
    is resized to the whole input of the network. The same tile at another place of the plane has
    another contrast, and a smaller tile another scale.

    Parameters
    ----------
    image : (h, w) or (h, w, c) array
        Intensities as they are in the image; two channels get an empty third, more than three lose
        the rest.

    Returns
    -------
    (3, h, w) float32 array
        As of `predict_tiles`.
    """
    resized = _as_micro_sam(image, model.image_size)
    with torch.inference_mode(), memory_errors():
        maps = model.decode(model.embed(resized[None]))
        maps = maps[..., : resized.shape[-2], : resized.shape[-1]]
        height, width = image.shape[:2]
        maps = F.interpolate(maps, (height, width), mode="bilinear", align_corners=False)
        result: Floats = maps[0].cpu().numpy()
    return result


def _as_micro_sam(image: npt.NDArray[np.generic], size: int) -> Tensor:
    """Network input (3, h, w) in 0..255, the longer side `size`."""
    channels = image[..., None] if image.ndim == 2 else image
    if channels.shape[-1] == 1:
        channels = np.repeat(channels, 3, axis=-1)
    elif channels.shape[-1] == 2:
        channels = np.concatenate([channels, np.zeros_like(channels[..., :1])], axis=-1)
    values = channels[..., :3].astype(np.float32)
    values -= values.min(axis=(0, 1))
    values /= values.max(axis=(0, 1)) + 1e-7
    pixels = (values * 255).astype(np.uint8)
    zoom = size / max(image.shape[:2])
    height, width = (int(side * zoom + 0.5) for side in image.shape[:2])
    picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()


def network_side(model: Model, size: int, scale: float) -> int:
    """Pixels of the network's input that a tile of `size` pixels takes."""
    side = max(1, round(size * scale))
    if side > model.image_size:
        raise VolsamError(
            f"A tile of {size} pixels is {side} pixels for the network at scale {scale:g}, more "
            f"than the {model.image_size} that model {model.name} sees; make tiles.size smaller."
        )
    return side
