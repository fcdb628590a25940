"""`Pattern`: which connections of one weight matrix are alive."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc.errors import UsageError

IntArray = NDArray[np.int32]
BoolArray = NDArray[np.bool_]


def permutation(order: ArrayLike, n: int, what: str) -> IntArray:
    """``order`` as int32 (n,).

    Raises:
        UsageError: it does not hold each of 0 .. n - 1 once.
    """
    array = np.asarray(order)
    if array.shape != (n,) or (n and array.dtype.kind not in "iu") or np.any(np.sort(array) != np.arange(n)):
        raise UsageError(f"an order of shape {array.shape} is no permutation of {n} {what}: expected each of them once")
    return np.ascontiguousarray(array, np.int32)


@dataclass(frozen=True, eq=False)
class Pattern:
    r"""Immutable set of live connections of one (rows, cols) = (out, in) matrix, in CSR form.

    Row ``i`` holds the columns ``indices[indptr[i]:indptr[i + 1]]``, strictly ascending. Weights of more than two
    axes (convolutions) are patterned as (out, product of the rest).

    Attributes:
        shape: (rows, cols).
        indptr: row pointers, int32 of shape (rows + 1,).
        indices: column of each live connection, int32 of shape (nnz,).
        origin: what made it, e.g. ``"unstructured"``, ``"block 16x1"``, ``"2:4"``.

    Raises:
        UsageError: pointers or columns are not a valid CSR structure of ``shape``.
    """

    shape: tuple[int, int]
    indptr: IntArray
    indices: IntArray
    origin: str = field(default="unstructured")

    def __post_init__(self) -> None:
        rows, cols = (int(n) for n in self.shape)
        indptr = np.ascontiguousarray(self.indptr, dtype=np.int32)
        indices = np.ascontiguousarray(self.indices, dtype=np.int32)
        if rows < 0 or cols < 0:
            raise UsageError(f"pattern shape {(rows, cols)} has a negative size")
        if indptr.shape != (rows + 1,) or indptr[0] != 0 or indptr[-1] != len(indices) or np.any(np.diff(indptr) < 0):
            raise UsageError(
                f"row pointers of shape {indptr.shape} do not describe {len(indices)} connections in {rows} rows"
            )
        if len(indices):
            if indices.min() < 0 or indices.max() >= cols:
                raise UsageError(f"pattern column {int(indices.max())} is outside a matrix of {cols} columns")
            starts = np.zeros(len(indices), dtype=bool)
            starts[indptr[:-1][indptr[:-1] < len(indices)]] = True
            if np.any(~starts[1:] & (np.diff(indices) <= 0)):
                raise UsageError("pattern columns must be strictly ascending within each row")
        indptr.setflags(write=False)
        indices.setflags(write=False)
        object.__setattr__(self, "shape", (rows, cols))
        object.__setattr__(self, "indptr", indptr)
        object.__setattr__(self, "indices", indices)

    # ---- makers -------------------------------------------------------------------------------------------------
    @staticmethod
    def from_mask(mask: ArrayLike, origin: str = "unstructured") -> Pattern:
        """Pattern of the non-zero entries of ``mask``; axes after the first are flattened."""
        array = np.asarray(mask)
        if array.ndim == 0:
            raise UsageError("a mask needs at least one axis, got a scalar")
        flat = array.reshape(1, -1) if array.ndim == 1 else array.reshape(array.shape[0], int(np.prod(array.shape[1:])))
        live = flat != 0
        indptr = np.zeros(flat.shape[0] + 1, dtype=np.int32)
        np.cumsum(live.sum(axis=1), out=indptr[1:])
        return Pattern((flat.shape[0], flat.shape[1]), indptr, np.nonzero(live)[1].astype(np.int32), origin)

    @staticmethod
    def full(rows: int, cols: int) -> Pattern:
        """Every connection alive."""
        indptr = np.arange(rows + 1, dtype=np.int32) * cols
        return Pattern((rows, cols), indptr, np.tile(np.arange(cols, dtype=np.int32), rows), "dense")

    @staticmethod
    def empty(rows: int, cols: int) -> Pattern:
        """No connection alive."""
        return Pattern((rows, cols), np.zeros(rows + 1, np.int32), np.zeros(0, np.int32), "empty")

    @staticmethod
    def stack(parts: Iterable[Pattern]) -> Pattern:
        """Patterns of equal width, one above the other (gate blocks in torch's order)."""
        items = list(parts)
        if not items:
            raise UsageError("nothing to stack: got no pattern")
        widths = {p.shape[1] for p in items}
        if len(widths) != 1:
            raise UsageError(f"patterns to stack have different widths {sorted(widths)}: expected one")
        offsets = np.cumsum([0] + [p.nnz for p in items])
        indptr = np.concatenate([[0]] + [p.indptr[1:] + off for p, off in zip(items, offsets, strict=False)])
        origins = dict.fromkeys(p.origin for p in items)
        return Pattern(
            (sum(p.shape[0] for p in items), widths.pop()),
            indptr.astype(np.int32),
            np.concatenate([p.indices for p in items]),
            " + ".join(origins),
        )

    # ---- facts --------------------------------------------------------------------------------------------------
    @property
    def nnz(self) -> int:
        """Number of live connections."""
        return len(self.indices)

    @property
    def density(self) -> float:
        """Nnz / (rows * cols); 0 for a matrix without entries."""
        size = self.shape[0] * self.shape[1]
        return self.nnz / size if size else 0.0

    @property
    def sparsity(self) -> float:
        """1 - density."""
        return 1.0 - self.density

    @cached_property
    def rows(self) -> IntArray:
        """Row of each live connection, int32 of shape (nnz,), in the order of ``indices``."""
        return np.repeat(np.arange(self.shape[0], dtype=np.int32), np.diff(self.indptr))

    def fan_in(self) -> IntArray:
        """Live connections per row."""
        return np.diff(self.indptr)

    def fan_out(self) -> NDArray[np.int64]:
        """Live connections per column."""
        return np.bincount(self.indices, minlength=self.shape[1])

    def mask(self, dtype: Any = np.bool_) -> NDArray[Any]:
        """Dense mask of ``shape``: 1 where alive."""
        out = np.zeros(self.shape, dtype=dtype)
        out[self.rows, self.indices] = 1
        return out

    @cached_property
    def digest(self) -> str:
        """First 16 hex digits of SHA-256 over shape and live connections; equal on every rank and rerun."""
        h = hashlib.sha256(np.asarray(self.shape, dtype="<i8").tobytes())
        h.update(self.indptr.astype("<i4").tobytes())
        h.update(self.indices.astype("<i4").tobytes())
        return h.hexdigest()[:16]

    def block_shape(
        self, candidates: Sequence[tuple[int, int]] = ((16, 1), (8, 4), (8, 1), (4, 4), (4, 1))
    ) -> tuple[int, int]:
        """Largest candidate (r, c) whose r x c tiles are all either fully alive or fully dead; (1, 1) if none is."""
        rows, cols = self.shape
        if self.nnz == 0:
            return (1, 1)
        mask = self.mask()
        for r, c in sorted(candidates, key=lambda rc: -rc[0] * rc[1]):
            if rows % r or cols % c:
                continue
            count = mask.reshape(rows // r, r, cols // c, c).sum(axis=(1, 3))
            if np.all((count == 0) | (count == r * c)):
                return (r, c)
        return (1, 1)

    # ---- new patterns -------------------------------------------------------------------------------------------
    def with_origin(self, origin: str) -> Pattern:
        """The same connections, said to be made by ``origin``."""
        return Pattern(self.shape, self.indptr, self.indices, origin)

    def transpose(self) -> Pattern:
        """Connections (j, i) for each (i, j)."""
        order = np.lexsort((self.rows, self.indices))
        indptr = np.zeros(self.shape[1] + 1, dtype=np.int32)
        np.cumsum(self.fan_out(), out=indptr[1:])
        return Pattern((self.shape[1], self.shape[0]), indptr, self.rows[order], self.origin)

    def row_block(self, start: int, stop: int) -> Pattern:
        """Rows ``start:stop`` (one gate of a stacked recurrent weight)."""
        if not 0 <= start <= stop <= self.shape[0]:
            raise UsageError(f"rows {start}:{stop} are outside a pattern of {self.shape[0]} rows")
        lo, hi = self.indptr[start], self.indptr[stop]
        return Pattern(
            (stop - start, self.shape[1]), self.indptr[start : stop + 1] - lo, self.indices[lo:hi], self.origin
        )

    def permute(self, rows: ArrayLike | None = None, cols: ArrayLike | None = None) -> Pattern:
        """Pattern of ``mask()[rows][:, cols]`` for permutations given as index arrays.

        Raises:
            UsageError: one of them is not a permutation of the rows or columns.
        """
        indptr, indices = self.indptr, self.indices
        if rows is not None:
            order = permutation(rows, self.shape[0], "rows")
            count = np.diff(indptr)[order]
            indptr = np.concatenate([[0], np.cumsum(count)]).astype(np.int32)
            indices = indices[np.repeat(self.indptr[order] - indptr[:-1], count) + np.arange(self.nnz)]
        if cols is not None:
            order = permutation(cols, self.shape[1], "columns")
            place = np.empty_like(order)
            place[order] = np.arange(len(order))
            indices = place[indices]
            indices = indices[np.lexsort((indices, np.repeat(np.arange(self.shape[0]), np.diff(indptr))))]
        return Pattern(self.shape, indptr, indices, self.origin)

    def intersect(self, other: Pattern) -> Pattern:
        """Connections alive in both."""
        self._same_shape(other)
        return Pattern.from_mask(self.mask() & other.mask(), self.origin)

    def union(self, other: Pattern) -> Pattern:
        """Connections alive in either."""
        self._same_shape(other)
        return Pattern.from_mask(self.mask() | other.mask(), self.origin)

    # ---- values -------------------------------------------------------------------------------------------------
    def values(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Entries of a dense ``weight`` at the live connections, shape (nnz,)."""
        flat = self._flat(weight)
        return flat[self.rows, self.indices]

    def apply(self, weight: NDArray[Any]) -> NDArray[Any]:
        """A copy of ``weight`` with exact zeros at dead connections; NaN there is dropped too."""
        flat = self._flat(weight)
        out = np.zeros_like(flat)
        out[self.rows, self.indices] = flat[self.rows, self.indices]
        return out.reshape(weight.shape)

    def _flat(self, weight: NDArray[Any]) -> NDArray[Any]:
        flat = weight.reshape(self.shape) if weight.size == self.shape[0] * self.shape[1] else weight
        if flat.shape != self.shape:
            raise UsageError(f"weight has shape {weight.shape}, the pattern {self.shape}")
        return flat

    def _same_shape(self, other: Pattern) -> None:
        if self.shape != other.shape:
            raise UsageError(f"patterns have shapes {self.shape} and {other.shape}: expected the same")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pattern):
            return NotImplemented
        return (
            self.shape == other.shape
            and np.array_equal(self.indptr, other.indptr)
            and np.array_equal(self.indices, other.indices)
        )

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Pattern({self.shape[0]}x{self.shape[1]}, nnz={self.nnz}, density={self.density:.4g}, {self.origin})"
