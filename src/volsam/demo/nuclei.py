"""Where synthetic nuclei lie and what shape they have, in micrometres.

Centres are drawn in clusters and pushed apart like soft balls until they touch but hardly overlap.
A nucleus is the set f < 1 of an implicit function: the norm of a bent, rotated ellipsoid whose
radius is modulated by a few smooth waves over directions. Where two would overlap, the voxel goes
to the smaller f, which gives the flat contact faces of a packed tissue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Floats = NDArray[np.float64]
_WAVES = 6
_CLOSENESS = np.array([0.8, 1.0, 1.0])  # contacts are tight within the plane, looser along z
_BOUND = 1.9  # no nucleus reaches further from its centre than this many mean radii


@dataclass(frozen=True)
class Nucleus:
    """One nucleus; lengths in µm, vectors zyx.

    Attributes
    ----------
    centre : float (3,)
    axes : float (3, 3)
        Rows are unit axes, the longest first.
    radii : float (3,)
        Half lengths along them.
    bend : float
        Sideways shift at the tip of the long axis, in mean radii.
    waves : float (6, 3)
        Wave vectors of the surface modulation.
    phases, heights : float (6,)
    """

    centre: Floats
    axes: Floats
    radii: Floats
    bend: float
    waves: Floats
    phases: Floats
    heights: Floats

    @property
    def radius(self) -> float:
        """Radius of the ball of the same volume, µm."""
        return float(np.prod(self.radii) ** (1 / 3))

    @property
    def reach(self) -> float:
        """No part of the nucleus lies further from the centre, µm."""
        return _BOUND * self.radius

    def implicit(self, points: Floats) -> Floats:
        """f at points (..., 3) in µm: below 1 inside, 1 on the surface, growing outwards."""
        local = (points - self.centre) @ self.axes.T
        along = local[..., 0] / self.radii[0]
        local[..., 1] -= self.bend * self.radius * (along**2 - 0.3)
        scaled = local / self.radii
        norm = np.sqrt(np.einsum("...i,...i->...", scaled, scaled))
        direction = scaled / np.maximum(norm, 1e-6)[..., None]
        surface = 1 + np.sin(direction @ self.waves.T + self.phases) @ self.heights
        return np.asarray(norm / surface)


def place(
    rng: np.random.Generator,
    extent: Floats,
    radius_range: tuple[float, float],
    packing: float,
    clusters: int,
) -> list[Nucleus]:
    """Draw nuclei for a box.

    Parameters
    ----------
    rng : numpy Generator
    extent : float (3,)
        Edges of the box in µm, zyx.
    radius_range : (float, float)
        Mean radii in µm, drawn uniformly.
    packing : float
        Fraction of the box that nuclei fill, before overlaps are resolved.
    clusters : int
        Number of clusters they are drawn around.

    Returns
    -------
    list of Nucleus
    """
    radii = _radii(rng, radius_range, packing * float(np.prod(extent)))
    home = rng.uniform(0.1, 0.9, (clusters, 3))[rng.integers(0, clusters, radii.size)] * extent
    spread = np.array([0.22, 0.11, 0.11]) * extent
    centres = _relax(home + rng.normal(size=home.shape) * spread, home, radii, extent)
    return [_shape(rng, c, r) for c, r in zip(centres, radii, strict=True)]


def _radii(rng: np.random.Generator, radius_range: tuple[float, float], volume: float) -> Floats:
    low, high = radius_range
    mean_volume = 4 / 3 * np.pi * ((low + high) / 2) ** 3
    draw = rng.uniform(low, high, max(4, int(3 * volume / mean_volume)))
    filled = np.cumsum(4 / 3 * np.pi * draw**3)
    return np.asarray(draw[: max(2, int(np.searchsorted(filled, volume)))])


def _relax(centres: Floats, home: Floats, radii: Floats, extent: Floats) -> Floats:
    """Push overlapping balls apart, pull each gently to its cluster, keep all in the box."""
    contact = 0.94 * (radii[:, None] + radii[None])
    np.fill_diagonal(contact, 0)
    wall = np.minimum(0.6 * radii[:, None], 0.45 * extent)
    for step in range(120):
        offset = centres[:, None] - centres[None]
        gap = np.sqrt(((offset * _CLOSENESS) ** 2).sum(-1)) + 1e-9
        push = np.clip(contact - gap, 0, None) / gap * 0.4
        pull = 0.02 if step < 80 else 0.0
        centres = centres + (offset * push[..., None]).sum(1) + pull * (home - centres)
        centres = np.clip(centres, wall, extent - wall)
    return centres


def _shape(rng: np.random.Generator, centre: Floats, radius: float) -> Nucleus:
    stretch = np.exp(rng.normal([0.30, 0.0, -0.02], [0.18, 0.06, 0.06]))
    stretch /= np.prod(stretch) ** (1 / 3)
    # Nuclei in a sheet lie rather flat: the long axis is tilted out of the plane only a little.
    tilt = Rotation.from_rotvec(rng.normal(0, [0.0, 0.35, 0.35]))
    turn = Rotation.from_rotvec([rng.uniform(0, 2 * np.pi), 0.0, 0.0])
    in_plane = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    return Nucleus(
        centre=centre,
        axes=(turn * tilt).apply(in_plane),
        radii=radius * np.clip(stretch, 0.7, 1.6),
        bend=float(rng.normal(0, 0.3)),
        waves=rng.normal(0, 1.6, (_WAVES, 3)),
        phases=rng.uniform(0, 2 * np.pi, _WAVES),
        heights=rng.normal(0, 0.045, _WAVES),
    )
