"""What the tests of bad input share: the image that they spoil, and the kinds of their helpers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from conftest import Bench

Spoil = Callable[["Bench"], object]
Refusal = Callable[..., str]
Write = Callable[..., Path]
SHAPE = (4, 40, 44)
IMAGE = np.random.default_rng(0).integers(1, 60000, SHAPE, np.uint16)
