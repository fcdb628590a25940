"""Orders of the rows of a matrix, so that rows which pad little beside each other are packed side by side.

A lookup stores equally many weights for each row of a strip, window by window; where a row has fewer, the rest is
padding. Which rows form a strip is free: a kernel writes each of them where it belongs (`Packed.order`), so neither
inputs nor outputs nor units move. `compile` tries `ORDERS` and keeps what measures best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsecirc._native import kernels
from sparsecirc._pattern import Pattern, permutation
from sparsecirc.formats import Grid

Ints = NDArray[np.int32]

TURNS = 200
"""Turns of the search per row: 0.1 s for 3072 rows of 1024 columns."""

BYTES = 1 << 34
"""Most bytes of counts that a search compares: about two seconds."""


@dataclass(frozen=True)
class Order:
    """A way to arrange rows.

    Attributes:
        name: as `Program.explain` prints it.
        arrange: ``arrange(pattern, grid)`` gives a permutation of the rows: first the row that is packed first. It must
            give the same one whenever it is called with the same pattern.
    """

    name: str
    arrange: Callable[[Pattern, Grid], NDArray[np.integer]]

    def rows(self, pattern: Pattern, grid: Grid) -> Ints:
        """The permutation for one matrix.

        Raises:
            UsageError: ``arrange`` gave no permutation.
        """
        return permutation(self.arrange(pattern, grid), pattern.shape[0], f"rows, as '{self.name}' arranged them")


def counts(pattern: Pattern, grid: Grid) -> NDArray[np.uint8]:
    """Vectors that each row needs in spans of two windows' columns, which overlap by three quarters, (rows, spans).

    A row that has more weights in a window than others may run ahead or stay behind by about a window; so what makes
    rows wait for each other is how their numbers differ over spans somewhat longer than that.
    """
    rows, width = pattern.shape[0], 2 * grid.cols
    found = []
    for shift in range(0, width, max(width // 4, 1)):
        spans = -(-(pattern.shape[1] + shift) // width)
        place = pattern.rows * np.int64(spans) + (pattern.indices + shift) // width
        weights = np.bincount(place, minlength=rows * spans).reshape(rows, spans)
        found.append(np.minimum(-(-weights // grid.per), 255).astype(np.uint8))
    return np.ascontiguousarray(np.concatenate(found, axis=1))


def cost(pattern: Pattern, grid: Grid, rows: Ints | None = None) -> int:
    """What a pattern costs with its rows in an order, or as given.

    That is the number of windows times the price of each, with the cheapest of the tiles.
    """
    return min(
        kernels.count_windows(pattern.shape[1], pattern.indptr, pattern.indices, rows, *t[:3], t.depth * grid.per)
        * t.price
        for t in grid.tiles
    )


def by_degree(pattern: Pattern, grid: Grid) -> Ints:
    """Rows by their number of connections."""
    return np.argsort(pattern.fan_in(), kind="stable").astype(np.int32)


def alike(pattern: Pattern, grid: Grid) -> Ints:
    """Rows with the same connections beside each other, whole groups of them first.

    Where neurons come in kinds that listen to the same neurons, whole groups hold no padding, and are blocks.
    """
    keys = np.random.default_rng(0).integers(1, 1 << 62, pattern.shape[1])
    sums = np.concatenate([[0], np.cumsum(keys[pattern.indices])])
    label = sums[pattern.indptr[1:]] - sums[pattern.indptr[:-1]]  # equal rows have equal labels, others hardly ever
    _, kind, size = np.unique(label, return_inverse=True, return_counts=True)
    first = np.cumsum(size) - size
    sorted_rows = np.argsort(kind, kind="stable")
    rank = np.empty(len(kind), np.int64)
    rank[sorted_rows] = np.arange(len(kind)) - first[kind[sorted_rows]]
    left_over = rank >= size[kind] // grid.rows * grid.rows
    return np.lexsort((rank, kind, pattern.fan_in(), left_over)).astype(np.int32)


def balanced(pattern: Pattern, grid: Grid) -> Ints:
    """Rows swapped between strips as long as none has to wait longer, from the better of the other two orders."""
    if grid.cols == 1:  # blocks: only rows that are alike can share one
        return alike(pattern, grid)
    start = min((by_degree(pattern, grid), alike(pattern, grid)), key=lambda rows: cost(pattern, grid, rows))
    count = counts(pattern, grid)
    turns = min(TURNS * len(count), BYTES // (64 * max(count.shape[1], 16)))
    kernels.order_rows(count, grid.rows, turns, start)
    return start


DEGREE = Order("by degree", by_degree)
ALIKE = Order("alike", alike)
BALANCED = Order("balanced", balanced)

ORDERS = (ALIKE, BALANCED)
"""What `compile` tries; `BALANCED` begins with the other two."""
