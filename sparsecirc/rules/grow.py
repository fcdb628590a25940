"""Which dead connections come alive in a rewiring step: ``Rewire(..., grow=grow.correlation)``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sparsecirc.rules._rewiring._edges import Edges, Floats
from sparsecirc.rules._rewiring._needs import Needs

Keys = NDArray[np.int64]


@dataclass(frozen=True)
class Growing:
    """A way to choose what grows, and what it has to know.

    Attributes:
        choose: (connections, how many) -> row * cols + column of each.
        needs: what the rule gathers for it.
    """

    choose: Callable[[Edges, int], Keys] = field(repr=False)
    needs: Needs = Needs.NOTHING

    def __call__(self, edges: Edges, n: int, /) -> Keys:
        """Keys of those that grow."""
        return self.choose(edges, n)


def _random(edges: Edges, n: int) -> Keys:
    return edges.candidates.some(n, edges.generator)


def _correlation(edges: Edges, n: int) -> Keys:
    return edges.candidates.best(n, edges.activity().block)


def _gradient(edges: Edges, n: int) -> Keys:
    scores = edges.gradient()

    def steepness(start: int, stop: int) -> Floats:
        found = scores.block(start, stop)
        return np.abs(found, out=found)

    return edges.candidates.best(n, steepness)


random = Growing(_random)
"""Any (Mocanu et al. 2018)."""
correlation = Growing(_correlation, Needs.ACTIVITY)
"""The highest correlation of both ends: Hebb's rule (G2GNet)."""
gradient = Growing(_gradient, Needs.GRADIENT)
"""The largest |dL/dw| (Evci et al. 2020)."""
