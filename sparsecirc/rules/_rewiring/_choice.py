"""Choosing connections: the best of all that are dead, without a matrix of scores; or any of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.patterns import Tiered, connection_keys

BLOCK = 1 << 18
"""Scores that are held at once."""
FEW = 1 / 16
"""Share of candidates among all connections from which on they are drawn blindly, and what is taken is thrown back."""

Keys = NDArray[np.int64]
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Candidates:
    """Dead connections of one block of a weight, of one tier where the modules have to stay.

    Attributes:
        pattern: what is alive, before anything is dropped: what leaves in a step does not come back in it.
        modules: tiers of connections, or None.
        tier: the one that counts.
    """

    pattern: Pattern
    modules: Tiered | None = None
    tier: int = 0

    def count(self) -> int:
        """How many there are."""
        rows, cols = self.pattern.shape
        if self.modules is None:
            return rows * cols - self.pattern.nnz
        return int(self.modules.sizes(rows, cols)[self.tier]) - int(self.tiers_alive().sum())

    def tiers_alive(self) -> NDArray[np.bool_]:
        """Which live connections are of the tier, (nnz,)."""
        if self.modules is None:
            return np.ones(self.pattern.nnz, bool)
        tiers = self.modules.regions(self.pattern.shape, self.pattern.rows, self.pattern.indices)
        return np.asarray(tiers == self.tier)

    def blocks(self) -> Any:
        """(first row, last row + 1, dead connections of the tier among them (rows, cols)) from top to bottom."""
        rows, cols = self.pattern.shape
        height = max(1, BLOCK // max(cols, 1))
        targets, sources = (None, None) if self.modules is None else self.modules.labels(rows, cols)
        for at in range(0, rows, height):
            end = min(rows, at + height)
            low, high = self.pattern.indptr[at], self.pattern.indptr[end]
            free = np.ones((end - at, cols), bool)
            if self.modules is not None and targets is not None and sources is not None:
                free &= self.modules.tier(targets[at:end, None], sources[None, :]) == self.tier
            free[self.pattern.rows[low:high] - at, self.pattern.indices[low:high]] = False
            yield at, end, free

    def best(self, n: int, score: Callable[[int, int], Scores]) -> Keys:
        """Keys (row * cols + column) of the ``n`` highest scores, ascending; of equal ones, those that come first.

        Args:
            n: fewer come back where fewer scores are numbers above -inf.
            score: (first row, last row + 1) -> scores (rows, cols) of these rows; about 2^18 are held at once.
        """
        cols = self.pattern.shape[1]
        values, keys, bound = np.zeros(0, np.float32), np.zeros(0, np.int64), np.float32(-np.inf)
        if n <= 0:
            return keys
        for at, end, free in self.blocks():
            scores = score(at, end)
            with np.errstate(invalid="ignore"):
                found = np.flatnonzero((scores > bound) & free)  # NaN is never above
            values = np.concatenate([values, scores.ravel()[found]])
            keys = np.concatenate([keys, found + at * cols])
            if len(values) > 2 * n:
                chosen = highest(values, n)
                values, keys = values[chosen], keys[chosen]
                bound = values.min()
        return keys[highest(values, n)]

    def some(self, n: int, generator: torch.Generator) -> Keys:
        """Keys of ``n`` of them, each as likely as any other, ascending."""
        rows, cols = self.pattern.shape
        free = self.count()
        n = min(n, free)
        if n <= 0:
            return np.zeros(0, np.int64)
        if free < FEW * rows * cols or n > free // 2:
            every = np.concatenate([np.flatnonzero(dead) + at * cols for at, _, dead in self.blocks()])
            return every[some_of(len(every), n, generator)]
        taken = connection_keys(self.pattern)
        found = np.zeros(0, np.int64)
        while len(found) < n:
            many = int(1.2 * (n - len(found)) * rows * cols / free) + 64
            drawn = np.sort(
                torch.randint(rows * cols, (many,), generator=generator).numpy()
            )  # ascending: near in memory
            place = np.searchsorted(taken, drawn)
            good = taken[np.minimum(place, len(taken) - 1)] != drawn if len(taken) else np.ones(many, bool)
            if self.modules is not None:
                good &= self.modules.regions(self.pattern.shape, drawn // cols, drawn % cols) == self.tier
            merged = np.sort(np.concatenate([found, drawn[good]]))
            found = merged[np.diff(merged, prepend=-1) > 0]
        return found[some_of(len(found), n, generator)]


def some_of(many: int, n: int, generator: torch.Generator) -> NDArray[np.int64]:
    """``n`` different numbers below ``many``, ascending, each as likely as any other."""
    if n > many // 4:
        return np.sort(torch.randperm(many, generator=generator)[:n].numpy())
    found = np.zeros(0, np.int64)
    while len(found) < n:  # few of many: draw, and draw again for what came twice
        drawn = torch.randint(many, (n - len(found),), generator=generator).numpy()
        merged = np.sort(np.concatenate([found, drawn]))
        found = merged[np.diff(merged, prepend=-1) > 0]
    return found


def highest(scores: Scores, n: int) -> NDArray[np.int64]:
    """Positions of the ``n`` highest scores, ascending; of equal ones, those that come first."""
    if n >= len(scores):
        return np.arange(len(scores))
    if n <= 0:
        return np.zeros(0, np.int64)
    bound = np.partition(scores, len(scores) - n)[len(scores) - n]
    above = np.flatnonzero(scores > bound)
    return np.sort(np.concatenate([above, np.flatnonzero(scores == bound)[: n - len(above)]]))
