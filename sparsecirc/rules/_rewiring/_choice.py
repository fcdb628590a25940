"""Choosing connections: the best of all that are dead, without a matrix of scores; or any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sparsecirc._pattern import BoolArray, Pattern
from sparsecirc.nn._weight import distinct
from sparsecirc.patterns import Tiered, connection_keys

BLOCK = 1 << 18
"""Scores that are held at once."""
FEW = 1 / 16
"""Share of candidates among all connections from which on they are drawn blindly, and what is taken is thrown back."""

STRIPS, HEIGHT = 8, 16
"""Places at which the scores of so many rows are looked at to guess a bound; fewer rows at more places take longer."""

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

    def tiers_alive(self) -> BoolArray:
        """Which live connections are of the tier, (nnz,)."""
        if self.modules is None:
            return np.ones(self.pattern.nnz, bool)
        tiers = self.modules.regions(self.pattern.shape, self.pattern.rows, self.pattern.indices)
        return np.asarray(tiers == self.tier)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """(first row, last row + 1) from top to bottom."""
        rows, cols = self.pattern.shape
        high = max(1, BLOCK // max(cols, 1))
        for at in range(0, rows, high):
            yield at, min(rows, at + high)

    def _elsewhere(self, start: int, stop: int) -> BoolArray:
        """Which connections into the targets ``start:stop`` are of another tier, (stop - start, cols)."""
        rows, cols = self.pattern.shape
        if self.modules is None:
            return np.zeros((stop - start, cols), bool)
        targets, sources = self.modules.labels(rows, cols)
        return np.asarray(self.modules.tier(targets[start:stop, None], sources[None, :]) != self.tier)

    def others(self, start: int, stop: int) -> BoolArray:
        """Which connections into the targets ``start:stop`` are none of the candidates: alive, or of another tier."""
        out = self._elsewhere(start, stop)
        low, high = self.pattern.indptr[start], self.pattern.indptr[stop]
        out[self.pattern.rows[low:high] - start, self.pattern.indices[low:high]] = True
        return out

    def best(self, n: int, score: Callable[[int, int], Scores]) -> Keys:
        """Keys (row * cols + column) of the ``n`` highest scores, ascending; of equal ones, those that come first.

        A few rows are looked at first, to guess a bound above which there are somewhat more than ``n``; where the guess
        was too high, all are looked at again without it.

        Args:
            n: fewer come back where fewer scores are numbers above -inf.
            score: (first row, last row + 1) -> scores (rows, cols) of these rows, to be overwritten; about 2^18 are
                held at once.
        """
        if n <= 0:
            return np.zeros(0, np.int64)
        bound = self._guess(n, score)
        found = self._above(bound, n, score)
        return self._above(np.float32(-np.inf), n, score) if len(found) < n and bound > -np.inf else found

    def _above(self, bound: np.float32, n: int, score: Callable[[int, int], Scores]) -> Keys:
        """Keys of the ``n`` highest scores above ``bound``."""
        cols = self.pattern.shape[1]
        values, keys, many = [np.zeros(0, np.float32)], [np.zeros(0, np.int64)], 0
        alive = connection_keys(self.pattern)
        for at, end in self.blocks():
            scores = score(at, end)
            if self.modules is not None:
                scores[self._elsewhere(at, end)] = -np.inf
            low, high = self.pattern.indptr[at], self.pattern.indptr[end]
            scores.ravel()[alive[low:high] - at * cols] = -np.inf
            found = np.flatnonzero(scores > bound)  # NaN is never above
            values.append(scores.ravel()[found])
            keys.append(found + at * cols)
            many += len(found)
            if many > 4 * n:
                all_values, all_keys = np.concatenate(values), np.concatenate(keys)
                chosen = highest(all_values, n)
                values, keys, many = [all_values[chosen]], [all_keys[chosen]], n
                bound = values[0].min()
        all_values = np.concatenate(values)
        chosen = highest(all_values, n)
        return np.asarray(np.concatenate(keys)[chosen])

    def _guess(self, n: int, score: Callable[[int, int], Scores]) -> np.float32:
        """A score that about 2 n candidates exceed, from strips of rows; -inf where few rows tell nothing."""
        rows = self.pattern.shape[0]
        if rows < 6 * HEIGHT * STRIPS:
            return np.float32(-np.inf)
        seen = []
        for at in np.linspace(0, rows - HEIGHT, STRIPS).astype(int).tolist():
            scores = score(at, at + HEIGHT)
            seen.append(scores[~self.others(at, at + HEIGHT) & (scores == scores)])
        every = np.concatenate(seen)
        wanted = int(2 * n * HEIGHT * STRIPS / rows) + 8
        if wanted >= len(every):
            return np.float32(-np.inf)
        return np.float32(np.partition(every, len(every) - wanted)[len(every) - wanted])

    def some(self, n: int, generator: torch.Generator) -> Keys:
        """Keys of ``n`` of them, each as likely as any other, ascending."""
        rows, cols = self.pattern.shape
        free = self.count()
        n = min(n, free)
        if n <= 0:
            return np.zeros(0, np.int64)
        if free < FEW * rows * cols or n > free // 2:
            every = np.concatenate([np.flatnonzero(~self.others(a, b)) + a * cols for a, b in self.blocks()])
            return every[distinct(len(every), n, generator)]
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
        return found[distinct(len(found), n, generator)]


def highest(scores: Scores, n: int) -> NDArray[np.int64]:
    """Positions of the ``n`` highest scores, ascending; of equal ones, those that come first."""
    if n >= len(scores):
        return np.arange(len(scores))
    if n <= 0:
        return np.zeros(0, np.int64)
    bound = np.partition(scores, len(scores) - n)[len(scores) - n]
    above = np.flatnonzero(scores > bound)
    return np.sort(np.concatenate([above, np.flatnonzero(scores == bound)[: n - len(above)]]))
