"""Every row keeps the same number of inputs: N of every M, or any fan-in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UsageError
from sparsecirc.patterns._maker import check_scores, check_sparsity, divide, live_count, top_of_each


@dataclass(frozen=True)
class NM:
    """Keeps the ``n`` best of every ``m`` neighbours along the input (Mishra et al. 2021, for 2:4); sparsity 1 - n/m.

    Raises:
        UsageError: not 1 <= n <= m; on call, where ``m`` does not divide the columns or another sparsity is asked.
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 1 <= self.n <= self.m:
            raise UsageError(f"pattern {self.n}:{self.m} is impossible: expected 1 <= n <= m, e.g. 2:4")

    @property
    def origin(self) -> str:
        """E.g. ``"2:4"``."""
        return f"{self.n}:{self.m}"

    def __call__(self, scores: NDArray[Any], sparsity: float | None = None, /) -> Pattern:
        """Pattern of the shape of ``scores``."""
        array = check_scores(scores)
        implied = 1 - self.n / self.m
        if sparsity is not None and abs(check_sparsity(sparsity) - implied) > 1e-6:
            raise UsageError(
                f"pattern {self.origin} has sparsity {implied:.6g}, got {sparsity!r}: "
                f"ask for {implied:.6g} or None, or choose other numbers"
            )
        rows, cols = array.shape
        groups = divide(cols, self.m, f"pattern {self.origin}", "columns")
        keep = top_of_each(array.reshape(rows, groups, self.m), self.n)
        return Pattern.from_mask(keep.reshape(rows, cols), self.origin)


@dataclass(frozen=True)
class FanIn:
    """Keeps the ``k`` best inputs of each row; without ``k``, round((1 - sparsity) * cols) of them.

    Raises:
        UsageError: k below 0; on call, where ``k`` exceeds the columns, contradicts the sparsity, or both are missing.
    """

    k: int | None = None

    def __post_init__(self) -> None:
        if self.k is not None and self.k < 0:
            raise UsageError(f"fan-in {self.k} is negative: expected 0 or more live inputs per row")

    @property
    def origin(self) -> str:
        """E.g. ``"fan-in 32"``."""
        return "fan-in" if self.k is None else f"fan-in {self.k}"

    def __call__(self, scores: NDArray[Any], sparsity: float | None = None, /) -> Pattern:
        """Pattern of the shape of ``scores``."""
        array = check_scores(scores)
        cols = array.shape[1]
        asked = None if sparsity is None else live_count(cols, check_sparsity(sparsity))
        count = asked if self.k is None else self.k
        if count is None:
            raise UsageError("a fan-in pattern needs k or a sparsity, got neither: fan_in(32), or a sparsity in [0, 1)")
        if count > cols:
            raise UsageError(f"fan-in {count} exceeds the {cols} columns of the matrix: use {cols} or less")
        if asked is not None and asked != count:
            raise UsageError(
                f"fan-in {count} of {cols} columns has sparsity {1 - count / cols:.6g}, got {sparsity!r} "
                f"(fan-in {asked}): ask for one of the two, or fan_in() without k"
            )
        return Pattern.from_mask(top_of_each(array, count), f"fan-in {count}")


def n_m(n: int, m: int) -> NM:
    """Maker that keeps ``n`` of every ``m`` neighbours along the input."""
    return NM(n, m)


def fan_in(k: int | None = None) -> FanIn:
    """Maker that keeps ``k`` inputs per row, or as many as the sparsity says."""
    return FanIn(k)
