"""Sparse matrices in a safetensors file that any reader opens."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sparsecirc._files import read_container, write_container
from sparsecirc.errors import FileFormatError, UsageError
from sparsecirc.interchange._matrix import SparseMatrix, canonical

_PARTS = ("values", "indices", "indptr")


def save_sparse(path: str | os.PathLike[str], matrices: Mapping[str, SparseMatrix]) -> None:
    """Write matrices atomically: tensors ``NAME.values``, ``NAME.indices`` and ``NAME.indptr`` (int32 CSR) of each."""
    header = {"matrices": {n: {"shape": list(m.shape), "origin": m.pattern.origin} for n, m in matrices.items()}}
    arrays: dict[str, NDArray[Any]] = {}
    for name, matrix in matrices.items():
        parts = (matrix.values, matrix.pattern.indices, matrix.pattern.indptr)
        arrays |= {f"{name}.{part}": array for part, array in zip(_PARTS, parts, strict=True)}
    write_container(Path(path), "sparse", header, arrays)


def load_sparse(path: str | os.PathLike[str]) -> dict[str, SparseMatrix]:
    """Matrices of a file that `save_sparse` wrote, by name; indices are checked.

    Raises:
        FileFormatError: missing, truncated, of another kind, newer, or its arrays are no CSR matrices.
    """
    header, arrays = read_container(Path(path), "sparse")
    found = {}
    try:
        for name, facts in header["matrices"].items():
            rows, cols = (int(n) for n in facts["shape"])
            values, indices, indptr = (arrays[f"{name}.{part}"] for part in _PARTS)
            found[name] = canonical((rows, cols), indptr, indices, values, str(facts["origin"]))
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise FileFormatError(f"{path} holds no valid sparse matrices: {error}") from error
    return found
