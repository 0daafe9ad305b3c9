"""The images of the embedded model, and random crops of them as training examples.

Only data with a permissive licence is named here. The one fluorescence image above 1000 x 1000 px
is left out: it is an example in the documentation.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from volsam.annotate.store import PERCENTILES
from volsam.errors import VolsamError
from volsam.train.augment import adjust, degrade, random_crop
from volsam.train.recipe import DataRecipe
from volsam.train.synthetic import nuclei_slices
from volsam.train.targets import distance_targets

LARGE_EXAMPLE = 1000


@dataclass(frozen=True)
class Place:
    """The upper left pixel (z, y, x) of an image in a volume, of which `source` tells it apart."""

    source: str
    z: int
    y: int
    x: int


@dataclass(frozen=True)
class Example:
    """An image with its instances.

    Attributes
    ----------
    name : str
        Identifier.
    image : (h, w) float32 array
        Signal, 0 and 1 at the percentiles of `normalise`, not clipped.
    labels : (h, w) int32 array
        Instances, 0 is background, -1 unknown.
    synthetic : bool
        Whether the image is free of noise because it was drawn.
    extremes : (float, float) or None
        Least and greatest value of the volume that the image was cut from, where known.
    place : Place or None
        Where the image lies in a volume that others may be cut from as well.
    """

    name: str
    image: NDArray[np.float32]
    labels: NDArray[np.int32]
    synthetic: bool = False
    extremes: tuple[float, float] | None = None
    place: Place | None = None

    @property
    def diameter(self) -> float:
        """Median diameter of the objects as discs of equal area, in pixels; 16 without objects."""
        areas = np.bincount(np.maximum(self.labels, 0).ravel())[1:]
        areas = areas[areas > 0]
        return 2 * float(np.sqrt(np.median(areas) / np.pi)) if areas.size else 16.0


def normalise(
    image: NDArray[np.generic], limits: tuple[float, float] | None = None
) -> NDArray[np.float32]:
    """Scale an image so that its limits become 0 and 1, as prediction does.

    Without `limits` they are its 1st and 99.8th percentiles.
    """
    values = image.astype(np.float32)
    low, high = limits or np.percentile(values, PERCENTILES)
    scaled: NDArray[np.float32] = ((values - low) / max(high - low, 1e-6)).astype(np.float32)
    return scaled


def load_dsb2018(root: Path, split: str, large: bool = False) -> list[Example]:
    """Load the fluorescence images of a split ("train" or "val") of DSB2018, or the large one only."""
    folder = root / "dsb2018"
    table = folder / "dsb2018.csv"
    if not table.is_file():
        raise VolsamError(f"No DSB2018 data at {folder}; set data_root to the folder that has it.")
    with table.open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    examples = []
    for row in rows:
        path = folder / "images" / f"{row['id']}.tif"
        is_large = min(int(row["height"]), int(row["width"])) > LARGE_EXAMPLE
        if not row["modality"].startswith("fluorescence") or is_large != large:
            continue
        if not path.is_file():
            continue
        image = tifffile.imread(path)
        image = image if image.ndim == 2 else image[..., :3].mean(axis=-1)
        labels = tifffile.imread(folder / "labels" / path.name).astype(np.int32)
        examples.append(Example(row["id"], normalise(image), labels))
    return examples


def load_stardist(root: Path) -> list[Example]:
    """Load StarDist's annotated 2D fluorescence samples."""
    folders = [root / "stardist_samples" / name for name in ("nuclei2d", "nuclei2d_dsb")]
    return [
        Example(
            folder.name,
            normalise(tifffile.imread(folder / "image.tif")),
            tifffile.imread(folder / "label.tif").astype(np.int32),
        )
        for folder in folders
    ]


def hold_out(examples: Sequence[Example], count: int) -> tuple[list[Example], list[Example]]:
    """Split off `count` examples by a hash of their names; return (kept, held out)."""
    ordered = sorted(examples, key=lambda example: zlib.crc32(example.name.encode()))
    return ordered[count:], ordered[:count]


class CropDataset(Dataset[tuple[Tensor, Tensor]]):
    """Endless augmented crops; crop number i depends on the seed and i only.

    Parameters
    ----------
    groups : sequence of (share, examples)
        Share of crops from each group of examples, equally likely within the group.
    recipe : DataRecipe
        Sizes.
    length : int
        Number of crops.
    seed : int
        Source of all randomness.
    """

    def __init__(
        self,
        groups: Sequence[tuple[float, Sequence[Example]]],
        recipe: DataRecipe,
        length: int,
        seed: int,
    ) -> None:
        shares = np.array([share for share, _ in groups])
        self.shares = shares / shares.sum()
        self.groups = [
            [(example, example.diameter) for example in examples] for _, examples in groups
        ]
        self.recipe = recipe
        self.length = length
        self.seed = seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return an image (3, s, s) in 0..255 and its targets (3, s, s)."""
        rng = np.random.default_rng((self.seed, index))
        group = self.groups[rng.choice(len(self.groups), p=self.shares)]
        example, diameter = group[rng.integers(len(group))]
        size, margin = self.recipe.crop, self.recipe.margin
        image, labels = random_crop(example.image, example.labels, size + 2 * margin, diameter, rng)
        gentle = rng.random() < self.recipe.gentle and not example.synthetic
        image = adjust(image, rng) if gentle else degrade(image, labels, rng)
        targets = distance_targets(labels, self.recipe.min_size)
        inner = (..., slice(margin, margin + size), slice(margin, margin + size))
        pixels = torch.from_numpy(np.ascontiguousarray(image[inner]) * 255)
        return pixels.expand(3, -1, -1), torch.from_numpy(np.ascontiguousarray(targets[inner]))


def training_groups(
    root: Path, recipe: DataRecipe, seed: int
) -> tuple[list[tuple[float, list[Example]]], list[Example]]:
    """Load everything to train on, and the examples held out for tuning."""
    kept, tuning = hold_out(load_dsb2018(root, "train"), recipe.tuning_images)
    groups = [(recipe.dsb2018, kept)]
    if recipe.stardist:
        groups.append((recipe.stardist, load_stardist(root)))
    if recipe.synthetic:
        slices = nuclei_slices(seed, recipe.synthetic_volumes)
        synthetic = [Example(f"synthetic-{n}", *pair, True) for n, pair in enumerate(slices)]
        groups.append((recipe.synthetic, synthetic))
    return groups, tuning
