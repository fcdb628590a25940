"""From an adjacency to what is critical: an order, its irreducible neurons, and the connections that survive."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._lattice import (
    Centrality,
    Preorder,
    Strengths,
    acyclic_order,
    attribute_irreducible,
    context_persistence,
    cut,
    forward,
    join_irreducible,
    meet_irreducible,
    object_irreducible,
    persistence,
    preorder,
    refuse_one_component,
    unpack,
)
from sparsecirc.errors import UsageError
from sparsecirc.patterns._lattice._system import Flags, System


class Adjacency(str, Enum):
    """How a connection enters the order."""

    BINARY = "binary"  # it is there where its strength exceeds a threshold
    CONTINUOUS = "continuous"  # at every threshold; what counts is the share of the range


class Order(str, Enum):
    """How a graph with cycles becomes an order."""

    ACYCLIC = "acyclic"  # light edges that close a cycle are turned away
    SCC = "scc"  # neurons on a cycle are equivalent
    TIME = "time"  # one step unrolled: neurons before and after are different elements


class Keep(str, Enum):
    """Which connections survive."""

    EITHER = "either"  # one end is critical
    BOTH = "both"  # both ends are critical
    COVER = "cover"  # not implied by others: an edge of the Hasse diagram, or inside a component


@dataclass(frozen=True)
class Settings:
    """What decides which connections are critical; see `Lattice`."""

    adjacency: Adjacency
    order: Order
    keep: Keep
    join: bool
    centrality: float
    measure: Centrality
    cuts: int | None


@dataclass(frozen=True, eq=False)
class Choice:
    """What was found in an adjacency.

    Attributes:
        system: the adjacency.
        threshold: strength above which a connection is there; ``None`` for a continuous one.
        edges: strengths that entered the order, (n, n).
        order: the order, of a binary adjacency that is not unrolled in time.
        neuron: how irreducible each neuron is, 0 to 1, shape (n,); for a binary adjacency 0 or 1.
        central: centrality of each neuron, 0 to 1, shape (n,).
        score: what each connection is worth, (n, n).
        kept: connections that survive where no number is asked for, (n, n).
    """

    system: System
    threshold: float | None
    edges: Strengths
    order: Preorder | None
    neuron: Strengths
    central: Strengths
    score: Strengths
    kept: Flags


def choose(system: System, how: Settings, threshold: float) -> Choice:
    """The critical connections of an adjacency.

    Args:
        system: the adjacency.
        how: what counts.
        threshold: of the strengths for a binary adjacency, of the score of a connection for a continuous one.

    Raises:
        UsageError: one component holds more than half of the neurons.
    """
    return _binary(system, how, threshold) if how.adjacency is Adjacency.BINARY else _continuous(system, how, threshold)


def _binary(system: System, how: Settings, threshold: float) -> Choice:
    n = system.n
    edges = np.where(system.strengths > threshold, system.strengths, 0.0)
    order = None
    if how.order is Order.TIME:
        test = object_irreducible if how.join else attribute_irreducible
        irreducible, covers = test(cut(edges, 0.0), n), edges > 0
    else:
        if how.order is Order.ACYCLIC:
            edges = forward(edges, acyclic_order(edges))
        order = preorder(cut(edges, 0.0))
        if how.order is Order.SCC:
            refuse_one_component(order)
        irreducible = join_irreducible(order) if how.join else meet_irreducible(order)
        covers = (edges > 0) & _covers(order)
    central = _centrality(system, how, edges)
    neuron = irreducible.astype(np.float64)
    score, kept = _connections(system, how, neuron, central, covers.astype(np.float64), 0.0)
    return Choice(system, threshold, edges, order, neuron, central, score, kept)


def _continuous(system: System, how: Settings, threshold: float) -> Choice:
    edges = system.strengths
    if how.order is Order.TIME:
        found = context_persistence(edges, meet=not how.join, cuts=how.cuts)
    else:
        if how.order is Order.ACYCLIC:
            edges = forward(edges, acyclic_order(edges))
        found = persistence(edges, meet=not how.join, edges=how.keep is Keep.COVER, cuts=how.cuts)
    central = _centrality(system, how, edges)
    cover = np.zeros_like(edges) if found.edge is None else found.edge
    score, kept = _connections(system, how, found.neuron, central, cover, threshold)
    return Choice(system, None, edges, None, found.neuron, central, score, kept)


def _covers(order: Preorder) -> Flags:
    """Pairs (i, j) where the class of i covers that of j, or they are the same."""
    found: Flags = (unpack(order.covers, order.m) | np.eye(order.m, dtype=bool))[
        np.ix_(order.component, order.component)
    ]
    return found


def _centrality(system: System, how: Settings, edges: Strengths) -> Strengths:
    if how.centrality == 0:
        return np.zeros(system.n)
    return np.asarray(how.measure(edges), dtype=np.float64)


def _connections(
    system: System, how: Settings, neuron: Strengths, central: Strengths, cover: Strengths, threshold: float
) -> tuple[Strengths, Flags]:
    """Score and survival of every pair.

    A neuron is worth irr + lambda * centrality. A binary one is critical from 1 on, so that with lambda >= 1 central
    neurons are critical too and below that centrality only settles ties; a continuous one above the threshold. Ends
    that are not judged (inputs, read-outs) have no say; neurons on the diagonal always keep their own feedback in
    `Keep.COVER`, since nothing else implies it.
    """
    inner = system.inner
    worth = neuron + how.centrality * central
    if how.keep is Keep.COVER:
        score = np.where(cover > 0, cover + how.centrality * (central[:, None] + central) / 2, 0.0)
        top = float(score.max(initial=0.0)) or 1.0
        np.fill_diagonal(score, np.where(np.diag(system.possible), top, 0.0))
        return score, score > threshold
    if how.keep is Keep.EITHER:
        judged = np.where(inner, worth, -np.inf)
        score = np.maximum(judged[:, None], judged)
    else:
        judged = np.where(inner, worth, np.inf)
        score = np.minimum(judged[:, None], judged)
    score = np.where(np.isinf(score), 1.0 + how.centrality, score)  # no end is judged
    kept = score >= 1.0 if how.adjacency is Adjacency.BINARY else score > threshold
    return score, kept


def rank(choice: Choice, density: float) -> list[Flags]:
    """Masks of the weights that keep round(density * size) connections of each gate block.

    Ranked by the score of the choice, those of equal score by their own (|w|); dead ones come last.
    """
    out = []
    for block in choice.system.blocks:
        own = np.asarray(block.matrix.scores, dtype=np.float64)
        units = len(block.rows)
        shared = np.where(np.isneginf(own), -np.inf, block.tiled(choice.score))
        keep = np.zeros(own.shape, dtype=bool)
        for k in range(block.matrix.n_gates):
            rows = slice(k * units, (k + 1) * units)
            count = round(density * own[rows].size)
            best = np.lexsort((-own[rows].ravel(), -shared[rows].ravel()))[:count]
            part = np.zeros(own[rows].size, dtype=bool)
            part[best] = True
            keep[rows] = part.reshape(own[rows].shape)
        out.append(keep)
    return out


def masks(choice: Choice) -> list[Flags]:
    """Masks of the weights with all connections that survive."""
    return [block.tiled(choice.kept) & ~np.isneginf(block.matrix.scores) for block in choice.system.blocks]


def density(found: list[Flags]) -> float:
    """Live over all connections."""
    size = sum(m.size for m in found)
    return sum(int(m.sum()) for m in found) / size if size else 0.0


GRID = 33
"""Thresholds that a search looks at before it narrows in."""
STEPS = 12
NEAR = 0.05
"""Largest difference of densities that a search accepts: in a layer of 30 neurons one more counts 0.06 of the pairs."""


def search(system: System, how: Settings, wanted: float) -> Choice:
    """The choice whose density comes closest to ``wanted``: quantiles of the strengths, then bisection between two.

    Raises:
        UsageError: no threshold comes within 0.05; says what can be reached.
    """
    values = np.sort(system.strengths[system.possible & (system.strengths > 0)])
    tried: dict[float, tuple[float, Choice]] = {}
    refused: list[UsageError] = []

    def look(threshold: float) -> None:
        try:
            choice = choose(system, how, threshold)
            tried[threshold] = (density(masks(choice)), choice)
        except UsageError as error:
            refused.append(error)

    tail = 1.0 - 2.0 ** -np.arange(4, 12)  # where few connections are left, each one counts
    for q in np.unique(np.concatenate([np.linspace(0, 1, GRID), tail])):
        look(float(values[min(int(q * len(values)), len(values) - 1)]) if len(values) else 0.0)
    if not tried:
        raise refused[0]
    for _ in range(STEPS):
        best = min(tried, key=lambda t: (abs(tried[t][0] - wanted), t))
        gap = tried[best][0] - wanted
        others = sorted(t for t in tried if (tried[t][0] - wanted) * gap < 0)
        if not gap or not others:
            break
        near = min(others, key=lambda t: abs(t - best))
        look((best + near) / 2)
    best = min(tried, key=lambda t: (abs(tried[t][0] - wanted), t))
    if abs(tried[best][0] - wanted) > NEAR:
        reached = [d for d, _ in tried.values()]
        raise UsageError(
            f"a {how.adjacency.value} lattice that keeps '{how.keep.value}' reaches densities from {min(reached):.3g} "
            f"to {max(reached):.3g}, asked for {wanted:.3g}: choose another keep, adjacency='continuous', or "
            "ranked=True, which ranks the connections"
        )
    return tried[best][1]


def threshold_of_degree(system: System, degree: float) -> float:
    """Strength above which the neurons have ``degree`` connections out on average."""
    values = np.sort(system.strengths[system.possible])[::-1]
    count = round(degree * system.n)
    return float(values[count]) if count < len(values) else 0.0


def threshold_of_quantile(system: System, quantile: float) -> float:
    """Strength that this share of the connections do not exceed; the diagonal does not count."""
    off: NDArray[Any] = system.possible & ~np.eye(system.n, dtype=bool)
    return float(np.quantile(system.strengths[off], quantile)) if off.any() else 0.0
