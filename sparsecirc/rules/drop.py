"""Which live connections leave in a rewiring step: ``Rewire(..., drop=drop.magnitude)``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sparsecirc.nn._weight import distinct
from sparsecirc.rules._rewiring._edges import Drop, Edges, lowest
from sparsecirc.rules._rewiring._needs import Needs

Positions = NDArray[np.int64]
Chosen = Callable[[Edges, int, NDArray[np.bool_]], Positions]


@dataclass(frozen=True)
class Dropping:
    """A way to choose what leaves, and what it has to know.

    Attributes:
        choose: (connections, how many, which may leave) -> positions.
        needs: what the rule gathers for it.
    """

    choose: Chosen = field(repr=False)
    needs: Needs = Needs.NOTHING

    def __call__(self, edges: Edges, n: int, may: NDArray[np.bool_], /) -> Positions:
        """Positions of those that leave."""
        return self.choose(edges, n, may)


def _magnitude(edges: Edges, n: int, may: NDArray[np.bool_]) -> Positions:
    return lowest(np.abs(edges.values), n, may)


def _random(edges: Edges, n: int, may: NDArray[np.bool_]) -> Positions:
    among = np.flatnonzero(may)
    return np.asarray(among[distinct(len(among), n, edges.generator)])


def _correlation(edges: Edges, n: int, may: NDArray[np.bool_]) -> Positions:
    return lowest(edges.activity().of(edges.pattern), n, may)


magnitude = Dropping(_magnitude)
"""The smallest |w| (Mocanu et al. 2018)."""
random = Dropping(_random)
"""Any."""
correlation = Dropping(_correlation, Needs.ACTIVITY)
"""The lowest correlation of both ends (G2GNet)."""


def in_turns(*ways: Drop) -> Dropping:
    """Equal shares of each of ``ways``, in this order, none of them twice; the first ways take what is left over."""

    def choose(edges: Edges, n: int, may: NDArray[np.bool_]) -> Positions:
        left, found = may.copy(), [np.zeros(0, np.int64)]
        for k, way in enumerate(ways):
            share = n // len(ways) + (k < n % len(ways))
            chosen = way(edges, share, left)
            left[chosen] = False
            found.append(chosen)
        return np.concatenate(found)

    return Dropping(choose, max((needs_of(w) for w in ways), default=Needs.NOTHING))


def needs_of(way: object) -> Needs:
    """What a way to drop or to grow has to know; functions without ``needs`` know what they need."""
    found = getattr(way, "needs", Needs.NOTHING)
    assert isinstance(found, Needs)
    return found


three = in_turns(magnitude, random, correlation)
"""A third each of smallest, any and least correlated: the choice of G2GNet."""
