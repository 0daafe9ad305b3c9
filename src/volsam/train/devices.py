"""One process or several, one per GPU of a node, which train together."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def own_device() -> torch.device:
    """This process's device."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    index = dist.get_rank() % torch.cuda.device_count() if dist.is_initialized() else 0
    return torch.device("cuda", index)


def ranks() -> tuple[int, int]:
    """Number of this process, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def agreed(value: float, device: torch.device) -> float:
    """The first process's value, on which decisions of all rest."""
    if ranks()[1] == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64, device=device)
    dist.broadcast(shared, 0)
    return float(shared)


def worst(value: float, device: torch.device) -> float:
    """The mean of all processes' values, which is no number if one is none."""
    count = ranks()[1]
    if count == 1:
        return value
    shared = torch.tensor([value / count], dtype=torch.float64, device=device)
    dist.all_reduce(shared)
    return float(shared)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Give all processes the mean of their gradients."""
    count = ranks()[1]
    if count == 1:
        return
    parameters = list(parameters)
    there = torch.tensor([float(p.grad is not None) for p in parameters])
    there = there.to(parameters[0].device)
    dist.all_reduce(there)
    for parameter, number in zip(parameters, there.tolist(), strict=True):
        if not number:  # no process's: the optimiser must leave it alone
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad /= count
