"""Weights that are a function of names and shapes, the same here and where a fixture was recorded."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor, nn


def seeded_state(module: nn.Module) -> dict[str, Tensor]:
    """State for `module` in which every entry is random and matters."""
    state = {}
    for key, value in module.state_dict().items():
        rng = np.random.default_rng(zlib.crc32(key.encode()))
        if not value.is_floating_point():
            state[key] = value.clone()
            continue
        values = rng.standard_normal(tuple(value.shape))
        if key.endswith("running_var"):
            values = 0.5 + values**2
        elif value.ndim == 1:
            values = 0.1 * values + (1.0 if key.endswith("weight") else 0.0)
        elif "rel_pos" not in key and "attention_biases" not in key:
            values /= np.sqrt(np.prod(value.shape[1:]))
        state[key] = torch.from_numpy(values.astype(np.float32))
    return state
