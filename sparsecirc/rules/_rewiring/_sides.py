"""Scores of connections from what is known of their two ends; never a matrix of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UsageError

EPS = 1e-8
"""Added to norms, as G2GNet does: what never changes is correlated with nothing."""


@dataclass(frozen=True)
class Sides:
    """Score of connection (o, i): sum over samples m of left[m, o] right[m, i].

    Attributes:
        left: of the targets, float32 (M, rows).
        right: of the sources, float32 (M, cols).
    """

    left: Tensor
    right: Tensor

    def part(self, start: int, stop: int) -> Sides:
        """Targets ``start:stop``."""
        return Sides(self.left[:, start:stop], self.right)

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Scores of all connections into the targets ``start:stop``, (stop - start, cols)."""
        return np.asarray((self.left[:, start:stop].T @ self.right).numpy())

    def of(self, pattern: Pattern) -> NDArray[np.float32]:
        """Scores of the live connections, (nnz,): the product that gives a sparse layer its gradient."""
        if self.left.shape[1] != pattern.shape[0] or self.right.shape[1] != pattern.shape[1]:
            raise UsageError(
                f"activity of {self.left.shape[1]} targets and {self.right.shape[1]} sources: expected {pattern.shape}"
            )
        if not pattern.nnz:
            return np.zeros(0, np.float32)
        indptr, indices = (torch.from_numpy(a.copy()) for a in (pattern.indptr, pattern.indices))
        values = torch.zeros(pattern.nnz)
        wanted = [False, True, False]
        found = torch.ops.sparsecirc.linear_backward(
            self.left.contiguous(), self.right.contiguous(), values, indptr, indices, wanted
        )
        return np.asarray(found[1].numpy())


def normalised(samples: Sequence[tuple[float, Tensor, Tensor]], *, centered: bool) -> Sides:
    """Cosine similarity of the activity of both ends, or with ``centered`` Pearson's correlation.

        CH[o, i] = sum_m w_m a_m[o] b_m[i] / (|a[o]| |b[i]|),    |a[o]|^2 = sum_m w_m a_m[o]^2 + eps

    Args:
        samples: weight, targets (M, rows) and sources (M, cols) of each batch.
        centered: subtract the weighted mean of each unit first.
    """
    weights = torch.cat([torch.full((len(a), 1), w) for w, a, _ in samples])
    sides = (_joined([a for _, a, _ in samples]), _joined([b for _, _, b in samples]))
    return Sides(*(_unit(side, weights, centered) for side in sides))


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return (parts[0] if len(parts) == 1 else torch.cat(list(parts))).float()


def _unit(side: Tensor, weights: Tensor, centered: bool) -> Tensor:
    if centered:
        side = side - (weights * side).sum(0) / weights.sum().clamp(min=EPS)
    if bool((weights != 1).any()):
        side = weights.sqrt() * side
    norm: Tensor = torch.linalg.vector_norm(side, dim=0)
    return side / (norm + EPS)


def thinned(parts: Iterable[tuple[Tensor, Tensor]], limit: int) -> tuple[Tensor, Tensor]:
    """(targets, sources) of all parts, evenly thinned to at most ``limit`` samples."""
    lists = list(parts)
    left, right = lists[0] if len(lists) == 1 else (torch.cat([p[k] for p in lists]) for k in (0, 1))
    if len(left) <= limit:
        return left, right
    index = torch.linspace(0, len(left) - 1, limit, dtype=torch.float64).round().long()
    return left[index], right[index]
