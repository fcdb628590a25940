"""Graded orders: widest paths, and how long a neuron stays irreducible while weak edges are let in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._lattice._bits import Flags, pack, unpack
from sparsecirc.errors import UsageError

Strengths = NDArray[np.float64]
BATCH = 4096
"""Edges that are tested at once for being implied by stronger ones."""


def widest_paths(strengths: NDArray[Any]) -> Strengths:
    r"""Max-min closure: the largest s such that j reaches i over edges of strength s or more.

    .. math:: C_{ij} = \max_{\text{paths } j \to i} \; \min_{\text{edges on it}} S

    Edges are let in from the strongest to the weakest; one that joins what is joined already is passed over, any other
    closes all pairs that it newly joins. Only the edges of the second kind cost time, O(n^2 / 64) each, and they are
    few: for random strengths about 2 n, and 13 n to 20 n once they are oriented without cycles.

    Args:
        strengths: (n, n), 0 or more, entry (i, j) of the edge from j to i; 0 is no edge.

    Returns:
        C of shape (n, n), infinite on the diagonal, 0 where there is no path.

    Raises:
        UsageError: a strength is negative or not finite.
    """
    s = _checked(strengths)
    n = len(s)
    closure = np.zeros((n, n))
    np.fill_diagonal(closure, np.inf)
    np.fill_diagonal(s, 0.0)
    flat = s.ravel()
    edges = np.flatnonzero(flat)
    edges = edges[np.argsort(-flat[edges], kind="stable")]
    reach = np.eye(n, dtype=bool)
    down = pack(reach)
    for start in range(0, len(edges), BATCH):
        rest = edges[start : start + BATCH]
        while True:
            rest = rest[~reach.ravel()[rest]]
            if not len(rest):
                break
            i, j = divmod(int(rest[0]), n)
            above = np.flatnonzero(reach[:, i] & ~reach[:, j])
            fresh = down[j] & ~down[above]
            at, word = np.nonzero(fresh)  # most words hold nothing new
            which, bit = np.nonzero(unpack(fresh[at, word][:, None], 64))
            pairs = above[at[which]] * n + 64 * word[which] + bit
            closure.ravel()[pairs] = flat[rest[0]]
            reach.ravel()[pairs] = True
            down[above] |= down[j]
            rest = rest[1:]
    return closure


def _checked(strengths: NDArray[Any]) -> Strengths:
    s = np.array(strengths, dtype=np.float64)
    if s.ndim != 2 or s.shape[0] != s.shape[1]:
        raise UsageError(f"strengths have shape {s.shape}: expected a square matrix")
    if not np.all(np.isfinite(s)) or s.min(initial=0.0) < 0:
        raise UsageError(
            "strengths hold negative, infinite or NaN entries: expected |w|, or another score of 0 or more"
        )
    return s


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
    if cuts is not None and cuts < 1:
        raise UsageError(f"cuts is {cuts}: expected 1 or more, or None for every different order")
    s = _checked(strengths)
    n = len(s)
    np.fill_diagonal(s, 0.0)
    closure = widest_paths(s)
    values = np.unique(closure[(closure > 0) & np.isfinite(closure)])
    neuron, edge = np.zeros(n), np.zeros((n, n)) if edges else None
    if not len(values):  # no edge at all: an antichain at every level
        return Persistence(np.full(n, float(n > 1)), edge, 1, True)
    top = values[-1]
    if cuts is None or len(values) <= cuts:
        levels, ends = values, np.concatenate([[0.0], values])
    else:
        levels, ends = (np.arange(cuts) + 0.5) / cuts * top, np.arange(cuts + 1) / cuts * top
    for level, low, high in zip(levels, ends[:-1], ends[1:], strict=True):
        below = closure >= level  # row i: what is below i, itself included
        neuron += (high - low) / top * _irreducible(below if meet else below.T)
        if edge is not None:  # an edge is there up to its own strength
            edge += np.clip(s - low, 0.0, high - low) / top * _kept(below)
    return Persistence(neuron, edge, len(levels), len(levels) == len(values))


def _irreducible(below: Flags) -> Flags:
    """Meet-irreducible elements of a preorder given as flags: some x is missing below p, and below nothing above p."""
    above = (below & ~below.T).T  # row p: what is strictly above p
    missing = above.astype(np.float32) @ (~below).astype(np.float32)  # [p, x] elements above p that x is not below
    found: Flags = np.any(~below & (missing == 0), axis=1)
    return found


def _kept(below: Flags) -> Flags:
    """Pairs (i, j) where i covers j, or both are equivalent."""
    strictly = below & ~below.T
    between = strictly.astype(np.float32) @ strictly.astype(np.float32)
    found: Flags = (strictly & (between == 0)) | (below & below.T)
    return found
