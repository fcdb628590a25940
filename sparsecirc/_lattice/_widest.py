"""Graded orders: the widest path between every two neurons."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._lattice._bits import pack, unpack
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
    s = checked(strengths)
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


def checked(strengths: NDArray[Any]) -> Strengths:
    """A float64 copy of a square matrix of strengths."""
    s = np.array(strengths, dtype=np.float64)
    if s.ndim != 2 or s.shape[0] != s.shape[1]:
        raise UsageError(f"strengths have shape {s.shape}: expected a square matrix")
    if not np.all(np.isfinite(s)) or s.min(initial=0.0) < 0:
        raise UsageError(
            "strengths hold negative, infinite or NaN entries: expected |w|, or another score of 0 or more"
        )
    return s
