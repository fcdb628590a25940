"""Layouts of one weight matrix in C: the smallest one in bytes is taken.

A *line* is a row (or a block of rows) for products with real inputs, a column for inputs that are spikes: a silent
column is then skipped as a whole. Either way a sum runs over ascending columns, so both give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern

_BLOCKS = (16, 8, 4)
_UNSIGNED = {np.dtype(np.uint8): "uint8_t", np.dtype(np.uint16): "uint16_t", np.dtype(np.uint32): "uint32_t"}


@dataclass(frozen=True, eq=False)
class Packed:
    """A matrix as arrays.

    Attributes:
        values: float32, in the order in which the loop reads them.
        index: position of each value (or tile) along its line, or ``None`` where every entry is stored.
        count: values (or tiles) per line, with ``index``.
        gaps: whether ``index`` holds distances to the previous entry instead of positions.
        rows_per_tile: 1, or the height of the row blocks.
        by_column: whether lines are columns, for spike inputs.
        shape: (rows, cols) of the matrix.
        nnz: live connections.
    """

    values: NDArray[np.float32]
    index: NDArray[Any] | None
    count: NDArray[Any] | None
    gaps: bool
    rows_per_tile: int
    by_column: bool
    shape: tuple[int, int]
    nnz: int

    @property
    def bytes(self) -> int:
        """Bytes of all arrays."""
        return self.values.nbytes + sum(a.nbytes for a in (self.index, self.count) if a is not None)

    @property
    def layout(self) -> str:
        """The choice in words."""
        lines = "columns" if self.by_column else "rows"
        if self.index is None:
            return f"dense, by {lines}"
        across = "row" if self.by_column else "column"
        tile = f"{self.rows_per_tile}x1 tiles, " if self.rows_per_tile > 1 else ""
        kind = f"{across} gaps" if self.gaps else f"{across}s"
        return f"sparse {lines}, {tile}u{8 * self.index.itemsize} {kind}, u{8 * self.count_dtype.itemsize} counts"

    @property
    def count_dtype(self) -> np.dtype[Any]:
        """Type of ``count``; uint8 for a dense matrix, which has none."""
        return np.dtype(np.uint8) if self.count is None else self.count.dtype

    @property
    def snippet(self) -> tuple[str, str, dict[str, object]]:
        """File of ``runtime/``, suffix of the function's name and values to fill in."""
        verb = "add" if self.by_column else "dot"
        if self.index is None:
            return f"{verb}_dense.c", f"{verb}_dense", {}
        shape = "block" if self.rows_per_tile > 1 else "sparse"
        across = ("block of rows" if shape == "block" else "row") if self.by_column else "column"
        values: dict[str, object] = {
            "index_t": _UNSIGNED[self.index.dtype],
            "count_t": _UNSIGNED[self.count_dtype],
            "step": "+=" if self.gaps else "=",
            "meaning": f"distance from the previous {across}" if self.gaps else across,
            "r": self.rows_per_tile,
        }
        tile = f"_{self.rows_per_tile}x1" if shape == "block" else ""
        bits = f"{'gap' if self.gaps else 'at'}{8 * self.index.itemsize}_n{8 * self.count_dtype.itemsize}"
        return f"{verb}_{shape}.c", f"{verb}{tile}_{bits}", values


def _smallest_unsigned(largest: int) -> np.dtype[Any]:
    return np.dtype(np.uint8 if largest < 1 << 8 else np.uint16 if largest < 1 << 16 else np.uint32)


def _with_gaps(
    line: NDArray[Any], at: NDArray[Any], tiles: NDArray[np.float32]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]:
    """Distances in u8: a distance beyond 255 becomes steps of 255 over zero weights."""
    first = np.ones(len(at), dtype=bool)
    first[1:] = line[1:] != line[:-1]
    gap = np.where(first, at, at - np.roll(at, 1))
    steps = np.maximum(gap - 1, 0) // 255
    last = np.cumsum(steps + 1) - 1
    index = np.full(int((steps + 1).sum()), 255, dtype=np.uint8)
    index[last] = gap - 255 * steps
    padded = np.zeros((len(index), tiles.shape[1]), dtype=np.float32)
    padded[last] = tiles
    return np.repeat(line, steps + 1), index, padded


def _sparse(
    weight: NDArray[np.float32], pattern: Pattern, r: int, by_column: bool, gaps: bool
) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any]]:
    rows, cols = weight.shape
    live = pattern.mask()[::r]  # [rows / r, cols]: every row of a tile has the same columns
    if by_column:
        line, at = np.nonzero(live.T)
        tiles = weight.reshape(rows // r, r, cols).transpose(0, 2, 1)[at, line]
        lines, width = cols, rows // r
    else:
        line, at = np.nonzero(live)
        tiles = weight.reshape(rows // r, r, cols).transpose(0, 2, 1)[line, at]
        lines, width = rows // r, cols
    if gaps:
        line, index, tiles = _with_gaps(line, at, tiles)
    else:
        index = at.astype(_smallest_unsigned(width - 1))
    count = np.bincount(line, minlength=lines)
    return tiles.ravel(), index, count.astype(_smallest_unsigned(int(count.max(initial=0))))


def pack(weight: NDArray[np.float32], pattern: Pattern, *, by_column: bool) -> Packed:
    """The layout of ``weight`` (rows, cols) with the fewest bytes; of equal ones the one with the simplest loop.

    Dead connections must be exact zeros. Candidates: dense; row tiles of 16, 8 or 4 x 1 where ``pattern`` consists of
    them; single values; the last two with positions, or with u8 distances where positions need more than 8 bits.
    """
    rows, cols = weight.shape
    dense = np.ascontiguousarray(weight.T if by_column else weight).ravel()
    best = Packed(dense, None, None, False, 1, by_column, (rows, cols), pattern.nnz)
    if pattern.nnz in (0, rows * cols):
        return best
    tile = pattern.block_shape([(r, 1) for r in _BLOCKS])[0]
    for r in dict.fromkeys((tile, 1)):
        width = rows // r if by_column else cols
        for gaps in (False, True) if width > 256 else (False,):
            values, index, count = _sparse(weight, pattern, r, by_column, gaps)
            packed = Packed(values, index, count, gaps, r, by_column, (rows, cols), pattern.nnz)
            best = min(best, packed, key=lambda p: p.bytes)
    return best
