"""Layouts of one weight matrix in C: the smallest one in bytes is taken.

A *line* is a row (or a block of rows) for products with real inputs, a column for inputs that are spikes: a silent
column is then skipped as a whole. Either way a sum runs over ascending columns, so both give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.export.c._options import Index

_BLOCKS = (16, 8, 4)


class Layout(str, Enum):
    """How the entries of a matrix lie in memory."""

    DENSE = "dense"
    SPARSE = "sparse"
    RUNS = "runs"


@dataclass(frozen=True, eq=False)
class Packed:
    """A matrix as arrays.

    Attributes:
        layout_kind: which of the three forms the arrays have.
        values: float32 or words, in the order in which the loop reads them.
        index: ``SPARSE``: position of each value (or tile) along its line. ``RUNS``: for each group of equal lines
            their number, the number of runs, then first and length of each run. ``None`` where every entry is stored.
        count: ``SPARSE``: values (or tiles) per line.
        gaps: whether ``index`` holds distances to the previous entry instead of positions.
        rows_per_tile: 1, or the height of the row blocks.
        by_column: whether lines are columns, for spike inputs.
        shape: (rows, cols) of the matrix.
        nnz: live connections.
        groups: ``RUNS``: groups of lines.
    """

    layout_kind: Layout
    values: NDArray[Any]
    index: NDArray[Any] | None
    count: NDArray[Any] | None
    gaps: bool
    rows_per_tile: int
    by_column: bool
    shape: tuple[int, int]
    nnz: int
    groups: int = 0

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
        if self.layout_kind is Layout.RUNS:
            return f"runs of {lines}, {self.groups} groups, u{8 * self.index.itemsize} index"
        across = "row" if self.by_column else "column"
        tile = f"{self.rows_per_tile}x1 tiles, " if self.rows_per_tile > 1 else ""
        kind = f"{across} gaps" if self.gaps else f"{across}s"
        return f"sparse {lines}, {tile}u{8 * self.index.itemsize} {kind}, u{8 * self.count_dtype.itemsize} counts"

    @property
    def count_dtype(self) -> np.dtype[Any]:
        """Type of ``count``; uint8 for a layout without one."""
        return np.dtype(np.uint8) if self.count is None else self.count.dtype


def _smallest_unsigned(largest: int) -> np.dtype[Any]:
    return np.dtype(np.uint8 if largest < 1 << 8 else np.uint16 if largest < 1 << 16 else np.uint32)


def _with_gaps(
    line: NDArray[Any], at: NDArray[Any], tiles: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Distances in u8: a distance beyond 255 becomes steps of 255 over zero weights."""
    first = np.ones(len(at), dtype=bool)
    first[1:] = line[1:] != line[:-1]
    gap = np.where(first, at, at - np.roll(at, 1))
    steps = np.maximum(gap - 1, 0) // 255
    last = np.cumsum(steps + 1) - 1
    index = np.full(int((steps + 1).sum()), 255, dtype=np.uint8)
    index[last] = gap - 255 * steps
    padded = np.zeros((len(index), tiles.shape[1]), dtype=tiles.dtype)
    padded[last] = tiles
    return np.repeat(line, steps + 1), index, padded


def _sparse(weight: NDArray[Any], pattern: Pattern, r: int, by_column: bool, gaps: bool) -> Packed:
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
    counted = np.bincount(line, minlength=lines)
    count = counted.astype(_smallest_unsigned(int(counted.max(initial=0))))
    return Packed(Layout.SPARSE, tiles.ravel(), index, count, gaps, r, by_column, (rows, cols), pattern.nnz)


def _runs(weight: NDArray[Any], pattern: Pattern, by_column: bool) -> Packed:
    """Adjacent lines with equal columns in one group; a run of columns by its first and its length."""
    live = pattern.mask()
    lines = np.ascontiguousarray(live.T if by_column else live)
    starts = np.flatnonzero(np.r_[True, np.any(lines[1:] != lines[:-1], axis=1)])
    heights = np.diff(np.r_[starts, len(lines)])
    numbers: list[int] = []
    for start, height in zip(starts.tolist(), heights.tolist(), strict=True):
        edges = np.flatnonzero(np.diff(np.r_[0, lines[start].astype(np.int8), 0])).reshape(-1, 2)  # [runs, from and to]
        numbers += [height, len(edges)]
        for first, end in edges.tolist():
            numbers += [first, end - first]
    index = np.array(numbers, dtype=_smallest_unsigned(max(numbers)))
    values = (weight.T if by_column else weight)[lines]
    shape = weight.shape[0], weight.shape[1]
    return Packed(Layout.RUNS, values, index, None, False, 1, by_column, shape, pattern.nnz, len(starts))


