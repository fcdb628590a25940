"""Block-diagonal layout: rows that read the same columns share a strip of up to 16 rows, and its list of columns.

Groups need not lie side by side, nor need a gate have the groups of another. Strips end where their group ends, so a
group of 21 rows takes two of 16 and 5. In a strip every column is 16 weights, one for each row (or a zero)::

    matrix (6 x 6)     groups              strips
    a . b . . .        rows 0 3, cols 0 2   rows 0 3: column 0: a e, column 2: b f
    . c . d . .        rows 1 4, cols 1 3   rows 1 4: column 1: c g, column 3: d h
    . . . . i j        rows 2 5, cols 4 5   rows 2 5: column 4: i k, column 5: j l
    e . f . . .
    . g . h . .
    . . . . k l
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UnsupportedError
from sparsecirc.formats._packed import F32, Format, Packed, as_given

STRIP = 16
"""Most rows of a strip."""

MOST_PADDING = 2.0
"""Stored values per live connection above which a pattern is not taken for block-diagonal."""

Ints = NDArray[np.int64]


def row_groups(pattern: Pattern) -> Ints:
    """(rows,) group of each row: rows with the same columns, or of the same connected part where that pads less."""
    alike, parts = _alike(pattern), _connected(pattern)
    return min((alike, parts), key=lambda group: _stored(pattern, group))


def block_diagonal_padding(pattern: Pattern) -> float:
    """Stored values per live connection in this layout; 1 for an empty pattern."""
    return _stored(pattern, row_groups(pattern)) / pattern.nnz if pattern.nnz else 1.0


def _alike(pattern: Pattern) -> Ints:
    keys = [pattern.indices[a:b].tobytes() for a, b in zip(pattern.indptr[:-1], pattern.indptr[1:], strict=True)]
    names = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    return np.array([names[key] for key in keys], np.int64)


def _connected(pattern: Pattern) -> Ints:
    """Parts of the graph of rows and columns: each takes the smallest row it reaches."""
    rows, cols = pattern.shape
    part = np.arange(rows, dtype=np.int64)
    while pattern.nnz:
        of_column = np.full(cols, rows, np.int64)
        np.minimum.at(of_column, pattern.indices, part[pattern.rows])
        new = part.copy()
        np.minimum.at(new, pattern.rows, of_column[pattern.indices])
        new = new[new]  # a part that joined another takes what that one has found
        if np.array_equal(new, part):
            break
        part = new
    return np.unique(part, return_inverse=True)[1].reshape(rows).astype(np.int64)


def _columns(pattern: Pattern, group: Ints) -> tuple[Ints, Ints]:
    """(group, column) of every column that a group reads, ascending."""
    pairs = np.unique(group[pattern.rows] * np.int64(pattern.shape[1]) + pattern.indices)
    return pairs // max(pattern.shape[1], 1), pairs % max(pattern.shape[1], 1)


def _stored(pattern: Pattern, group: Ints) -> int:
    n = int(group.max(initial=-1)) + 1
    strips = -(-np.bincount(group, minlength=n) // STRIP)
    wide = np.bincount(_columns(pattern, group)[0], minlength=n)
    return int((strips * wide).sum()) * STRIP


def _pack(pattern: Pattern, weight: F32) -> Packed:
    rows, cols = pattern.shape
    if rows > 65535:
        raise UnsupportedError(f"format 'block_diagonal' counts up to 65535 rows, got {rows}: use lookup or csr")
    group = row_groups(pattern)
    order = np.argsort(group, kind="stable")
    size = np.bincount(group, minlength=int(group.max(initial=-1)) + 1)
    strips = -(-size // STRIP)
    owner = np.repeat(np.arange(len(size)), strips)  # group of each strip
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(strips) - strips, strips)
    height = np.minimum(size[owner] - rank * STRIP, STRIP)
    base = np.concatenate([[0], np.cumsum(height)])
    of, column = _columns(pattern, group)
    wide = np.bincount(of, minlength=len(size))
    starts = np.concatenate([[0], np.cumsum(wide)])
    ptr = np.concatenate([[0], np.cumsum(wide[owner])])
    index = np.concatenate([column[starts[g] : starts[g] + wide[g]] for g in owner] or [np.zeros(0, np.int64)])
    strip = np.repeat(np.arange(len(owner)), wide[owner])
    row = base[strip][:, None] + np.arange(STRIP)  # in the order of the matrix
    inside = row < base[strip + 1][:, None]
    source = order[np.where(inside, row, 0)] if rows else row
    values = np.where(inside, pattern.apply(weight)[source, index[:, None]], np.float32(0)) if rows and cols else row
    moved = None if np.array_equal(order, np.arange(rows)) else order.astype(np.int32)
    return Packed(
        *("block_diagonal", pattern.shape, pattern.nnz, values.astype(np.float32).ravel()),
        ptr=ptr.astype(np.int32),
        index32=index.astype(np.int32),
        base=base.astype(np.uint16),
        order=moved,
    )


def _unpack(packed: Packed) -> F32:
    assert packed.ptr is not None
    assert packed.index32 is not None
    assert packed.base is not None
    rows, cols = packed.shape
    out = np.zeros((rows + STRIP, cols), np.float32)
    strip = np.repeat(np.arange(len(packed.ptr) - 1), np.diff(packed.ptr))
    row = packed.base.astype(np.int64)[strip][:, None] + np.arange(STRIP)
    inside = row < packed.base.astype(np.int64)[strip + 1][:, None]
    column = np.broadcast_to(packed.index32[:, None], row.shape)
    out[row[inside], column[inside]] = packed.values.reshape(-1, STRIP)[inside]
    return as_given(packed, out[:rows])


BLOCK_DIAGONAL = Format("block_diagonal", _pack, _unpack)
