"""Some connections leave a pattern and as many come in: the one step of all rewiring."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc._native import kernels
from sparsecirc._pattern import IntArray, Pattern
from sparsecirc.errors import UsageError


def connection_keys(pattern: Pattern) -> NDArray[np.int64]:
    """Row * cols + column of each live connection, ascending, (nnz,)."""
    return pattern.rows.astype(np.int64) * pattern.shape[1] + pattern.indices


def exchange(pattern: Pattern, drop: ArrayLike, grow: ArrayLike) -> tuple[Pattern, IntArray]:
    """The pattern after a rewiring step, and where each of its connections was before.

    Costs O(nnz); nothing of the size of the matrix is made.

    Args:
        pattern: the live connections.
        drop: positions in the order of the pattern, each at most once.
        grow: row * cols + column of connections that are not alive, each at most once, as many as are dropped.

    Returns:
        The new pattern, and for each of its connections the position it had, or -1 where it has grown; (nnz,).

    Raises:
        UsageError: the numbers differ, a position is unknown or named twice, or a grown connection is alive or named
            twice.
    """
    rows, cols = pattern.shape
    out, new = np.asarray(drop, np.int64).ravel(), np.sort(np.asarray(grow, np.int64).ravel())
    if len(out) != len(new):
        raise UsageError(f"{len(out)} connections are dropped and {len(new)} grow: expected as many")
    if len(out) and (out.min() < 0 or out.max() >= pattern.nnz):
        raise UsageError(f"position {int(out.max())} is outside a pattern of {pattern.nnz} connections")
    leaves = np.zeros(pattern.nnz, np.uint8)
    leaves[out] = 1
    if int(leaves.sum()) != len(out):
        raise UsageError("a connection is dropped twice: expected each position once")
    indptr, (indices, source) = np.empty(rows + 1, np.int32), np.empty((2, pattern.nnz), np.int32)
    wrong = kernels.exchange(cols, pattern.indptr, pattern.indices, leaves, new, indptr, indices, source)
    if wrong >= 0:
        raise UsageError(
            f"connection {int(new[wrong])} cannot grow: expected row * cols + column in a {rows} x {cols} matrix, each "
            "once, of one that was dead before this step"
        )
    return Pattern(pattern.shape, indptr, indices, pattern.origin), source
