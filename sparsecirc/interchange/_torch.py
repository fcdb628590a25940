"""Sparse tensors of torch, and of the torch_sparse package."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.errors import MissingExtraError, UsageError, missing_extra
from sparsecirc.interchange._matrix import SparseMatrix, blocks_of, canonical, from_blocks, transposed

if TYPE_CHECKING:
    from torch import Tensor


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise missing_extra("torch", "torch", "conversion to or from torch's sparse tensors") from error
    return torch


@contextmanager
def _no_remarks() -> Iterator[None]:
    """Without torch's remarks that CSR is in beta, and that a pattern's arrays are read-only, which is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse .* tensor support is in beta state", category=UserWarning)
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        yield


def to_torch_csr(matrix: SparseMatrix) -> Tensor:
    """A sparse CSR tensor on the same memory: values, columns and row pointers (int32) are shared.

    The index tensors belong to an immutable pattern: torch cannot mark them read-only, so do not write to them.
    """
    torch, pattern = _torch(), matrix.pattern
    with _no_remarks():
        parts = (torch.from_numpy(a) for a in (pattern.indptr, pattern.indices, matrix.values))
        made: Tensor = torch.sparse_csr_tensor(*parts, size=matrix.shape, check_invariants=False)
    return made


def to_torch_bsr(matrix: SparseMatrix, block: tuple[int, int]) -> Tensor:
    """A sparse BSR tensor of (height, width) blocks; dead connections inside a stored block become zeros.

    Blocks one row high share the values where they are filled completely; others are copied.

    Raises:
        UsageError: the shape is not a whole number of blocks.
    """
    torch = _torch()
    with _no_remarks():
        parts = (torch.from_numpy(a) for a in blocks_of(matrix, *block))
        made: Tensor = torch.sparse_bsr_tensor(*parts, size=matrix.shape, check_invariants=False)
    return made


def to_torch_coo(matrix: SparseMatrix) -> Tensor:
    """A coalesced sparse COO tensor; the values are shared, its 64-bit indices are new."""
    torch, pattern = _torch(), matrix.pattern
    indices = torch.from_numpy(np.stack([pattern.rows, pattern.indices]).astype(np.int64))
    with _no_remarks():
        values = torch.from_numpy(matrix.values)
    made: Tensor = torch.sparse_coo_tensor(indices, values, matrix.shape, is_coalesced=True, check_invariants=False)
    return made


def from_torch(tensor: Tensor) -> SparseMatrix:
    """A sparse CSR, CSC, BSR, BSC or COO tensor, or what is not zero in a dense one.

    A CSR tensor on the CPU with int32 indices and ascending columns shares its memory, with int64 indices its values;
    a BSR tensor shares its values if its blocks are one row high. Stored zeros and whole blocks are live connections;
    bfloat16, which numpy lacks, becomes float32.

    Raises:
        UsageError: it has not two axes, is batched, or names an entry twice without being coalesced.
    """
    torch = _torch()
    if tensor.dim() != 2:
        raise UsageError(f"tensor has shape {tuple(tensor.shape)}: expected two axes")
    shape = (int(tensor.shape[0]), int(tensor.shape[1]))
    tensor = tensor.detach()
    with _no_remarks():
        if tensor.layout == torch.strided:
            return SparseMatrix.from_dense(_array(torch, tensor))
        if tensor.layout == torch.sparse_coo:
            tensor = tensor.coalesce()
            rows, columns = _array(torch, tensor.indices())
            indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=shape[0]))]).astype(np.int32)
            return canonical(shape, indptr, columns.astype(np.int32), _array(torch, tensor.values()))
        by_column = tensor.layout in (torch.sparse_csc, torch.sparse_bsc)
        pointers = tensor.ccol_indices() if by_column else tensor.crow_indices()
        inner = tensor.row_indices() if by_column else tensor.col_indices()
        indptr, indices, values = (_array(torch, t) for t in (pointers, inner, tensor.values()))
    blocked = tensor.layout in (torch.sparse_bsr, torch.sparse_bsc)
    make = from_blocks if blocked else canonical
    if not by_column:
        return make(shape, indptr, indices, values)
    return transposed(make(shape[::-1], indptr, indices, values.swapaxes(1, 2) if blocked else values))


def _array(torch: Any, tensor: Tensor) -> NDArray[Any]:
    tensor = tensor.cpu()
    array: NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy()
    return array


def to_torch_sparse(matrix: SparseMatrix) -> Any:
    """A ``torch_sparse.SparseTensor``; the values are shared, its 64-bit indices are new."""
    torch, package, pattern = _torch(), _package(), matrix.pattern
    with _no_remarks():
        values = torch.from_numpy(matrix.values)
    return package.SparseTensor(
        rowptr=torch.from_numpy(pattern.indptr.astype(np.int64)),
        col=torch.from_numpy(pattern.indices.astype(np.int64)),
        value=values,
        sparse_sizes=matrix.shape,
        is_sorted=True,
        trust_data=True,
    )


def from_torch_sparse(tensor: Any) -> SparseMatrix:
    """A ``torch_sparse.SparseTensor``; the values are shared. Without values its entries are ones.

    Raises:
        UsageError: it is another type.
    """
    torch, package = _torch(), _package()
    if not isinstance(tensor, package.SparseTensor):
        raise UsageError(f"got {type(tensor).__name__}, expected a torch_sparse.SparseTensor")
    indptr, columns, values = tensor.csr()
    array = np.ones(columns.numel(), np.float32) if values is None else _array(torch, values.detach())
    return canonical((tensor.size(0), tensor.size(1)), _array(torch, indptr), _array(torch, columns), array)


def _package() -> Any:
    try:
        import torch_sparse
    except ImportError as error:
        raise MissingExtraError(
            "conversion to or from torch_sparse.SparseTensor needs the package 'torch-sparse', which is not installed: "
            "pip install torch-sparse, which is compiled for about 15 minutes"
        ) from error
    return torch_sparse
