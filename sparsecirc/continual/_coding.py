"""Codings: from a batch of samples to T steps of input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecirc.errors import UsageError

Coding = Callable[[Tensor, int, torch.Generator], Tensor]
"""``coding(x, steps, generator)``: samples (B, ...) to input (T, B, ...); (1, B, ...) where every step is the same."""


def direct(x: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """The sample itself as a current in every step, returned once, (1, B, ...)."""
    return x.unsqueeze(0)


def sequence(x: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Samples that are sequences already: (B, T, ...) to (T, B, ...); spikes of events, or values of a series."""
    if x.ndim < 3 or x.shape[1] != steps:
        raise UsageError(
            f"samples have shape {tuple(x.shape[1:])}: expected ({steps}, ...), a sequence of {steps} steps"
        )
    return x.transpose(0, 1)


@dataclass(frozen=True)
class RateCoding:
    """Each feature spikes in each step with its own probability, ``clip((x - low) / (high - low), 0, 1)``."""

    low: float = 0.0
    high: float = 1.0

    def __call__(self, x: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        """(B, ...) to spikes (T, B, ...)."""
        chance = ((x - self.low) / (self.high - self.low)).clamp(0, 1)
        drawn = torch.rand((steps, *x.shape), generator=generator, dtype=x.dtype)
        return (drawn < chance).to(x.dtype)


@dataclass(frozen=True)
class LatencyCoding:
    """Each feature spikes once, the earlier the larger it is: at step ``round((T - 1) (1 - p))``, p as in `RateCoding`.

    Features with p = 0 never spike.
    """

    low: float = 0.0
    high: float = 1.0

    def __call__(self, x: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        """(B, ...) to spikes (T, B, ...)."""
        share = ((x - self.low) / (self.high - self.low)).clamp(0, 1)
        when = torch.round((steps - 1) * (1 - share)).long()
        spikes = torch.zeros((steps, *x.shape), dtype=x.dtype)
        return spikes.scatter_(0, when.unsqueeze(0), (share > 0).to(x.dtype).unsqueeze(0))
