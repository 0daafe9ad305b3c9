"""Which channel of an image is read, or which mix of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from volsam.errors import VolsamError
from volsam.volume.info import VolumeInfo

Channel = int | str | Mapping[Any, float] | None


def channel_weights(info: VolumeInfo, channel: Channel) -> np.ndarray:
    """Weights by which the channels of an image are summed up to what is read.

    Parameters
    ----------
    info : VolumeInfo
    channel : int, str, mapping or None
        Number, name, or weights by number or name; None is the only channel.

    Returns
    -------
    ndarray, (channels,) float64

    Raises
    ------
    VolsamError
        If there is no such channel, several and none is chosen, or a weight is no number.
    """
    weights = np.zeros(info.channels)
    if channel is None:
        if info.channels > 1:
            raise VolsamError(
                f"{info.path} has {info.channels} channels{_listed(info)}; choose one with "
                f"channel, or a mix as {{name: weight}}."
            )
        channel = 0
    mix = channel if isinstance(channel, Mapping) else {channel: 1.0}
    for which, weight in mix.items():
        if not math.isfinite(weight):
            raise VolsamError(
                f"The weight of channel {which!r} of {info.path} is no finite number."
            )
        weights[_channel_number(info, which)] += weight
    if not weights.any():
        raise VolsamError(
            f"All channel weights of {info.path} are 0; give at least one channel one."
        )
    return weights


def _channel_number(info: VolumeInfo, which: int | str) -> int:
    if isinstance(which, str) and which in info.channel_names:
        return info.channel_names.index(which)
    if isinstance(which, int) or which.isdecimal():
        if 0 <= int(which) < info.channels:
            return int(which)
        raise VolsamError(
            f"Channel {which} of {info.path} does not exist; it has {info.channels}"
            f"{_listed(info)}, counted from 0."
        )
    raise VolsamError(
        f"{info.path} has no channel named {which!r}{_listed(info)}; choose one of its "
        f"{info.channels} by name or number."
    )


def _listed(info: VolumeInfo) -> str:
    return f" ({', '.join(info.channel_names)})" if info.channel_names else ""
