"""Linear layers that use the fast matrix product of the machine.

torch gives float32 products on a CPU to MKL, which takes half the speed on processors that are not
Intel's; oneDNN, which torch carries for convolutions, does not. Results differ in the last bits.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

M = TypeVar("M", bound=nn.Module)


def _has_onednn() -> bool:
    try:
        return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._linear_pointwise)
    except (AttributeError, RuntimeError):
        return False


def has_bf16() -> bool:
    """Whether this CPU can compute in bf16, as far as oneDNN is asked for it."""
    return not _ONEDNN or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


# The operator is the one torch.compile emits; where a build lacks it, the public one serves.
_ONEDNN = _has_onednn()


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` without gradient, (..., k) and (n, k) to (..., n)."""
    if _ONEDNN and x.device.type == "cpu" and torch.backends.mkldnn.enabled:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return result
    return F.linear(x, weight, bias)


def sharing(kind: type[M], module: nn.Module) -> M:
    """A module of another class with the parameters and settings of `module`, not a copy of them."""
    other = kind.__new__(kind)
    other.__dict__ = module.__dict__
    return other


class FastLinear(nn.Linear):
    """A linear layer for inference that computes and answers in the type of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        return product(x.to(self.weight.dtype), self.weight, self.bias)


def replace_linears(module: nn.Module) -> None:
    """Turn every plain linear layer below `module` into a `FastLinear`."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear:
                setattr(parent, name, sharing(FastLinear, child))
