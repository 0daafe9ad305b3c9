"""Random weights that do not change from run to run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture
def seeded() -> Callable[[nn.Module], nn.Module]:
    """Give a module weights of a fixed seed, and set it up for inference."""

    def fill(module: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in module.parameters():
                fan = max(1, parameter[0].numel()) if parameter.ndim > 1 else 16
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan**0.5)
        return module.eval()

    return fill
