"""N:M sparsity as hardware stores it: the kept values, and where in its group of M each one was.

    row    a . . b | . c d .          values     a b c d
                                      positions  0 3 1 2

A group with fewer than N live connections is filled up with zeros at the first positions that are free. Packed, an
index takes ceil(log2 M) bits, the first one of a word lowest; 2:4 gives 4 bits a group, so that a 16-bit word holds 4
groups. That is the plain layout which torch's ``SparseSemiStructuredTensor`` computes for 16-bit weights before it
reorders the words for the tensor cores of CUTLASS, which `NMMatrix.cutlass_metadata` does too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UsageError
from sparsecirc.interchange._matrix import SparseMatrix

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class NMMatrix:
    """A matrix of which every group of ``m`` neighbours along a row keeps ``n``.

    Attributes:
        shape: (rows, cols); cols is a multiple of m.
        n, m: kept and group size.
        values: (rows, cols / m * n), group by group.
        positions: place of each value in its group, uint8, same shape, strictly ascending within a group.

    Raises:
        UsageError: sizes do not fit, or positions are out of range or do not ascend.
    """

    shape: tuple[int, int]
    n: int
    m: int
    values: Array
    positions: NDArray[np.uint8]

    def __post_init__(self) -> None:
        rows, cols = self.shape
        if not 0 < self.n <= self.m <= 256 or cols % self.m:
            raise UsageError(f"{self.n}:{self.m} does not fit {cols} columns: expected N <= M <= 256 and whole groups")
        kept = (rows, cols // self.m * self.n)
        if np.shape(self.values) != kept or np.shape(self.positions) != kept:
            raise UsageError(
                f"values have shape {np.shape(self.values)}, positions {np.shape(self.positions)}: expected {kept}"
            )
        groups = self.positions.reshape(-1, self.n).astype(np.int64)
        if groups.size and (groups.max() >= self.m or np.any(np.diff(groups, axis=1) <= 0)):
            raise UsageError(f"positions must ascend strictly below {self.m} within each group of {self.n}")

    def metadata(self, word_bits: int = 16) -> Array:
        """Positions packed into words of 8, 16 or 32 bits, (rows, words): the first index of a word in its low bits.

        16-bit words are int16 and 32-bit ones int32, as torch has them; 8-bit ones are uint8.

        Raises:
            UsageError: another word size, or a row does not fill whole words.
        """
        if word_bits not in _WORDS:
            raise UsageError(f"words of {word_bits} bits are unknown: expected 8, 16 or 32")
        bits = max((self.m - 1).bit_length(), 1)
        per = word_bits // bits
        if bits * per != word_bits or self.values.shape[1] % per:
            raise UsageError(
                f"a row holds {self.values.shape[1]} indices of {bits} bits: they do not fill words of {word_bits} bits"
            )
        fields = self.positions.astype(np.uint32).reshape(self.shape[0], -1, per)
        words = np.bitwise_or.reduce(fields << (bits * np.arange(per, dtype=np.uint32)), axis=2)
        unsigned = words.astype(f"u{word_bits // 8}")
        signed: Array = unsigned.view(_WORDS[word_bits])
        return signed

    def cutlass_metadata(self) -> Array:
        """`metadata` in the order in which CUTLASS's sparse tensor-core kernels read it (2:4 only).

        16-bit words for 2-byte values, 32-bit words for 1-byte ones. Together with ``values`` these are the arrays
        that torch's ``SparseSemiStructuredTensorCUTLASS`` holds.

        Raises:
            UsageError: not 2:4, values of another size, or a shape that is no whole number of tiles.
        """
        size = self.values.dtype.itemsize
        if (self.n, self.m) != (2, 4) or size not in (1, 2):
            raise UsageError(
                f"CUTLASS reads 2:4 with values of 1 or 2 bytes, got {self.n}:{self.m} with {self.values.dtype}"
            )
        plain = self.metadata(16 if size == 2 else 32)
        rows, words = plain.shape
        tile = 32 if size == 2 else 16
        if rows % tile or words % 2:
            raise UsageError(f"{self.shape[0]} x {self.shape[1]} is no whole number of tiles of {tile} rows")
        # Rows that are 8 apart in a tile come to lie together, ...
        together = plain.reshape(rows // tile, tile // 8, 8, words // 2, 2).swapaxes(1, 2)
        # ... each 2 x 2 of words is transposed, and pairs of columns are stored one after another.
        squares = together.reshape(rows // 2, 2, words // 2, 2).swapaxes(1, 3)
        return np.ascontiguousarray(squares.transpose(2, 0, 1, 3)).reshape(plain.shape)


_WORDS = {8: np.uint8, 16: np.int16, 32: np.int32}


def to_n_m(matrix: SparseMatrix, n: int, m: int) -> NMMatrix:
    """Values and positions of a matrix that keeps at most ``n`` of every ``m`` neighbours along a row.

    Raises:
        UsageError: a group keeps more, or the columns are not whole groups.
    """
    rows, cols = matrix.shape
    if not 0 < n <= m or cols % m:
        raise UsageError(f"{n}:{m} does not fit {cols} columns: expected 0 < N <= M and a multiple of {m} columns")
    mask = matrix.pattern.mask().reshape(rows, cols // m, m)
    counts = mask.sum(axis=2)
    if counts.max(initial=0) > n:
        row, group = np.argwhere(counts > n)[0]
        raise UsageError(
            f"row {row} keeps {counts[row, group]} of columns {group * m} to {group * m + m - 1}: {n}:{m} allows {n}"
        )
    # A stable sort puts live positions first and free ones after them, both ascending.
    kept = np.sort(np.argsort(~mask, axis=2, kind="stable")[:, :, :n], axis=2)
    values = np.take_along_axis(matrix.to_dense().reshape(rows, cols // m, m), kept, axis=2)
    return NMMatrix((rows, cols), n, m, values.reshape(rows, -1), kept.astype(np.uint8).reshape(rows, -1))


def from_n_m(stored: NMMatrix) -> SparseMatrix:
    """The matrix with exactly ``n`` live connections in each group; the values share their memory."""
    rows, cols = stored.shape
    groups = np.arange(cols // stored.m).repeat(stored.n) * stored.m
    columns = (groups + stored.positions).astype(np.int32).ravel()
    indptr = np.arange(rows + 1, dtype=np.int32) * (cols // stored.m * stored.n)
    pattern = Pattern((rows, cols), indptr, columns, f"{stored.n}:{stored.m}")
    return SparseMatrix(pattern, stored.values.reshape(-1))
