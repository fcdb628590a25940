"""Whole rows or columns, and a diagonal that stays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UsageError
from sparsecirc.patterns._maker import PatternMaker, Ranked, Scores, check_scores, check_sparsity, live_count, top
from sparsecirc.patterns._unstructured import unstructured


@dataclass(frozen=True)
class Lines:
    """Keeps the round((1 - sparsity) * n) of n rows, or columns, with the highest mean score, whole.

    Attributes:
        axis: 0 for rows, 1 for columns.

    Raises:
        UsageError: on call, where the sparsity is missing or outside [0, 1), or a score is NaN.
    """

    axis: int

    @property
    def origin(self) -> str:
        """What the patterns are called."""
        return ("rows", "columns")[self.axis]

    def __call__(self, scores: NDArray[Any], sparsity: float | None, /) -> Pattern:
        """Pattern of the shape of ``scores``."""
        if sparsity is None:
            raise UsageError(f"pattern {self.origin} needs a sparsity, got None: expected a number in [0, 1)")
        array = check_scores(scores)
        means = array.mean(axis=1 - self.axis) if array.size else np.zeros(array.shape[self.axis])
        keep = top(means, live_count(means.size, check_sparsity(sparsity)))
        return Pattern.from_mask(np.broadcast_to(np.expand_dims(keep, 1 - self.axis), array.shape), self.origin)


rows = Lines(0)
"""Whole rows: units without input. To take units out of a network see `sparsecirc.rank_units`."""
columns = Lines(1)
"""Whole columns: inputs, or presynaptic units, that nobody reads."""


@dataclass(frozen=True)
class KeepDiagonal:
    """Another maker that keeps the connection of each unit to itself.

    The diagonal of each square block of rows counts as worth more than all else; it is part of what is kept, so the
    sparsity is met as without it, as long as it leaves that much. Matrices whose rows are no whole number of squares
    (input weights) are made as usual, and connections that are dead already stay dead.

    Attributes:
        maker: what makes the pattern.
    """

    maker: PatternMaker = field(default=unstructured)

    @property
    def origin(self) -> str:
        """What the patterns are called."""
        return f"{getattr(self.maker, 'origin', self.maker)} with diagonal"

    def __call__(self, scores: NDArray[Any], sparsity: float | None, /) -> Pattern:
        """Pattern of the shape of ``scores``."""
        return self.maker(self._raised(scores), sparsity).with_origin(self.origin)

    def units(self, scores: NDArray[Any], /) -> Scores:
        """Those of the maker.

        Raises:
            UsageError: the maker cannot be ranked across matrices.
        """
        return self._ranked().units(self._raised(scores))

    def build(self, keep: NDArray[np.bool_], /) -> Pattern:
        """Pattern of the maker."""
        return self._ranked().build(keep).with_origin(self.origin)

    def _ranked(self) -> Ranked:
        if not isinstance(self.maker, Ranked):
            raise UsageError(
                f"pattern {self.origin} cannot be ranked across matrices: use the scope per-gate or tensor with it"
            )
        return self.maker

    def _raised(self, scores: NDArray[Any]) -> Scores:
        array = check_scores(scores).copy()
        height, width = array.shape
        if not array.size or height % width:
            return array
        place = np.arange(height)
        live = np.isfinite(array)
        # Above the mean of any tile that does not hold it, whatever the tile's size.
        high = (np.abs(array[live]).max(initial=0.0) + 1.0) * 2.0 * array.size
        hit = live[place, place % width]
        array[place[hit], place[hit] % width] = high
        return array


def keep_diagonal(maker: PatternMaker = unstructured) -> KeepDiagonal:
    """``maker`` with the connections of units to themselves kept, for recurrent weights."""
    return KeepDiagonal(maker)
