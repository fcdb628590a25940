"""scipy.sparse arrays and matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsecirc.errors import UsageError, missing_extra
from sparsecirc.interchange._matrix import SparseMatrix, blocks_of, canonical, from_blocks


def _sparse() -> Any:
    try:
        import scipy.sparse
    except ImportError as error:
        raise missing_extra("scipy", "bench", "conversion to or from scipy.sparse") from error
    return scipy.sparse


def to_scipy_csr(matrix: SparseMatrix) -> Any:
    """A ``scipy.sparse.csr_array`` on the same memory: values, columns and row pointers are shared.

    The index arrays belong to an immutable pattern and are read-only.
    """
    pattern = matrix.pattern
    return _sparse().csr_array((matrix.values, pattern.indices, pattern.indptr), shape=matrix.shape, copy=False)


def to_scipy_csc(matrix: SparseMatrix) -> Any:
    """A ``scipy.sparse.csc_array``; copies, since its order is another."""
    return to_scipy_csr(matrix).tocsc()


def to_scipy_bsr(matrix: SparseMatrix, block: tuple[int, int]) -> Any:
    """A ``scipy.sparse.bsr_array`` of (height, width) blocks; dead connections inside a stored block become zeros.

    Blocks one row high share the values where they are filled completely; others are copied.

    Raises:
        UsageError: the shape is not a whole number of blocks.
    """
    indptr, columns, blocks = blocks_of(matrix, *block)
    return _sparse().bsr_array((blocks, columns, indptr), shape=matrix.shape, blocksize=block, copy=False)


def from_scipy(array: Any) -> SparseMatrix:
    """Any scipy sparse array or matrix. Stored zeros are live connections; duplicates are summed.

    A CSR array with 32-bit indices and ascending columns shares its memory; blocks of a BSR array become live as a
    whole, and share their values if they are one row high. Everything else is copied.

    Raises:
        UsageError: it is not sparse, or has not two axes.
    """
    sparse = _sparse()
    if not sparse.issparse(array) or array.ndim != 2:
        raise UsageError(f"got {type(array).__name__}, expected a scipy.sparse array or matrix with two axes")
    shape = (int(array.shape[0]), int(array.shape[1]))
    if array.format == "bsr":
        if not array.has_canonical_format:
            array = array.copy()
            array.sum_duplicates()
        return from_blocks(shape, array.indptr, array.indices, array.data)
    csr = array if array.format == "csr" else array.tocsr()
    if not csr.has_sorted_indices or not csr.has_canonical_format:
        csr = csr.copy()
        csr.sum_duplicates()
    data = csr.data if csr.data.flags.c_contiguous else np.ascontiguousarray(csr.data)
    return canonical(shape, csr.indptr, csr.indices, data[: csr.nnz])
