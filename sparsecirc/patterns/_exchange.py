"""Some connections leave a pattern and as many come in: the one step of all rewiring."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    keep = np.ones(pattern.nnz, bool)
    if len(out) and (out.min() < 0 or out.max() >= pattern.nnz):
        raise UsageError(f"position {int(out.max())} is outside a pattern of {pattern.nnz} connections")
    keep[out] = False
    if pattern.nnz - int(keep.sum()) != len(out):
        raise UsageError("a connection is dropped twice: expected each position once")
    if len(new) and (new[0] < 0 or new[-1] >= rows * cols or np.any(np.diff(new) == 0)):
        raise UsageError(f"grown connections of a {rows} x {cols} matrix: expected row * cols + column, each once")
    keys = connection_keys(pattern)
    place = np.searchsorted(keys, new)
    if np.any(keys[np.minimum(place, len(keys) - 1)] == new):
        raise UsageError("a grown connection is alive already: expected one that was dead before this step")
    kept = np.flatnonzero(keep)
    before = np.zeros(pattern.nnz + 1, np.int64)
    np.cumsum(keep, out=before[1:])
    at = before[place] + np.arange(len(new))  # behind the kept ones before it
    old = np.ones(pattern.nnz, bool)
    old[at] = False
    source = np.empty(pattern.nnz, np.int32)
    source[at], source[old] = -1, kept
    indices = np.empty(pattern.nnz, np.int32)
    indices[at], indices[old] = new % max(cols, 1), pattern.indices[kept]
    counts = np.diff(pattern.indptr) - np.bincount(pattern.rows[out], minlength=rows)
    counts += np.bincount(new // max(cols, 1), minlength=rows)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return Pattern(pattern.shape, indptr, indices, pattern.origin), source
