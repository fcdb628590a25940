"""Rules of papers: SET, RigL and the dynamic sparse training of G2GNet, as settings of `Rewire`."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from sparsecirc.errors import UsageError
from sparsecirc.masks import Masks
from sparsecirc.rules import drop as drops
from sparsecirc.rules import grow as grows
from sparsecirc.rules._rewiring._edges import Drop, Grow
from sparsecirc.rules._rewiring._rule import Fraction, Rewire, cosine


class SET(Rewire):
    """Sparse evolutionary training: the smallest |w| leave, random ones grow, once per epoch (Mocanu et al. 2018).

    Args:
        target: as `Rewire`.
        optimizer: as `Rewire`.
        every: optimizer steps of an epoch.
        fraction: zeta.
        more: as `Rewire`.
    """

    def __init__(
        self,
        target: nn.Module | Masks,
        optimizer: Optimizer,
        *,
        every: int,
        fraction: float | Fraction = 0.3,
        **more: Any,
    ) -> None:
        super().__init__(
            target, optimizer, drop=drops.magnitude, grow=grows.random, every=every, fraction=fraction, **more
        )


class RigL(Rewire):
    """The smallest |w| leave, those with the largest |dL/dw| grow, ever fewer of them (Evci et al. 2020).

    The share is alpha / 2 (1 + cos(pi t / T)) until T, 0.75 of all steps, and none later. Gradients of dead connections
    are those of the batch of the step itself: of a dense layer what torch has in ``weight.grad`` (call `step` before
    ``zero_grad``), of a sparse one products of activity and output gradients, 2^18 of them at a time; N x N products of
    ``samples x steps`` terms in all, and for recurrent layers one more forward and backward, in steps that rewire.

    Args:
        target: as `Rewire`.
        optimizer: as `Rewire`.
        steps: optimizer steps of the whole training.
        every: delta t.
        alpha: share at the start.
        stop: T over all steps.
        more: as `Rewire`.
    """

    def __init__(
        self,
        target: nn.Module | Masks,
        optimizer: Optimizer,
        *,
        steps: int,
        every: int = 100,
        alpha: float = 0.3,
        stop: float = 0.75,
        **more: Any,
    ) -> None:
        if steps < 1 or not 0 < stop <= 1:
            raise UsageError(f"RigL over {steps} steps until {stop} of them: expected 1 or more, and a share in (0, 1]")
        end = max(1, round(stop * steps))
        super().__init__(
            target, optimizer, drop=drops.magnitude, grow=grows.gradient, every=every, end=end,
            fraction=cosine(alpha, end), **more,
        )  # fmt: skip


class G2G(Rewire):
    """Hebbian rewiring of G2GNet (Konstantaropoulos, Smirnakis & Papadopouli 2025, arXiv:2508.14140).

    Every 1000 steps 2.5 % of the connections leave, a third each of the smallest |w|, of any, and of the least
    correlated; the most correlated of the dead ones grow.

    Args:
        target: as `Rewire`.
        optimizer: as `Rewire`.
        every: steps between.
        fraction: share that is exchanged.
        drop: as `Rewire`.
        grow: as `Rewire`.
        more: as `Rewire`, ``modules`` and ``signals`` among them.
    """

    def __init__(
        self,
        target: nn.Module | Masks,
        optimizer: Optimizer,
        *,
        every: int = 1000,
        fraction: float | Fraction = 0.025,
        drop: Drop = drops.three,
        grow: Grow = grows.correlation,
        **more: Any,
    ) -> None:
        super().__init__(target, optimizer, drop=drop, grow=grow, every=every, fraction=fraction, **more)
