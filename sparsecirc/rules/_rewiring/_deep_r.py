"""`DeepR`: connections of fixed sign that die when they cross zero."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from sparsecirc.errors import UsageError
from sparsecirc.masks import Masks
from sparsecirc.rules._rewiring._choice import Candidates
from sparsecirc.rules._rewiring._ranks import agreed
from sparsecirc.rules._rewiring._rule import Exchanged, Rewire
from sparsecirc.rules._rewiring._sites import Site


class DeepR(Rewire):
    """Deep rewiring (Bellec, Kappel, Maass & Legenstein 2018, arXiv:1711.05136, algorithm 1).

    A live connection is w = s theta with a fixed sign s. After each optimizer step

        theta <- theta - lr alpha + sqrt(2 lr T) nu,    nu ~ N(0, 1)

    and those with theta < 0 become dormant; as many random ones come alive at theta = 0, with a random sign. The
    number of connections of each gate stays. Signs of dormant connections are not kept; they are drawn when one comes
    alive, which gives the same distribution.

    Args:
        target: as `Rewire`.
        optimizer: as `Rewire`; lr is that of its group.
        alpha: L1 regularisation.
        temperature: T of the random walk; 0 for none.
        every: optimizer steps between; 1 as in the paper.
        signs: by weight name, the sign of each source unit (`patterns.dale_signs`); drawn per connection otherwise.
        more: ``names``, ``modules``, ``begin``, ``end`` and ``seed`` of `Rewire`.

    Raises:
        UsageError: a negative number, or signs of another length than a weight has columns.
    """

    def __init__(
        self,
        target: nn.Module | Masks,
        optimizer: Optimizer,
        *,
        alpha: float = 1e-4,
        temperature: float = 0.0,
        every: int = 1,
        signs: Mapping[str, NDArray[np.int8]] | None = None,
        **more: Any,
    ) -> None:
        if alpha < 0 or temperature < 0:
            raise UsageError(f"alpha {alpha}, temperature {temperature}: expected 0 or more")
        super().__init__(target, optimizer, every=every, **more)
        self.alpha, self.temperature = alpha, temperature
        self._dale = {} if signs is None else {name: np.asarray(s, np.float32) for name, s in signs.items()}
        self._signs: dict[str, NDArray[np.float32]] = {}
        for name, site in self.sites.items():
            pattern, values = site.pattern, site.values()
            if name in self._dale:
                if self._dale[name].shape != (pattern.shape[1],):
                    raise UsageError(
                        f"signs of '{name}' have shape {self._dale[name].shape}: expected one per source, "
                        f"({pattern.shape[1]},)"
                    )
                self._signs[name] = self._dale[name][pattern.indices]
                site.set_values(np.abs(values) * self._signs[name])
            else:
                self._signs[name] = np.where(values == 0, self._random_signs(len(values)), np.sign(values))

    def _random_signs(self, n: int) -> NDArray[np.float32]:
        return np.asarray(2 * torch.randint(2, (n,), generator=self.generator).float() - 1, np.float32)

    def _rate(self, site: Site) -> float:
        for group in self.optimizer.param_groups:
            if any(p is site.parameter for p in group["params"]):
                return float(group["lr"])
        raise UsageError(f"the optimizer no longer holds '{site.name}'")

    def _rewire(self) -> None:
        done = []
        for name, site in self.sites.items():
            rate, signs = self._rate(site), self._signs[name]
            theta = signs * site.values() - np.float32(rate * self.alpha)
            if self.temperature:
                noise: Tensor = torch.randn(len(theta), generator=self.generator)
                theta = theta + np.float32(math.sqrt(2 * rate * self.temperature)) * noise.numpy()
            drop, grow = agreed(lambda site=site, theta=theta: self._cross(site, theta), self.generator)  # type: ignore[misc]
            theta[drop] = 0  # a dormant one that finds no other in its place stays where it crossed zero
            site.set_values(signs * np.maximum(theta, 0))
            source = site.rewire(drop, grow, self.optimizer)
            grown = source < 0
            moved = signs[np.maximum(source, 0)]
            fresh = (
                self._dale[name][site.pattern.indices[grown]] if name in self._dale else self._random_signs(grown.sum())
            )
            moved[grown] = fresh
            self._signs[name] = moved
            done.append(Exchanged(name, len(drop), site.nnz))
        self.last = tuple(done)

    def _cross(self, site: Site, theta: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Connections below zero, and as many random ones of the same gate and tier."""
        whole = site.pattern
        height, cols = whole.shape[0] // site.gates, whole.shape[1]
        out, new = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for gate in range(site.gates):
            start = int(whole.indptr[gate * height])
            pattern = whole.row_block(gate * height, (gate + 1) * height)
            below = theta[start : start + pattern.nnz] < 0
            tiers = self._modules.get(site.name)
            for tier in range(len(tiers.probabilities) if tiers is not None else 1):
                candidates = Candidates(pattern, tiers, tier)
                dormant = np.flatnonzero(below & candidates.tiers_alive())
                keys = candidates.some(len(dormant), self.generator) if len(dormant) else np.zeros(0, np.int64)
                out.append(dormant[: len(keys)] + start)
                new.append(keys + gate * height * cols)
        return np.concatenate(out), np.concatenate(new)

    def state_dict(self) -> dict[str, Any]:
        """As `Rewire`, with the signs."""
        signs = {name: torch.from_numpy(s.copy()) for name, s in self._signs.items()}
        return super().state_dict() | {"signs": signs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As `Rewire`."""
        super().load_state_dict(state)
        self._signs = {name: np.asarray(s.numpy(), np.float32).copy() for name, s in state["signs"].items()}
