"""Whole tiles live or die together, so that a kernel reads one index per tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UsageError
from sparsecirc.patterns._maker import Scores, check_scores, check_sparsity, divide, live_count, top


@dataclass(frozen=True)
class Block:
    """Tiles of ``height`` rows x ``width`` columns; keeps the round((1 - sparsity) * tiles) best by summed score.

    A connection that is dead already counts for nothing in its tile; a tile without a live connection comes last.

    Raises:
        UsageError: a size below 1; on call, where the tiles do not cover the matrix or the sparsity is missing.
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise UsageError(f"block {self.height}x{self.width} is empty: expected sizes of 1 or more")

    @property
    def origin(self) -> str:
        """E.g. ``"block 16x1"``."""
        return f"block {self.height}x{self.width}"

    def __call__(self, scores: NDArray[Any], sparsity: float | None, /) -> Pattern:
        """Pattern of the shape of ``scores``."""
        if sparsity is None:
            raise UsageError(f"pattern {self.origin} needs a sparsity, got None: expected a number in [0, 1)")
        units = self.units(scores)
        return self.build(top(units, live_count(units.size, check_sparsity(sparsity))))

    def units(self, scores: NDArray[Any], /) -> Scores:
        """Mean score per tile, shape (rows / height, cols / width)."""
        array = check_scores(scores)
        rows = divide(array.shape[0], self.height, self.origin, "rows")
        cols = divide(array.shape[1], self.width, self.origin, "columns")
        dead = np.isneginf(array)
        worst = min(0.0, float(np.min(array, where=~dead, initial=0.0)))
        tiles = np.where(dead, worst, array).reshape(rows, self.height, cols, self.width)
        gone = dead.reshape(tiles.shape).all(axis=(1, 3))
        mean = tiles.sum(axis=(1, 3)) / (self.height * self.width)
        return np.where(gone, -np.inf, mean)

    def build(self, keep: NDArray[np.bool_], /) -> Pattern:
        """Pattern of the kept tiles."""
        return Pattern.from_mask(np.kron(keep, np.ones((self.height, self.width), dtype=bool)), self.origin)


def block(height: int, width: int = 1) -> Block:
    """Maker of ``height`` x ``width`` tiles; 16x1, 8x4 and 4x4 have kernels of their own."""
    return Block(height, width)
