"""What a choice of connections may ask for: one gate of one weight, with what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.rules._rewiring._choice import Candidates, highest

Floats = NDArray[np.float32]


class Scored(Protocol):
    """A score for every connection, live or dead, a few rows at a time."""

    def block(self, start: int, stop: int) -> Floats:
        """Of all connections into the targets ``start:stop``, (stop - start, cols); the caller may overwrite it."""
        ...

    def of(self, pattern: Pattern) -> Floats:
        """Of the live connections, (nnz,)."""
        ...


@dataclass(frozen=True)
class Edges:
    """Live connections of one gate of one weight.

    Attributes:
        name: of the weight.
        gate: number of the gate.
        pattern: live connections.
        values: theirs, (nnz,).
        candidates: dead connections that may grow.
        generator: of the rule; the same on every process.
        activity: scores by correlation, where the rule gathers it.
        gradient: gradients, where the rule gathers them.
    """

    name: str
    gate: int
    pattern: Pattern
    values: Floats
    candidates: Candidates
    generator: torch.Generator
    activity: Callable[[], Scored]
    gradient: Callable[[], Scored]


Drop: TypeAlias = "Callable[[Edges, int, NDArray[np.bool_]], NDArray[np.int64]]"
"""(connections, how many leave, which of them may (nnz,)) -> positions of those that leave."""
Grow: TypeAlias = "Callable[[Edges, int], NDArray[np.int64]]"
"""(connections, how many come) -> row * cols + column of each; fewer where there are not as many."""


def lowest(scores: Floats, n: int, may: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Positions of the ``n`` lowest scores among those that ``may``; of equal ones, the first; NaN is highest."""
    among = np.flatnonzero(may)
    turned = -scores[among]
    turned[np.isnan(turned)] = -np.inf
    return among[highest(turned, n)]
