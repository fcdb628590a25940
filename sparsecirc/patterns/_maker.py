"""What a pattern maker is, and the checks and ranking that all makers share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UsageError

Scores = NDArray[np.float64]


class PatternMaker(Protocol):
    """Turns scores of one matrix, shape (rows, cols), into the pattern of what is worth keeping.

    A higher score is kept longer; ``-inf`` marks a connection that is dead already and is kept last. ``sparsity``
    is the share of dead connections in [0, 1), or ``None`` where the maker itself implies it (N:M, fan-in).
    """

    def __call__(self, scores: NDArray[Any], sparsity: float | None, /) -> Pattern:
        """The pattern, of the shape of ``scores``."""
        ...


@runtime_checkable
class Ranked(Protocol):
    """A maker that keeps the best of equal units (connections, tiles), so that matrices can be ranked together."""

    def units(self, scores: NDArray[Any], /) -> Scores:
        """Mean score of each unit, in any shape."""
        ...

    def build(self, keep: NDArray[np.bool_], /) -> Pattern:
        """Pattern from a decision per unit, of the shape that :meth:`units` gave."""
        ...


@dataclass(frozen=True)
class Wired:
    """One weight matrix with the layers that it joins.

    Attributes:
        name: e.g. ``"rnn.l0.hh"``.
        scores: (gates * units, columns); ``-inf`` marks a connection that is dead already.
        gates: gate blocks stacked along the rows; () where there is one block.
        target: layer whose units are the rows.
        sources: (layer or input, width) of its columns from left to right.
    """

    name: str
    scores: NDArray[Any] = field(repr=False)
    gates: tuple[str, ...]
    target: str
    sources: tuple[tuple[str, int], ...]

    @property
    def n_gates(self) -> int:
        """Blocks of equal height along the rows."""
        return max(len(self.gates), 1)


class Explained(Protocol):
    """Why a maker chose as it did."""

    def table(self) -> str:
        """Plain text, a line per neuron."""
        ...

    def to_json(self) -> dict[str, Any]:
        """The same, JSON-able."""
        ...

    def svg(self) -> str:
        """A drawing."""
        ...


@runtime_checkable
class Joint(Protocol):
    """A maker that has to see the weights of whole layers at once, with what they join."""

    def joint(
        self, matrices: Sequence[Wired], sparsity: float | None, /
    ) -> tuple[list[Pattern], tuple[Explained, ...]]:
        """A pattern for each matrix, of the shape of its scores, and why."""
        ...


def check_sparsity(value: float, what: str = "sparsity") -> float:
    """``value`` as a float in [0, 1).

    Raises:
        UsageError: not a number, or outside the range.
    """
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except TypeError:
        number = math.nan
    if not 0.0 <= number < 1.0:
        raise UsageError(
            f"{what} is {value!r}: expected a number from 0 (dense) up to, but not including, 1; "
            "0.9 keeps one connection in ten"
        )
    return number


def live_count(size: int, sparsity: float) -> int:
    """How many of ``size`` units stay alive: round((1 - sparsity) * size)."""
    return round((1.0 - sparsity) * size)


def check_scores(scores: ArrayLike) -> Scores:
    """Scores as a float64 matrix.

    Raises:
        UsageError: not two axes, or a NaN among them.
    """
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 2:
        raise UsageError(f"scores have shape {array.shape}: expected a matrix (rows, cols)")
    if np.isnan(array).any():
        raise UsageError(f"scores of shape {array.shape} hold NaN: expected one number per connection")
    return array


def top(scores: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """Mask of the ``count`` highest scores; of equal ones, those that come first."""
    keep = np.zeros(scores.size, dtype=bool)
    keep[np.argsort(-scores.ravel(), kind="stable")[:count]] = True
    return keep.reshape(scores.shape)


def top_of_each(scores: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """Mask of the ``count`` highest scores along the last axis; of equal ones, those that come first."""
    keep = np.zeros(scores.shape, dtype=bool)
    order = np.argsort(-scores, axis=-1, kind="stable")[..., :count]
    np.put_along_axis(keep, order, True, axis=-1)
    return keep


def rank_together(maker: PatternMaker, matrices: Sequence[NDArray[Any]], sparsity: float | None) -> list[Pattern]:
    """Patterns of several matrices whose units are ranked in one list.

    Raises:
        UsageError: the maker fixes its count per row, so there is nothing to rank across matrices.
    """
    if not isinstance(maker, Ranked) or sparsity is None:
        raise UsageError(
            f"pattern {getattr(maker, 'origin', maker)!s} cannot be ranked across matrices: "
            "use the scope per-gate or tensor with it"
        )
    units = [maker.units(check_scores(m)) for m in matrices]
    flat = np.concatenate([u.ravel() for u in units]) if units else np.zeros(0)
    keep = top(flat, live_count(flat.size, check_sparsity(sparsity)))
    ends = np.cumsum([u.size for u in units])
    parts = np.split(keep, ends[:-1]) if units else []
    return [maker.build(k.reshape(u.shape)) for k, u in zip(parts, units, strict=True)]


def nearest_divisors(size: int, wanted: int) -> list[int]:
    """The divisors of ``size`` next below and above ``wanted``."""
    divisors = [d for d in range(1, size + 1) if size % d == 0]
    below = [d for d in divisors if d <= wanted]
    above = [d for d in divisors if d > wanted]
    return below[-1:] + above[:1]


def divide(size: int, by: int, what: str, axis: str) -> int:
    """``size // by``.

    Raises:
        UsageError: ``by`` does not divide ``size``; names the nearest values that would fit.
    """
    if size % by:
        low = size // by * by
        sizes = " or ".join(str(n) for n in (low, low + by) if n)
        choices = " or ".join(str(d) for d in nearest_divisors(size, by))
        raise UsageError(
            f"{what} does not fit {size} {axis}: {size} is not a multiple of {by}; "
            f"use {choices} instead of {by}, or {sizes} {axis}"
        )
    return size // by
