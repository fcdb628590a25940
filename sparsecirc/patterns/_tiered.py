"""Connection probabilities that differ between classes of connections: what modular patterns have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc._pattern import IntArray, Pattern
from sparsecirc.errors import UsageError
from sparsecirc.patterns._maker import check_scores, check_sparsity, divide, top

Grouping = Callable[[int, int], IntArray]
"""(units, groups) -> group of each unit, int32 (units,)."""

CHUNK = 1 << 20
"""Entries of a matrix that are looked at together where it is drawn."""


def contiguous(units: int, groups: int) -> IntArray:
    """Neighbours share a group: unit // (units / groups).

    Raises:
        UsageError: ``groups`` does not divide ``units``.
    """
    size = divide(units, groups, f"{groups} groups", "units")
    return (np.arange(units, dtype=np.int32) // max(size, 1)).astype(np.int32)


def interleaved(units: int, groups: int) -> IntArray:
    """Every ``groups``-th unit shares a group: unit % groups; errors as `contiguous`."""
    divide(units, groups, f"{groups} groups", "units")
    return np.arange(units, dtype=np.int32) % np.int32(groups)


def shuffled(seed: int) -> Grouping:
    """Groups of equal size in a random order that depends on ``seed`` and the number of units only."""

    def grouping(units: int, groups: int) -> IntArray:
        order = np.random.default_rng((seed, units)).permutation(units)
        return contiguous(units, groups)[order]

    return grouping


class Tiered:
    """Connections fall into tiers 0, 1, ..., each with a probability of its own; use its subclasses.

    As a maker it keeps the best-scored round(p_t n_t) of the n_t connections of each tier t, so that random scores give
    a random pattern of a fixed number of connections. With a sparsity, all p_t are scaled by one factor, none above 1.
    `draw` decides every connection by itself instead, as papers put it.
    """

    @property
    def origin(self) -> str:
        """What the patterns are called."""
        raise NotImplementedError

    @property
    def probabilities(self) -> tuple[float, ...]:
        """p_t by tier."""
        raise NotImplementedError

    def labels(self, rows: int, cols: int) -> tuple[IntArray, IntArray]:
        """Finest group of each target (rows,) and each source (cols,)."""
        raise NotImplementedError

    def tier(self, target: IntArray, source: IntArray) -> NDArray[np.int8]:
        """Tier by the groups of both ends; shapes broadcast."""
        raise NotImplementedError

    def regions(self, shape: tuple[int, int], rows: ArrayLike, cols: ArrayLike) -> NDArray[np.int8]:
        """Tier of each connection (rows[k], cols[k]) of a matrix of ``shape``; shapes broadcast."""
        targets, sources = self.labels(*shape)
        return self.tier(targets[np.asarray(rows)], sources[np.asarray(cols)])

    def density(self, rows: int, cols: int) -> float:
        """Expected share of live connections, sum over tiers of p_t n_t / (rows cols)."""
        sizes = self.sizes(rows, cols)
        return float(sizes @ np.asarray(self.probabilities)) / max(rows * cols, 1)

    def __call__(self, scores: NDArray[Any], sparsity: float | None = None, /) -> Pattern:
        """Pattern of the shape of ``scores``."""
        array = check_scores(scores)
        rows, cols = array.shape
        targets, sources = self.labels(rows, cols)
        tiers = self.tier(targets[:, None], sources[None, :])
        shares = self._scaled(rows, cols, sparsity)
        keep = np.zeros(array.shape, bool)
        for t, p in enumerate(shares):
            inside = tiers == t
            keep[inside] = top(array[inside], round(p * int(inside.sum())))
        return Pattern.from_mask(keep, self.origin)

    def draw(self, rows: int, cols: int, seed: int = 0) -> Pattern:
        """Every connection of tier t alive with probability p_t, independently; a chunk of rows at a time."""
        targets, sources = self.labels(rows, cols)
        p, rng = np.asarray(self.probabilities), np.random.default_rng(seed)
        counts, found = np.zeros(rows + 1, np.int64), []
        step = max(1, CHUNK // max(cols, 1))
        for at in range(0, rows, step):
            tiers = self.tier(targets[at : at + step, None], sources[None, :])
            row, col = np.nonzero(rng.random(tiers.shape) < p[tiers])
            counts[at + 1 : at + 1 + len(tiers)] = np.bincount(row, minlength=len(tiers))
            found.append(col.astype(np.int32))
        indices = np.concatenate(found) if found else np.zeros(0, np.int32)
        return Pattern((rows, cols), counts.cumsum().astype(np.int32), indices, self.origin)

    def sizes(self, rows: int, cols: int) -> NDArray[np.float64]:
        """Connections of each tier."""
        targets, sources = self.labels(rows, cols)
        n = 1 + max(int(targets.max(initial=0)), int(sources.max(initial=0)))
        many = np.outer(np.bincount(targets, minlength=n), np.bincount(sources, minlength=n)).ravel()
        groups = np.arange(n, dtype=np.int32)
        tiers = self.tier(groups[:, None], groups[None, :]).ravel()
        return np.asarray(np.bincount(tiers, many, len(self.probabilities)), np.float64)

    def _scaled(self, rows: int, cols: int, sparsity: float | None) -> NDArray[np.float64]:
        p = np.asarray(self.probabilities)
        if sparsity is None:
            return p
        sizes = self.sizes(rows, cols)
        wanted = (1 - check_sparsity(sparsity)) * rows * cols
        most = float(sizes[p > 0].sum())
        if wanted > most * (1 + 1e-9) + 0.5:
            raise UsageError(
                f"{self.origin} can hold {most:.0f} of {rows * cols} connections, a sparsity of {sparsity:g} asks for "
                f"{wanted:.0f}: raise the probabilities that are 0, or ask for {1 - most / (rows * cols):.4g} and more"
            )
        low, high = 0.0, 1.0 / p[p > 0].min() if most else 1.0
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if float(sizes @ np.minimum(middle * p, 1)) < wanted else (low, middle)
        return np.asarray(np.minimum(high * p, 1.0))


def check_probability(value: float, what: str) -> float:
    """``value`` in [0, 1].

    Raises:
        UsageError: it is not.
    """
    if not 0 <= value <= 1:
        raise UsageError(f"{what} is {value}: expected a probability in [0, 1]")
    return float(value)
