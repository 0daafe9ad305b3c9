"""Crops to learn from: images with instances, some pixels unknown, cut and varied at random.

Invariants
----------
- Crop number i depends on the seed and i only, so a resumed run sees what an unbroken one does.
- `UNKNOWN` pixels say nothing: an object that touches one may be cut by it, and is neither prompted for
  nor learnt. `UNLABELLED` ones are beside whole objects of a sparse annotation, or beyond the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from skimage.measure import label
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from volsam.train.augment import adjust, degrade, random_crop
from volsam.train.data import Example
from volsam.train.targets import distance_targets

UNKNOWN, UNLABELLED = -1, -2
TRIES = 20  # places that are tried for a crop with objects
MARGIN = 16  # targets are computed on crops larger by this on each side


@dataclass(frozen=True)
class Crop:
    """A training example.

    Attributes
    ----------
    image : (3, h, w) float32 tensor
        In 0..255.
    labels : (h, w) int32 tensor
        Instances to prompt for, 0 elsewhere.
    targets : (3, h, w) float32 tensor
        From `volsam.train.targets.distance_targets`.
    known : (1, h, w) float32 tensor
        1 where the truth is known.
    """

    image: Tensor
    labels: Tensor
    targets: Tensor
    known: Tensor

    def objects(self, most: int, rng: np.random.Generator) -> Tensor:
        """Masks (n, h, w) of some of the instances, chosen at random."""
        ids = np.unique(self.labels.numpy())
        ids = ids[ids > 0]
        if len(ids) > most:
            ids = np.sort(rng.choice(ids, most, replace=False))
        return self.labels[None] == torch.from_numpy(ids.astype(np.int32))[:, None, None]


@dataclass(frozen=True)
class CropSettings:
    """How crops are cut.

    Attributes
    ----------
    size : int
        Side in pixels of the images.
    min_size : int
        Objects of fewer pixels are no objects.
    strong : bool
        Rotate, scale, blur and disturb instead of flips and quarter turns only.
    gentle : float
        Share of strong crops that keep their intensities.
    """

    size: int
    min_size: int = 25
    strong: bool = False
    gentle: float = 0.5


class Crops(Dataset[Crop]):
    """Random crops of groups of examples.

    Parameters
    ----------
    groups : sequence of (share, examples)
        Share of crops from each group, equally likely within it.
    settings : CropSettings
        How crops are cut.
    seed : int
        Source of all randomness.
    start, stop : int
        First crop and the one after the last.
    """

    def __init__(
        self,
        groups: Sequence[tuple[float, Sequence[Example]]],
        settings: CropSettings,
        seed: int,
        start: int,
        stop: int,
    ) -> None:
        shares = np.array([share for share, _ in groups])
        self.shares = shares / shares.sum()
        self.groups = [[(e, e.diameter) for e in examples] for _, examples in groups]
        self.settings, self.seed, self.start, self.stop = settings, seed, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> Crop:
        rng = np.random.default_rng((self.seed, self.start + index))
        group = self.groups[rng.choice(len(self.groups), p=self.shares)]
        example, diameter = group[rng.integers(len(group))]
        for _ in range(TRIES):
            image, labels = self._cut(example, diameter, rng)
            found = crop(image, labels, self.settings.min_size, self._margin)
            if len(torch.unique(found.labels)) > 2:  # two objects besides the background
                break
        return found

    @property
    def _margin(self) -> int:
        return MARGIN if self.settings.strong else 0

    def _cut(
        self, example: Example, diameter: float, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        settings = self.settings
        if not settings.strong:
            return _place(example.image, example.labels, settings.size, rng)
        size = settings.size + 2 * MARGIN
        image, labels = random_crop(example.image, example.labels, size, diameter, rng)
        gentle = rng.random() < settings.gentle and not example.synthetic
        known = np.maximum(labels, 0)
        image = adjust(image, rng) if gentle else degrade(image, known, rng)
        # Mirrored objects are others; unknown pixels stay what they are.
        return image, np.where(labels > 0, label(known, connectivity=2), labels).astype(np.int32)


def crop(
    image: NDArray[np.floating], labels: NDArray[np.integer], min_size: int, margin: int = 0
) -> Crop:
    """The training example of an image (h, w) in 0..1 with its instances; a margin is cut off."""
    instances = np.maximum(labels, 0).astype(np.int32)
    cut = _cut_by(instances, labels == UNKNOWN)
    unknown = (labels < 0) | cut[instances]
    targets = distance_targets(instances, min_size)
    inner = slice(margin, -margin or None)
    drop = cut | (np.bincount(instances.ravel()) < min_size)
    instances = np.where(drop[instances], 0, instances)[inner, inner]
    pixels = np.ascontiguousarray(np.clip(image[inner, inner], 0, 1), np.float32) * 255
    return Crop(
        torch.from_numpy(pixels).expand(3, -1, -1),
        torch.from_numpy(np.ascontiguousarray(instances)),
        torch.from_numpy(np.ascontiguousarray(targets[:, inner, inner])),
        torch.from_numpy(np.ascontiguousarray(~unknown[None, inner, inner])).float(),
    )


def reduce(example: Example, scale: float) -> Example:
    """An example as the network sees it at a scale below 1: images averaged, labels of the nearest pixel.

    Cutting crops of what the network does not see would only cost time.
    """
    size = [max(1, round(extent * scale)) for extent in example.labels.shape]
    clipped = np.clip(example.image, 0, 1).astype(np.float32)  # first, as in prediction
    pixels = torch.from_numpy(clipped)[None, None]
    image = F.interpolate(pixels, size, mode="bilinear", antialias=True)[0, 0].numpy()
    rows, columns = (
        np.minimum(((np.arange(few) + 0.5) * many / few).astype(int), many - 1)
        for few, many in zip(size, example.labels.shape, strict=True)
    )
    return replace(example, image=image, labels=example.labels[np.ix_(rows, columns)])


def reserve(
    example: Example, box: tuple[slice, slice], rest: Example | None = None
) -> tuple[Example, Example]:
    """Split off a box of an example.

    Returns
    -------
    rest : Example
        The example, or what earlier boxes left of it, in which the box and the objects that reach
        into it are unknown.
    cut : Example
        The box.
    """
    rest = rest or example
    inside = np.unique(example.labels[box])
    labels = np.where(np.isin(example.labels, inside[inside > 0]), UNKNOWN, rest.labels)
    labels[box] = UNKNOWN
    name = f"{example.name}[{box[0].start}:{box[0].stop},{box[1].start}:{box[1].stop}]"
    place = example.place
    if place:
        place = replace(place, y=place.y + box[0].start, x=place.x + box[1].start)
    image, inner = example.image[box], example.labels[box]
    cut = replace(example, name=name, image=image, labels=inner, place=place)
    return replace(rest, labels=labels.astype(np.int32)), cut


def _cut_by(instances: NDArray[np.int32], unknown: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which ids touch what is unknown; the background never counts."""
    cut = np.zeros(int(instances.max()) + 1, bool)
    if unknown.any():
        cut[np.unique(instances[binary_dilation(unknown)])] = True
        cut[0] = False
    return cut


def _place(
    image: NDArray[np.float32],
    labels: NDArray[np.int32],
    size: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """A square somewhere, flipped and turned; mirrored, without truth, where the image is smaller."""
    short = [max(0, size - extent) for extent in image.shape]
    if any(short):
        pad = [(0, extent) for extent in short]
        image = np.pad(image, pad, mode="symmetric")
        labels = np.pad(labels, pad, constant_values=UNLABELLED)
    top, left = (int(rng.integers(extent - size + 1)) for extent in image.shape)
    box = (slice(top, top + size), slice(left, left + size))
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    cut = [np.rot90(a[box], turns) for a in (image, labels)]
    return tuple(np.ascontiguousarray(a[:, ::-1] if flip else a) for a in cut)  # type: ignore[return-value]


def collate(crops: Sequence[Crop]) -> list[Crop]:
    """Leave a batch a list: objects differ in number."""
    return list(crops)
