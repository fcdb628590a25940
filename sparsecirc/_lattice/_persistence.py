"""How long a neuron stays irreducible while ever weaker edges are let in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._lattice._bits import Flags
from sparsecirc._lattice._widest import Strengths, checked, widest_paths
from sparsecirc.errors import UsageError


@dataclass(frozen=True)
class Persistence:
    """Shares of the threshold range in which a property holds; all values lie in [0, 1].

    Attributes:
        neuron: an element is irreducible, shape (n,).
        edge: an edge is a cover or lies inside a component, shape (n, n); ``None`` where it was not asked for.
        cuts: how many orders were looked at.
        exact: whether these are all the different ones.
    """

    neuron: Strengths
    edge: Strengths | None
    cuts: int
    exact: bool


def persistence(
    strengths: NDArray[Any], *, meet: bool = True, edges: bool = False, cuts: int | None = None
) -> Persistence:
    r"""How much of the threshold range (0, max S] an element is irreducible in, and an edge is not implied by others.

    .. math:: \mathrm{irr}(p) = \int_0^1 [\,p \text{ irreducible in } \{C \ge \alpha\}\,]\, d\alpha

    with C the closure of A = S / max S by :func:`widest_paths`, whose cuts are nested preorders. Equals the test of the
    binary relation where S is 0 or 1. Our definition of the continuous adjacency of lattice pruning, checked against
    brute-force concept lattices of every cut; the paper (Sengupta 2025, arXiv:2502.16525) gives none in what could be
    read.

    Args:
        strengths: (n, n), 0 or more.
        meet: meet-irreducible elements, else join-irreducible ones.
        edges: also for edges (costs a second matrix product per cut).
        cuts: look at no more than so many orders: at all different ones if there are fewer, else at those in the middle
            of so many equal parts of the range. ``None`` is all of them. Time O(n^3) a cut.

    Raises:
        UsageError: a strength is negative or not finite, or ``cuts`` is below 1.
    """
    s = checked(strengths)
    n = len(s)
    np.fill_diagonal(s, 0.0)
    closure = widest_paths(s)
    slices, exact = _slices(closure[np.isfinite(closure)], cuts)
    neuron, edge = np.zeros(n), np.zeros((n, n)) if edges else None
    top = slices[-1][2]
    for level, low, high in slices:
        below = closure >= level  # row i: what is below i, itself included
        neuron += (high - low) / top * _irreducible(below if meet else below.T)
        if edge is not None:  # an edge is there up to its own strength
            edge += np.clip(s - low, 0.0, high - low) / top * _kept(below)
    return Persistence(neuron, edge, len(slices), exact)


def context_persistence(strengths: NDArray[Any], *, meet: bool = True, cuts: int | None = None) -> Persistence:
    """The same for one step unrolled in time: no closure, the cuts are formal contexts.

    Targets are attributes and sources objects, see :func:`attribute_irreducible`; no cycle can arise, since a neuron at
    one step and at the next are two elements. No edge is implied by others, so that each persists as far as it is
    strong, S / max S. Our definition.

    Args:
        strengths: (n, n), 0 or more.
        meet: irreducible attributes (targets), else irreducible objects (sources).
        cuts: as for :func:`persistence`; here every different strength is another cut.

    Raises:
        UsageError: as :func:`persistence`.
    """
    s = checked(strengths)
    np.fill_diagonal(s, 0.0)
    slices, exact = _slices(s, cuts)
    neuron, top = np.zeros(len(s)), slices[-1][2]
    for level, low, high in slices:
        extents = s >= level
        neuron += (high - low) / top * _irreducible_rows(extents if meet else extents.T)
    return Persistence(neuron, s / top, len(slices), exact)


def _slices(values: NDArray[Any], cuts: int | None) -> tuple[list[tuple[float, float, float]], bool]:
    """Parts of the range (0, max]: (level to cut at, lower end, upper end), and whether they are all different cuts."""
    if cuts is not None and cuts < 1:
        raise UsageError(f"cuts is {cuts}: expected 1 or more, or None for every different order")
    levels = np.unique(values[values > 0])
    if not len(levels):  # no edge at all: one cut without any
        return [(1.0, 0.0, 1.0)], True
    exact = cuts is None or len(levels) <= cuts
    ends = np.concatenate([[0.0], levels]) if exact else np.linspace(0.0, levels[-1], (cuts or 0) + 1)
    if not exact:
        levels = (ends[:-1] + ends[1:]) / 2
    return list(zip(levels.tolist(), ends[:-1].tolist(), ends[1:].tolist(), strict=True)), exact


def _irreducible(below: Flags) -> Flags:
    """Meet-irreducible elements of a preorder given as flags: some x is missing below p, and below nothing above p."""
    above = (below & ~below.T).T  # row p: what is strictly above p
    return _lacking(above, below)


def _irreducible_rows(extents: Flags) -> Flags:
    """Irreducible attributes of a context given as flags, a row each."""
    outside = extents.astype(np.float32) @ (~extents).T.astype(np.float32)  # [p, q] objects of p that q has not
    contains = outside == 0
    return _lacking(contains & ~contains.T, extents)


def _lacking(above: Flags, sets: Flags) -> Flags:
    """Rows p such that some x is not in set p, and in every set that ``above[p]`` names."""
    missing = above.astype(np.float32) @ (~sets).astype(np.float32)  # [p, x] sets above p without x
    found: Flags = np.any(~sets & (missing == 0), axis=1)
    return found


def _kept(below: Flags) -> Flags:
    """Pairs (i, j) where i covers j, or both are equivalent."""
    strictly = below & ~below.T
    between = strictly.astype(np.float32) @ strictly.astype(np.float32)
    found: Flags = (strictly & (between == 0)) | (below & below.T)
    return found
