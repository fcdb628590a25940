"""Sparse matrices of other libraries: a `Pattern` with its values, to and from torch, scipy, N:M metadata and files.

Nothing is copied where the layouts agree: a CSR matrix of ours, of scipy and of torch can be the same memory.
"""

from sparsecirc.interchange._files import load_sparse, save_sparse
from sparsecirc.interchange._matrix import SparseMatrix, graph_matrices
from sparsecirc.interchange._n_m import NMMatrix, from_n_m, to_n_m
from sparsecirc.interchange._scipy import from_scipy, to_scipy_bsr, to_scipy_csc, to_scipy_csr
from sparsecirc.interchange._torch import (
    from_torch,
    from_torch_sparse,
    to_torch_bsr,
    to_torch_coo,
    to_torch_csr,
    to_torch_sparse,
)

__all__ = [
    "NMMatrix",
    "SparseMatrix",
    "from_n_m",
    "from_scipy",
    "from_torch",
    "from_torch_sparse",
    "graph_matrices",
    "load_sparse",
    "save_sparse",
    "to_n_m",
    "to_scipy_bsr",
    "to_scipy_csc",
    "to_scipy_csr",
    "to_torch_bsr",
    "to_torch_coo",
    "to_torch_csr",
    "to_torch_sparse",
]
