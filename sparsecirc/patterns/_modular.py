"""Modules: groups of units that are densely connected inside and sparsely between each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import IntArray
from sparsecirc.errors import UsageError
from sparsecirc.patterns._tiered import Grouping, Tiered, check_probability, contiguous, interleaved, shuffled

Layering = Callable[[int], Grouping]
"""Number of a layer of units, 0 for the input, -> how its units are grouped."""


@dataclass(frozen=True)
class Modular(Tiered):
    """Group-to-group connectivity (G2GNet, Konstantaropoulos, Smirnakis & Papadopouli 2025, arXiv:2508.14140).

    A connection is alive with probability ``p_intra`` where both ends are in groups of the same number, else with
    ``p_inter``; density p_intra / G + (1 - 1 / G) p_inter, 0.256 for the defaults. As a maker it keeps that share of
    the best scores of each kind; `draw` draws every connection by itself, as the paper does. Gated layers are made gate
    by gate.

    Attributes:
        groups: G; it has to divide both sides.
        p_intra: inside groups.
        p_inter: between them.
        targets: groups of the rows.
        sources: groups of the columns. For recurrent weights give the same as for the rows.

    Raises:
        UsageError: no group, or no probability; on call, where G does not divide a side, or a sparsity is out of reach.
    """

    groups: int = 8
    p_intra: float = 1.0
    p_inter: float = 0.15
    targets: Grouping = contiguous
    sources: Grouping = contiguous

    def __post_init__(self) -> None:
        if self.groups < 1:
            raise UsageError(f"modular with {self.groups} groups: expected at least 1")
        check_probability(self.p_intra, "p_intra")
        check_probability(self.p_inter, "p_inter")

    @property
    def origin(self) -> str:
        """E.g. ``"modular 8"``."""
        return f"modular {self.groups}"

    @property
    def probabilities(self) -> tuple[float, ...]:
        """Inside, between."""
        return self.p_intra, self.p_inter

    def labels(self, rows: int, cols: int) -> tuple[IntArray, IntArray]:
        """Group of each row and of each column."""
        return self.targets(rows, self.groups), self.sources(cols, self.groups)

    def tier(self, target: IntArray, source: IntArray) -> NDArray[np.int8]:
        """0 inside a group, 1 between two."""
        return np.asarray(target != source, np.int8)


@dataclass(frozen=True)
class Hierarchical(Tiered):
    """Groups of groups: the less two units share, the less likely their connection.

    With ``levels=(4, 2)`` there are 4 groups of 2 groups each. Tier 0 is inside the finest group, tier 1 inside the one
    around it, the last is between units that share none (hierarchical modular networks, Meunier, Lambiotte & Bullmore
    2010).

    Attributes:
        levels: groups per group, from the outermost; their product has to divide both sides.
        p: probabilities from the innermost tier to the outermost, one more than levels.
        targets: finest groups of the rows.
        sources: finest groups of the columns.

    Raises:
        UsageError: no level, or not one probability more than levels; on call, as `Modular`.
    """

    levels: tuple[int, ...] = (4, 2)
    p: tuple[float, ...] = (1.0, 0.3, 0.05)
    targets: Grouping = contiguous
    sources: Grouping = contiguous

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 1:
            raise UsageError(f"levels {self.levels}: expected one or more, each of at least 1 group")
        if len(self.p) != len(self.levels) + 1:
            raise UsageError(
                f"{len(self.p)} probabilities for {len(self.levels)} levels: expected one more than levels"
            )
        for value in self.p:
            check_probability(value, "a probability of the hierarchy")

    @property
    def origin(self) -> str:
        """E.g. ``"hierarchical 4x2"``."""
        return f"hierarchical {'x'.join(map(str, self.levels))}"

    @property
    def probabilities(self) -> tuple[float, ...]:
        """From the innermost tier to the outermost."""
        return self.p

    def labels(self, rows: int, cols: int) -> tuple[IntArray, IntArray]:
        """Finest group of each row and of each column."""
        finest = prod(self.levels)
        return self.targets(rows, finest), self.sources(cols, finest)

    def tier(self, target: IntArray, source: IntArray) -> NDArray[np.int8]:
        """How many levels up both ends meet."""
        out = np.zeros(np.broadcast_shapes(np.shape(target), np.shape(source)), np.int8)
        size = 1
        for count in reversed(self.levels):
            out += target // size != source // size
            size *= count
        return out


def modular(
    groups: int = 8,
    p_intra: float = 1.0,
    p_inter: float = 0.15,
    *,
    targets: Grouping = contiguous,
    sources: Grouping = contiguous,
) -> Modular:
    """Maker of group-to-group connectivity; arguments and errors as `Modular`."""
    return Modular(groups, p_intra, p_inter, targets, sources)


def hierarchical(
    levels: tuple[int, ...] = (4, 2),
    p: tuple[float, ...] = (1.0, 0.3, 0.05),
    *,
    targets: Grouping = contiguous,
    sources: Grouping = contiguous,
) -> Hierarchical:
    """Maker of groups of groups; arguments and errors as `Hierarchical`."""
    return Hierarchical(levels, p, targets, sources)


def by_index(_layer: int) -> Grouping:
    """The same contiguous groups in every layer (G2G index)."""
    return contiguous


def at_random(seed: int = 0) -> Layering:
    """Groups of every layer in a random order of its own (G2G random)."""
    return lambda layer: shuffled(2**20 * seed + layer)


def mixer(layer: int) -> Grouping:
    """Contiguous and interleaved groups in turns, so that each layer mixes what the last one kept apart (G2G mixer)."""
    return interleaved if layer % 2 else contiguous


def g2g(
    layers: int,
    groups: int = 8,
    p_intra: float = 1.0,
    p_inter: float = 0.15,
    *,
    grouping: Layering = by_index,
) -> list[Modular]:
    """Makers for the weights of a stack of ``layers`` layers: the k-th joins units of layer k to those of layer k + 1.

    Args:
        layers: weights; layer 0 is the input.
        groups: as `Modular`.
        p_intra: as `Modular`.
        p_inter: as `Modular`.
        grouping: `by_index`, `at_random(seed)`, `mixer`, or one of your own. The rows of one weight and the columns of
            the next have the same groups.

    Raises:
        UsageError: as `Modular`.
    """
    sides = [grouping(k) for k in range(layers + 1)]
    return [Modular(groups, p_intra, p_inter, sides[k + 1], sides[k]) for k in range(layers)]
