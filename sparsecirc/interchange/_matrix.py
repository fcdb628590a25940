"""`SparseMatrix`: a pattern and the values of its live connections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UsageError
from sparsecirc.ir import Graph

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class SparseMatrix:
    """A (rows, cols) matrix in CSR form. An explicit zero is a live connection whose weight is zero.

    Attributes:
        pattern: the live connections.
        values: their values, shape (nnz,), in the order of ``pattern.indices``.

    Raises:
        UsageError: another number of values than connections.
    """

    pattern: Pattern
    values: Array

    def __post_init__(self) -> None:
        if np.shape(self.values) != (self.pattern.nnz,):
            raise UsageError(f"values have shape {np.shape(self.values)}, the pattern {self.pattern.nnz} connections")

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return self.pattern.shape

    @staticmethod
    def from_dense(weight: ArrayLike, pattern: Pattern | None = None) -> SparseMatrix:
        """Entries of a dense (rows, cols) ``weight`` at ``pattern``; at what is not zero without one."""
        array = np.asarray(weight)
        if array.ndim != 2:
            raise UsageError(f"a matrix has 2 axes, got shape {array.shape}")
        live = Pattern.from_mask(array) if pattern is None else pattern
        return SparseMatrix(live, live.values(array))

    def to_dense(self) -> Array:
        """The whole matrix, zeros included."""
        out = np.zeros(self.shape, self.values.dtype)
        out[self.pattern.rows, self.pattern.indices] = self.values
        return out


def graph_matrices(graph: Graph) -> dict[str, SparseMatrix]:
    """Every weight matrix of a graph by its name, e.g. ``"rnn.l0.hh"``; convolutions as (out, rest)."""
    return {view.name: SparseMatrix.from_dense(view.value, view.pattern) for view in graph.weights()}


def canonical(
    shape: tuple[int, int], indptr: Array, indices: Array, values: Array, origin: str = "unstructured"
) -> SparseMatrix:
    """CSR arrays as they are where columns ascend strictly within each row, else sorted copies.

    Views are made first: a pattern locks its arrays, and the caller's own must stay writable.

    Raises:
        UsageError: the arrays are no CSR structure of ``shape``, or a row names a column twice.
    """
    if indptr.shape != (shape[0] + 1,) or indices.shape != values.shape:
        raise UsageError(
            f"row pointers of shape {indptr.shape}, columns {indices.shape} and values {values.shape} are no CSR "
            f"matrix of {shape[0]} rows"
        )
    counts = np.diff(indptr)
    if len(indptr) and (indptr[0] != 0 or indptr[-1] != len(indices) or np.any(counts < 0)):
        raise UsageError(f"row pointers do not describe {len(indices)} connections in {shape[0]} rows")
    rows = np.repeat(np.arange(shape[0]), counts)
    if np.any((np.diff(indices) <= 0) & (np.diff(rows) == 0)):
        order = np.lexsort((indices, rows))
        indices, values = indices[order], values[order]
        twice = np.flatnonzero((np.diff(indices) == 0) & (np.diff(rows) == 0))
        if twice.size:
            raise UsageError(
                f"row {int(rows[twice[0]])} names column {int(indices[twice[0]])} twice: sum duplicates first"
            )
    if indices.size and int(indices.max()) > np.iinfo(np.int32).max:
        raise UsageError(f"column {int(indices.max())} does not fit 32 bits")
    return SparseMatrix(Pattern(shape, indptr.view(), indices.view(), origin), values)


def transposed(matrix: SparseMatrix) -> SparseMatrix:
    """The (cols, rows) matrix."""
    pattern = matrix.pattern
    return SparseMatrix(pattern.transpose(), matrix.values[np.lexsort((pattern.rows, pattern.indices))])


def blocks_of(matrix: SparseMatrix, height: int, width: int) -> tuple[Array, Array, Array]:
    """(block row pointers, block columns, blocks of shape (n, height, width)) of every block with a live connection.

    Dead connections inside such a block become zeros. Blocks one row high share the memory of ``matrix.values`` where
    they are filled completely.

    Raises:
        UsageError: the shape is not a whole number of blocks.
    """
    rows, cols = matrix.shape
    if height < 1 or width < 1 or rows % height or cols % width:
        raise UsageError(f"{rows} x {cols} is not a whole number of {height} x {width} blocks")
    pattern = matrix.pattern
    across = cols // width
    place = (pattern.rows // height).astype(np.int64) * across + pattern.indices // width
    found, which = np.unique(place, return_inverse=True)
    indptr = np.zeros(rows // height + 1, np.int32)
    np.cumsum(np.bincount(found // max(across, 1), minlength=rows // height), out=indptr[1:])
    columns = (found % max(across, 1)).astype(np.int32)
    if height == 1 and len(found) * width == pattern.nnz:
        return indptr, columns, matrix.values.reshape(-1, 1, width)
    blocks = np.zeros((len(found), height, width), matrix.values.dtype)
    blocks[which, pattern.rows % height, pattern.indices % width] = matrix.values
    return indptr, columns, blocks


def from_blocks(shape: tuple[int, int], indptr: Array, columns: Array, blocks: Array) -> SparseMatrix:
    """Inverse of `blocks_of`: every entry of a block is a live connection; blocks one row high share their memory.

    Raises:
        UsageError: the arrays are no block-compressed matrix of ``shape``.
    """
    if blocks.ndim != 3 or not blocks.shape[1] or not blocks.shape[2]:
        raise UsageError(f"blocks have shape {blocks.shape}: expected (n, height, width)")
    height, width = int(blocks.shape[1]), int(blocks.shape[2])
    if shape[0] % height or shape[1] % width:
        raise UsageError(f"{shape[0]} x {shape[1]} is not a whole number of {height} x {width} blocks")
    sorted_ = canonical((shape[0] // height, shape[1] // width), indptr, columns, np.arange(len(blocks)))
    order, coarse = sorted_.values, sorted_.pattern
    wide = (coarse.indices.astype(np.int64)[:, None] * width + np.arange(width)).astype(np.int32)  # [blocks, width]
    origin = f"block {height}x{width}"
    if height == 1:
        same = blocks if np.array_equal(order, np.arange(len(blocks))) else blocks[order]
        pointers = (coarse.indptr.astype(np.int64) * width).astype(np.int32)
        return SparseMatrix(Pattern(shape, pointers, wide.ravel(), origin), same.reshape(-1))
    rows = (coarse.rows.astype(np.int64)[:, None] * height + np.arange(height))[:, :, None]
    row, column = (np.broadcast_to(a, blocks.shape).ravel() for a in (rows, wide[:, None, :]))
    entry = np.lexsort((column, row))
    pointers = np.zeros(shape[0] + 1, np.int32)
    np.cumsum(np.bincount(row, minlength=shape[0]), out=pointers[1:])
    return SparseMatrix(Pattern(shape, pointers, column[entry], origin), blocks[order].ravel()[entry])
