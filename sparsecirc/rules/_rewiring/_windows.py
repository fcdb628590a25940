"""Which activity of two units counts as together: the same step, or traces of spikes within a window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecirc.errors import UsageError

Window = Callable[[Tensor, Tensor], "tuple[Tensor, Tensor]"]
"""Presynaptic activity (T, B, in), postsynaptic (T, B, out) -> (left (M, out), right (M, in)).

The score of a connection (o, i) is the sum over m of left[m, o] right[m, i], over the norms of both columns.
"""


def same_step(pre: Tensor, post: Tensor) -> tuple[Tensor, Tensor]:
    """Activity of the same step counts, each step and sample alike: the correlation of G2GNet, over batch x time."""
    return post.flatten(0, 1), pre.flatten(0, 1)


def trace(spikes: Tensor, decay: float) -> Tensor:
    """x_t = decay x_{t-1} + s_t, along the first axis."""
    out = torch.empty_like(spikes)
    state = torch.zeros_like(spikes[0]) if len(spikes) else None
    for t, step in enumerate(spikes):
        assert state is not None
        state = decay * state + step
        out[t] = state
    return out


@dataclass(frozen=True)
class Traces:
    """Low-passed activity of both sides, x_t = decay x_{t-1} + s_t; tells which units are active around the same time.

    Attributes:
        decay: exp(-dt / tau), in [0, 1).

    Raises:
        UsageError: the decay is outside.
    """

    decay: float = 0.8

    def __post_init__(self) -> None:
        _check(self.decay)

    def __call__(self, pre: Tensor, post: Tensor) -> tuple[Tensor, Tensor]:
        """The traces of all steps and samples."""
        return trace(post, self.decay).flatten(0, 1), trace(pre, self.decay).flatten(0, 1)


@dataclass(frozen=True)
class Stdp:
    """Pre before post counts for a connection, post before pre against it (spike-timing-dependent plasticity).

    Summed over steps and samples, with traces x of the presynaptic and y of the postsynaptic spikes s:

        potentiation * s_post[t] x_pre[t]  -  depression * y_post[t - 1] s_pre[t]

    (pair-based rule with all spikes, Song, Miller & Abbott 2000; Morrison, Diesmann & Gerstner 2008). A presynaptic
    spike of the same step came first: it has arrived when the membrane is compared with its threshold.

    Attributes:
        decay_pre: of x, exp(-dt / tau_plus), in [0, 1).
        decay_post: of y, exp(-dt / tau_minus), in [0, 1).
        potentiation: weight of pre before post.
        depression: weight of post before pre; 0 for potentiation alone.

    Raises:
        UsageError: a decay is outside, or a weight negative.
    """

    decay_pre: float = 0.8
    decay_post: float = 0.8
    potentiation: float = 1.0
    depression: float = 0.5

    def __post_init__(self) -> None:
        _check(self.decay_pre)
        _check(self.decay_post)
        if self.potentiation < 0 or self.depression < 0:
            raise UsageError(
                f"potentiation {self.potentiation} and depression {self.depression}: expected weights of 0 or more"
            )

    def __call__(self, pre: Tensor, post: Tensor) -> tuple[Tensor, Tensor]:
        """Both terms below each other, so that their sum is one product."""
        before = torch.roll(trace(post, self.decay_post), 1, 0)
        before[:1] = 0
        left = torch.cat([self.potentiation**0.5 * post, -(self.depression**0.5) * before])
        right = torch.cat([self.potentiation**0.5 * trace(pre, self.decay_pre), self.depression**0.5 * pre])
        return left.flatten(0, 1), right.flatten(0, 1)


def _check(decay: float) -> None:
    if not 0 <= decay < 1:
        raise UsageError(f"decay of a trace is {decay}: expected a number in [0, 1), exp(-dt / tau)")