@dataclass(frozen=True, eq=False)
class Table:
    """Live entries of a table, row by row, for single rows to be looked up.

    Attributes:
        values: in the order of the rows.
        index: column of each.
        start: first entry of each row, and one past the last.
    """

    values: NDArray[Any]
    index: NDArray[Any]
    start: NDArray[Any]

    @property
    def bytes(self) -> int:
        """Bytes of all arrays."""
        return self.values.nbytes + self.index.nbytes + self.start.nbytes


def pack_table(weight: NDArray[Any], pattern: Pattern, index: Index = Index.AUTO) -> Table | None:
    """The live entries of ``weight`` (rows, cols), or ``None`` where all of it takes no more bytes."""
    live = pattern.mask()
    if index is Index.NONE or live.all():
        return None
    row, col = np.nonzero(live)
    ends = np.r_[0, np.cumsum(np.bincount(row, minlength=len(weight)))]
    found = Table(
        weight[live],
        col.astype(_smallest_unsigned(weight.shape[1] - 1)),
        ends.astype(_smallest_unsigned(int(ends[-1]))),
    )
    return found if index is not Index.AUTO or found.bytes < weight.nbytes else None


def pack(weight: NDArray[Any], pattern: Pattern, *, by_column: bool, index: Index = Index.AUTO) -> Packed:
    """The layout of ``weight`` (rows, cols) with the fewest bytes; of equal ones the one with the simplest loop.

    Dead connections must be exact zeros. Candidates: dense; runs of columns shared by groups of rows; row tiles of 16,
    8 or 4 x 1 where ``pattern`` consists of them; single values; the last two with positions, or with u8 distances
    where positions need more than 8 bits. ``index`` other than ``AUTO`` leaves one of these kinds.
    """
    rows, cols = weight.shape
    flat = np.ascontiguousarray(weight.T if by_column else weight).ravel()
    dense = Packed(Layout.DENSE, flat, None, None, False, 1, by_column, (rows, cols), pattern.nnz)
    if pattern.nnz in (0, rows * cols) or index is Index.NONE:
        return dense
    found = [dense] if index is Index.AUTO else []
    if index in (Index.AUTO, Index.RUNS):
        found.append(_runs(weight, pattern, by_column))
    tile = pattern.block_shape([(r, 1) for r in _BLOCKS])[0]
    for r in dict.fromkeys((tile, 1)):
        width = rows // r if by_column else cols
        if index in (Index.AUTO, Index.ABSOLUTE):
            found.append(_sparse(weight, pattern, r, by_column, gaps=False))
        if index is Index.GAPS or (index is Index.AUTO and width > 256):
            found.append(_sparse(weight, pattern, r, by_column, gaps=True))
    return min(found, key=lambda p: p.bytes)


def pack_rows(weight: NDArray[Any], pattern: Pattern, index: Index = Index.AUTO) -> Packed:
    """``weight`` (rows, cols) by rows without tiles and runs, for loops that look up what a column is: as `pack`."""
    dense = Packed(
        Layout.DENSE, weight.ravel(), None, None, False, 1, False, (len(weight), weight.shape[1]), pattern.nnz
    )
    if pattern.nnz in (0, weight.size) or index is Index.NONE:
        return dense
    found = [] if index in (Index.ABSOLUTE, Index.GAPS) else [dense]
    if index is not Index.GAPS:
        found.append(_sparse(weight, pattern, 1, False, gaps=False))
    if index is Index.GAPS or (index is not Index.ABSOLUTE and weight.shape[1] > 256):
        found.append(_sparse(weight, pattern, 1, False, gaps=True))
    return min(found, key=lambda p: p.bytes)
