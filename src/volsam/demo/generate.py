"""A seeded fluorescence volume of packed nuclei with exact truth.

The picture is made the way a microscope makes it: emission (chromatin texture, bright and dim
nuclei, debris) is attenuated with depth, lit unevenly, blurred by a point spread function that is
worse in z, hazed by out-of-focus light, and counted with photon and readout noise. It is meant to
be hard for a global threshold and a distance watershed and easy to read for a human.

The same seed gives the same volume on the same versions of numpy and scipy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage as ndi

from volsam.demo.nuclei import Nucleus, place
from volsam.geometry import Box
from volsam.paths import replace as replace_file

Image = NDArray[np.float32]
Labels = NDArray[np.uint32]


@dataclass(frozen=True)
class Scene:
    """What is in view and how it is imaged.

    Attributes
    ----------
    voxel_size : (float, float, float)
        µm, zyx.
    radius : (float, float)
        Range of mean nuclear radii, µm.
    packing : float
        Fraction of the volume that nuclei fill.
    clusters : int
        Number of clusters.
    brightness_spread : float
        Sigma of the log-normal brightness of nuclei.
    texture : float
        Contrast of the chromatin, 0 to 1.
    contact_dip : float
        How much darker the seam between touching nuclei is, 0 to 1.
    attenuation : float
        Log of the loss of light from the first to the last slice.
    shading : float
        Relative depth of the illumination gradient, 0 to 1.
    haze : float
        Out-of-focus light relative to the focused.
    psf : (float, float, float)
        Sigma of the point spread function, µm, zyx.
    photons : float
        Photons of a nucleus of median brightness.
    readout : float
        Sigma of the readout noise, in photons.
    debris : float
        Specks per 1000 µm³ (those that fall into nuclei vanish).
    """

    voxel_size: tuple[float, float, float] = (2.0, 0.5, 0.5)
    radius: tuple[float, float] = (6.5, 9.5)
    packing: float = 0.23
    clusters: int = 9
    brightness_spread: float = 0.55
    texture: float = 0.45
    contact_dip: float = 0.6
    attenuation: float = 0.6
    shading: float = 0.5
    haze: float = 0.3
    psf: tuple[float, float, float] = (1.1, 0.45, 0.45)
    photons: float = 140.0
    readout: float = 3.0
    debris: float = 0.03


class Demo(NamedTuple):
    """A volume, its truth and its voxel size."""

    image: NDArray[np.uint16]
    truth: Labels
    voxel_size: tuple[float, float, float]


def make_demo(
    seed: int = 0, shape: Sequence[int] = (32, 384, 384), scene: Scene | None = None
) -> Demo:
    """Make a synthetic volume of packed nuclei.

    Parameters
    ----------
    seed : int
        Same seed, same volume.
    shape : (int, int, int)
        Voxels, zyx.
    scene : Scene, optional
        What is in view; the default is the demo's.

    Returns
    -------
    Demo
        ``image`` uint16 zyx (offset 100, gain 4), ``truth`` uint32 zyx with ids from 1 in order of
        first appearance, ``voxel_size`` in µm.
    """
    scene = scene or Scene()
    z, y, x = (int(n) for n in shape)
    rng = np.random.default_rng(seed)
    voxel = np.asarray(scene.voxel_size)
    nuclei = place(rng, np.array([z, y, x]) * voxel, scene.radius, scene.packing, scene.clusters)
    truth, edge = _rasterise(nuclei, (z, y, x), voxel, scene.contact_dip)
    brightness = np.exp(rng.normal(0, scene.brightness_spread, len(nuclei) + 1)).clip(0.4, 4)
    brightness[0] = 0
    emission = brightness.astype(np.float32)[truth] * edge
    emission *= _texture(rng, truth.shape, voxel, scene.texture)
    emission += _debris(rng, truth, voxel, scene.debris)
    image = _expose(rng, emission, scene)
    return Demo(image, _in_order_of_appearance(truth), scene.voxel_size)


def synthetic_slice(seed: int, size: int = 256) -> tuple[NDArray[np.uint16], Labels]:
    """Make one slice of a random scene, as training data for a 2D network.

    Size, packing, brightness, blur and noise vary from seed to seed.

    Parameters
    ----------
    seed : int
    size : int
        Edge in pixels.

    Returns
    -------
    image : uint16 (size, size)
    truth : uint32 (size, size)
        Ids from 1; cross sections of fewer than 20 pixels are left out.
    """
    rng = np.random.default_rng([seed, 20])
    scale = rng.uniform(0.6, 1.6)  # pixels per half micrometre: diameters from 12 to 58 pixels
    blur = rng.uniform(0.6, 1.5)
    scene = replace(
        Scene(),
        voxel_size=(2.0, 0.5 / scale, 0.5 / scale),
        packing=float(rng.uniform(0.08, 0.4)),
        clusters=int(rng.integers(1, 8)),
        brightness_spread=float(rng.uniform(0.2, 0.8)),
        texture=float(rng.uniform(0.2, 0.7)),
        contact_dip=float(rng.uniform(0.2, 0.7)),
        attenuation=0.0,
        shading=float(rng.uniform(0, 0.8)),
        haze=float(rng.uniform(0, 0.6)),
        psf=(1.3 * blur, 0.45 * blur, 0.45 * blur),
        photons=float(np.exp(rng.uniform(np.log(20), np.log(400)))),
        readout=float(rng.uniform(1, 6)),
        debris=float(rng.uniform(0, 0.08)),
    )
    image, truth, _ = make_demo(seed, (9, size, size), scene)
    section = truth[4].copy()
    area = np.bincount(section.ravel())
    section[(area < 20)[section]] = 0
    return image[4], _in_order_of_appearance(section)


def write_demo(folder: Path, seed: int = 0, shape: Sequence[int] = (32, 384, 384)) -> Demo:
    """Write ``image.ome.tif`` (with physical sizes) and ``truth.tif`` into `folder`.

    A file appears under its name only when it is complete.
    """
    demo = make_demo(seed, shape)
    z, y, x = demo.voxel_size
    metadata = {"axes": "ZYX", "PhysicalSizeZ": z, "PhysicalSizeY": y, "PhysicalSizeX": x}
    metadata |= {f"PhysicalSize{axis}Unit": "µm" for axis in "ZYX"}
    for name, array in (("image.ome.tif", demo.image), ("truth.tif", demo.truth)):
        is_ome = name.endswith(".ome.tif")
        write = partial(
            tifffile.imwrite,
            data=array,
            ome=is_ome,
            metadata=metadata if is_ome else {"axes": "ZYX"},
            compression="zlib",
        )
        replace_file(folder / name, write)
    return demo


def _rasterise(
    nuclei: Sequence[Nucleus],
    shape: tuple[int, int, int],
    voxel: NDArray[np.float64],
    contact_dip: float,
) -> tuple[Labels, Image]:
    """Owner of each voxel (1-based, 0 = none) and the brightness profile towards its surface."""
    truth = np.zeros(shape, np.uint32)
    nearest = np.full(shape, np.inf, np.float32)
    second = np.full(shape, np.inf, np.float32)
    radius = np.array([1.0, *(n.radius for n in nuclei)], np.float32)
    for number, nucleus in enumerate(nuclei, 1):
        low = np.floor((nucleus.centre - nucleus.reach) / voxel).astype(int)
        high = np.ceil((nucleus.centre + nucleus.reach) / voxel).astype(int) + 1
        box = Box(tuple(low.tolist()), tuple(high.tolist())).intersect(Box.of(shape))
        points = np.moveaxis(np.mgrid[box.slices], 0, -1)
        f = nucleus.implicit((points + 0.5) * voxel).astype(np.float32)
        best, other, owner = nearest[box.slices], second[box.slices], truth[box.slices]
        np.minimum(other, np.maximum(best, f), out=other)
        closer = f < best
        owner[closer & (f < 1)] = number
        np.minimum(best, f, out=best)
    _keep_main_part(truth)
    profile = np.zeros(shape, np.float32)
    inside = truth > 0
    near, next_, scale = nearest[inside], second[inside], radius[truth[inside]]
    depth, seam = (1 - near) * scale, (next_ - near) * scale  # about µm from surface and contact
    dip = contact_dip * np.exp(-((seam / 0.9) ** 2))
    profile[inside] = np.clip(0.5 + depth / 0.8, 0, 1) * (1 - dip)
    return truth, profile


def _keep_main_part(truth: Labels) -> None:
    """Drop, in place, pieces that a contact face cut off, and nuclei of a few voxels."""
    for number, box in enumerate(ndi.find_objects(truth.astype(np.int32)), 1):
        if box is None:
            continue
        view = truth[box]
        parts, n = ndi.label(view == number)
        sizes = np.bincount(parts.ravel(), minlength=2)[1:]
        main = int(sizes.argmax()) + 1
        if n > 1:
            view[(parts > 0) & (parts != main)] = 0
        if sizes[main - 1] < 150:
            view[parts == main] = 0


def _texture(
    rng: np.random.Generator, shape: Sequence[int], voxel: NDArray[np.float64], contrast: float
) -> Image:
    """Chromatin: multiplicative smooth noise at two scales, and dark nucleoli."""
    total = np.ones(shape, np.float32)
    for scale, weight in ((0.7, 0.5), (1.8, 0.5)):
        noise = _smooth_noise(rng, shape, scale / voxel)
        total += contrast * weight * noise
    nucleoli = _smooth_noise(rng, shape, 1.3 / voxel)
    total *= 1 - 0.9 * contrast * np.clip(nucleoli - 1.6, 0, 1)
    return np.clip(total, 0.15, None)


def _smooth_noise(
    rng: np.random.Generator, shape: Sequence[int], sigma: NDArray[np.float64]
) -> Image:
    noise = ndi.gaussian_filter(rng.standard_normal(shape, np.float32), sigma, mode="wrap")
    return np.asarray(noise / noise.std(), np.float32)


def _debris(
    rng: np.random.Generator, truth: Labels, voxel: NDArray[np.float64], density: float
) -> Image:
    """Small bright specks between the nuclei, which belong to no object."""
    specks = np.zeros(truth.shape, np.float32)
    count = rng.poisson(density * truth.size * float(np.prod(voxel)) / 1000)
    where = tuple(rng.integers(0, n, count) for n in truth.shape)
    np.add.at(specks, where, rng.lognormal(0, 0.5, count).astype(np.float32))
    sigma = np.array([1.0, 0.7, 0.7]) / voxel
    specks = ndi.gaussian_filter(specks, sigma) * float((2 * np.pi) ** 1.5 * np.prod(sigma))
    return np.asarray(np.where(truth == 0, specks, 0), np.float32)


def _expose(rng: np.random.Generator, emission: Image, scene: Scene) -> NDArray[np.uint16]:
    voxel = np.asarray(scene.voxel_size)
    shape = emission.shape
    depth = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None, None]
    yy, xx = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[1:]), indexing="ij")
    angle = rng.uniform(0, 2 * np.pi)
    ramp = 0.5 + 0.5 * (np.cos(angle) * yy + np.sin(angle) * xx) / np.sqrt(2)
    light = (1 - scene.shading * ramp).astype(np.float32)
    lit = emission * np.exp(-scene.attenuation * depth) * light
    sharp = ndi.gaussian_filter(lit, np.asarray(scene.psf) / voxel, mode="nearest")
    haze = ndi.gaussian_filter(lit, np.array([8.0, 7.0, 7.0]) / voxel, mode="nearest")
    background = 0.04 * light * (1 + 0.5 * np.exp(-scene.attenuation * depth))
    expected = scene.photons * (sharp + scene.haze * haze + background)
    counted = rng.poisson(expected) + rng.normal(0, scene.readout, shape)
    return np.clip(np.round(100 + 4 * counted), 0, 65535).astype(np.uint16)


def _in_order_of_appearance(labels: Labels) -> Labels:
    """Renumber from 1 in raster order."""
    ids, first = np.unique(labels, return_index=True)
    ids = ids[np.argsort(first)]
    table = np.zeros(int(labels.max()) + 1, np.uint32)
    ids = ids[ids != 0]
    table[ids] = np.arange(1, ids.size + 1)
    return table[labels]
