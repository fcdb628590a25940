"""Windows of the lookups: which weights of a strip of rows are stored together.

The inputs of a window (``cols`` of them) sit in registers, and an index beside each weight picks one. A window begins
at the first column, down to a multiple of ``step``, that any of its ``rows`` rows still has to store, and takes from
each row the next ``depth`` weights (times ``per``, where a vector holds that many of a row) that lie in it::

    strip (4 x 12)               window at 0, depth 1    window at 2             window at 6
    a . . b . . . . . . . .      a c d e  columns        b . f g  columns        . . . h  columns
    . c . . . . . . . . . .               0 1 0 3                1 . 1 4                . . . 5
    d . . f . . . . . . . .
    . . . e . . g . . . . h

Rows that have no weight in a window store a zero in their place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UnsupportedError
from sparsecirc.formats._packed import Packed, Tile, as_given

Ints = NDArray[np.int64]
PADDED = 64
"""Inputs are readable, and zero, up to this multiple."""


@dataclass(frozen=True)
class Windows:
    """Where the live weights of a matrix are stored.

    Attributes:
        tile: the shape of the windows.
        per: weights of each row in a vector.
        ptr: (strips + 1,) windows before each strip.
        base: (windows,) first column over ``step``.
        window, vector, row, slot: (nnz,) of each live weight: its window, the vector in it, its row in the strip and
            its place among the ``per`` of that row.
        column: (nnz,) its column in the window.
    """

    tile: Tile
    per: int
    ptr: NDArray[np.int32]
    base: NDArray[np.uint16]
    window: Ints
    vector: Ints
    row: Ints
    slot: Ints
    column: Ints

    @property
    def place(self) -> Ints:
        """(nnz,) position in an array of (windows, depth, rows, per)."""
        return ((self.window * self.tile.depth + self.vector) * self.tile.rows + self.row) * self.per + self.slot

    @property
    def size(self) -> int:
        """Entries of such an array."""
        return len(self.base) * self.tile.depth * self.tile.rows * self.per


def windows(pattern: Pattern, tiles: tuple[Tile, ...], per: int = 1) -> Windows:
    """The windows of a pattern in the cheapest of ``tiles``."""
    found = [_windows(pattern, tile, per) for tile in tiles]
    return min(found, key=lambda w: len(w.base) * w.tile.price)


def _windows(pattern: Pattern, tile: Tile, per: int) -> Windows:
    """All strips take their k-th window together, so that numpy does the work."""
    (rows, cols), (height, width, step, depth) = pattern.shape, tile
    strips = -(-rows // height)
    padded = max(PADDED, width)
    last = -(-cols // padded) * padded - width
    if last > 65535 * step:
        raise UnsupportedError(f"windows of step {step} reach up to column {65535 * step + width}, got {cols} columns")
    column = np.append(pattern.indices, cols).astype(np.int64)
    none = pattern.nnz  # stands for a row that is done
    end, head = (np.zeros(strips * height, np.int64) for _ in range(2))
    end[:rows], head[:rows] = pattern.indptr[1:], pattern.indptr[:-1]
    order, rank, first = (np.zeros(pattern.nnz, np.int64) for _ in range(3))
    taken = np.zeros(strips, np.int64)
    bases: list[tuple[Ints, Ints]] = []
    while pattern.nnz:
        at = np.where(head < end, head, none)
        begin = column[at].reshape(strips, height).min(axis=1)
        live = np.flatnonzero(begin < cols)
        if not live.size:
            break
        begin = np.minimum(begin // step * step, last)
        bases.append((live, begin[live]))
        limit = np.repeat(begin + width, height)
        for k in range(depth * per):
            at = np.where(head < end, head, none)
            mine = np.flatnonzero((at < none) & (column[at] < limit))
            weight = at[mine]
            order[weight], rank[weight], first[weight] = taken[mine // height], k, begin[mine // height]
            head[mine] += 1
        taken[live] += 1
    ptr = np.concatenate([[0], np.cumsum(taken)])
    base = np.zeros(int(ptr[-1]), np.uint16)
    for k, (strip, begin) in enumerate(bases):
        base[ptr[strip] + k] = begin // step
    row = pattern.rows.astype(np.int64)
    window = ptr[row // height] + order
    return Windows(
        *(tile, per, ptr.astype(np.int32), base, window, rank // per, row % height, rank % per, column[:-1] - first)
    )


def corners(packed: Packed) -> tuple[Ints, Ints]:
    """First row and first column of each window."""
    assert packed.ptr is not None
    assert packed.base is not None
    strip = np.repeat(np.arange(len(packed.ptr) - 1), np.diff(packed.ptr))
    return strip * packed.tile[0], packed.base.astype(np.int64) * packed.step


def scatter(packed: Packed, row: Ints, column: Ints, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The dense weight with ``values`` at their rows (in the padded matrix) and columns; zeros are padding.

    Padding shares a column with a live weight and must not overwrite it; a live weight of zero is zero as well.
    """
    (rows, cols), (height, width) = packed.shape, packed.tile
    out = np.zeros((-(-rows // height) * height, -(-cols // PADDED) * PADDED + width), np.float32)
    live = values != 0
    out[row[live], column[live]] = values[live]
    return as_given(packed, out[:rows, :cols])
