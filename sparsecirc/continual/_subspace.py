"""`Subspace`: directions of a layer's input, learned online by Oja's rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsecirc.errors import UsageError

POWER_MEMORY = 0.99
"""Decay per mini-batch of the running means: of |x|^2, and of the products of the lateral responses."""
Lateral = Callable[[Tensor], Tensor]
"""What the lateral neurons make of their input; elementwise."""


@dataclass(frozen=True)
class Oja:
    """How a subspace is learned.

    Attributes:
        rate: eta.
        iterations: updates per mini-batch.
        momentum: of the update.
        clip: bound of each entry of the update.
        normalised: divide the update by the running mean of |x|^2, so that one rate and one bound fit every layer.
        orthonormal: start new rows in the complement of the old ones, and make them orthonormal when they are merged.
        first_rate: rate of the first layer, where it differs.
    """

    rate: float = 3.0
    iterations: int = 1
    momentum: float = 0.9
    clip: float = 10.0
    normalised: bool = True
    orthonormal: bool = True
    first_rate: float | None = None


ORTHONORMAL = Oja()
"""Our rule. One update per mini-batch at three times the rate learns what five do, at a fifth of their cost."""
PUBLISHED = Oja(rate=0.01, iterations=5, normalised=False, orthonormal=False, first_rate=0.001)
"""The rule and rates of the authors (Xiao et al., ICLR 2024): rows drift from orthonormality for good."""


def linear_lateral(y: Tensor) -> Tensor:
    """Linear lateral neurons."""
    return y


@dataclass(frozen=True)
class SpikingLateral:
    """Lateral neurons that answer with ``levels`` spikes at most: round(clip(y, -s, s) / s levels) / levels s."""

    levels: int = 1000
    scale: float = 20.0

    def __call__(self, y: Tensor) -> Tensor:
        """Any shape."""
        s = self.scale
        return (y.clamp(-s, s) / s * self.levels).round() / self.levels * s


class Subspace:
    """Rows Q (m, n): the first ``frozen`` are of earlier tasks, the others are learned from rows X (R, n)::

        Y = X Q^T,   D = Y^T (X - Y Q) / R, clipped,   D[:frozen] = 0
        M <- momentum M + (1 - momentum) D,   Q <- Q + eta M        (``iterations`` times, Y computed anew)

    Frozen rows do not move while X is seen, so their part ``X - Y_old Q_old`` is computed once per mini-batch; the
    equations are the same. Source: Xiao et al., ICLR 2024.

    Args:
        width: n.
        rule: of learning.
        lateral: what the lateral neurons make of Y.
        rate: in the place of the rule's.
        generator: of new rows.
        dtype: number type.
    """

    def __init__(
        self,
        width: int,
        rule: Oja = ORTHONORMAL,
        *,
        lateral: Lateral = linear_lateral,
        rate: float | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.width, self.rule, self.lateral = width, rule, lateral
        self.rate = rule.rate if rate is None else rate
        self._generator = generator
        self.q = torch.zeros(0, width, dtype=dtype)
        self.frozen = 0
        self.variance = torch.zeros(0, dtype=dtype)
        """Mean square response of each frozen row when it was merged."""
        self._momentum = self.q.clone()
        self._products = torch.zeros(0, 0, dtype=dtype)
        self._power: float | None = None
        self._complement: Tensor | None = None

    @property
    def rank(self) -> int:
        """Rows in all."""
        return len(self.q)

    @property
    def old(self) -> Tensor:
        """Frozen rows (k, n)."""
        return self.q[: self.frozen]

    def grow(self, count: int) -> int:
        """Add up to ``count`` rows, no more than the width leaves room for; how many were added."""
        count = min(count, self.width - self.rank)
        if count <= 0:
            return 0
        new = torch.empty(count, self.width, dtype=self.q.dtype)
        nn.init.orthogonal_(new, generator=self._generator)
        if self.rule.orthonormal:
            new = self._orthonormal(new)
        self.q = torch.cat([self.q, new])
        self._momentum = torch.zeros_like(self.q[self.frozen :])
        self._products = torch.zeros(self.rank - self.frozen, self.rank - self.frozen, dtype=self.q.dtype)
        return count

    @torch.no_grad()
    def learn(self, x: Tensor, outside: Tensor | None = None) -> None:
        """One mini-batch of rows X (R, n); ``outside`` is ``X - Y_old Q_old`` where it is known already."""
        new = self.q[self.frozen :]
        if not len(new) or not len(x):
            return
        outside = self.outside(x) if outside is None else outside
        rule, scale = self.rule, 1.0 / len(x)
        if rule.normalised:
            power = float(x.square().sum()) / len(x)
            kept = self._power
            self._power = power if kept is None else POWER_MEMORY * kept + (1 - POWER_MEMORY) * power
            scale /= max(self._power, 1e-12)
        y = self.lateral(x @ new.T)
        self._products.mul_(POWER_MEMORY).addmm_(y.T, y, alpha=(1 - POWER_MEMORY) / len(x))
        for k in range(rule.iterations):
            y = y if k == 0 else self.lateral(x @ new.T)
            update = (y.T @ torch.addmm(outside, y, new, alpha=-1)).mul_(scale).clamp_(-rule.clip, rule.clip)
            self._momentum.lerp_(update, 1 - rule.momentum)
            new.add_(self._momentum, alpha=self.rate)

    @torch.no_grad()
    def merge(self, energy: float | None = None) -> int:
        """Freeze the new rows; how many stay.

        With the orthonormal rule they are projected off the old rows twice, made orthonormal, turned to the principal
        directions of their responses, and with ``energy`` cut to the fewest that hold this share of their variance.
        The published rule freezes them as they are.
        """
        new = self.q[self.frozen :]
        if not len(new):
            return 0
        if not self.rule.orthonormal:
            self.variance = torch.cat([self.variance, self._products.diagonal()])
            self.frozen = self.rank
            return len(new)
        made = self._orthonormal(new)
        turn = made @ new.T
        strength, axes = torch.linalg.eigh(turn @ self._products @ turn.T)
        strength, axes = strength.flip(0).clamp_min(0), axes.flip(1)
        keep = len(made)
        if energy is not None:
            share = strength.cumsum(0) / strength.sum().clamp_min(1e-30)
            keep = min(keep, int((share < energy).sum()) + 1)
        self.q = torch.cat([self.old, axes.T[:keep] @ made])
        self.variance = torch.cat([self.variance, strength[:keep]])
        self.frozen = self.rank
        self._momentum = self.q[self.frozen :].clone()
        self._products = self._products[:0, :0]
        self._complement = None
        return keep

    def outside(self, x: Tensor) -> Tensor:
        """What the frozen rows leave of rows (..., n): ``X - f(X Q_old^T) Q_old``, f the lateral neurons."""
        if not self.frozen:
            return x
        if self.rule.orthonormal and self.lateral is linear_lateral and 2 * self.frozen > self.width:
            complement = self._rest()
            return x @ complement.T @ complement
        y = self.lateral(x @ self.old.T)
        return x - y @ self.old

    def explained(self, x: Tensor) -> float:
        """Share of the energy of rows X that the frozen rows hold."""
        return 1.0 - float(self.outside(x).square().sum() / x.square().sum().clamp_min(1e-30))

    def state_dict(self) -> dict[str, Any]:
        """Everything that learning goes on from."""
        return {
            "q": self.q, "frozen": self.frozen, "momentum": self._momentum, "products": self._products,
            "power": self._power, "variance": self.variance,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state of :meth:`state_dict`.

        Raises:
            UsageError: it is of another width.
        """
        if state["q"].shape[1] != self.width:
            raise UsageError(f"the subspace of the state has width {state['q'].shape[1]}: expected {self.width}")
        self.q, self.frozen, self.variance = state["q"].clone(), int(state["frozen"]), state["variance"].clone()
        self._momentum, self._products = state["momentum"].clone(), state["products"].clone()
        self._power = state["power"]
        self._complement = None

    def _rest(self) -> Tensor:
        """Orthonormal rows of what the frozen ones leave, (n - k, n); cheaper to project on when there are fewer."""
        if self._complement is None:
            full = torch.linalg.qr(self.old.T.double(), mode="complete").Q
            self._complement = full[:, self.frozen :].T.to(self.q.dtype).contiguous()
        assert self._complement is not None
        return self._complement

    def _orthonormal(self, rows: Tensor) -> Tensor:
        """Orthonormal rows of the same span, orthogonal to the frozen ones."""
        exact, old = rows.double(), self.old.double()
        for _ in range(2):
            exact = exact - (exact @ old.T) @ old
        made: Tensor = torch.linalg.qr(exact.T).Q.T.to(rows.dtype).contiguous()
        return made
