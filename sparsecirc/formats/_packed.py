"""`Packed`: a weight matrix laid out for one loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc._native import kernels
from sparsecirc._pattern import Pattern, permutation
from sparsecirc.errors import UnsupportedError

F32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Packed:
    """Weights in the layout of one format (drawn in ``kernels/include/sparsecirc.h`` and ``docs/formats.md``).

    Attributes:
        format: name of the format.
        shape: (rows, cols) of the matrix.
        nnz: live connections; the rest of ``values`` is padding.
        values: float32, in the order the loop reads them.
        ptr: row, strip or column pointers, int32.
        index32: columns, block columns or rows, int32.
        index16: rows or columns within a tile, uint16, where they fit (``columns``, ``tiled_csr``).
        index8: column within the window, uint8.
        tile: lookups: (rows of a strip, inputs of a window); ``tiled_csr``: shape of a tile; else (0, 0).
        words, words8: weights in int16 (or the bits of bfloat16) and int8; ``values`` is then empty.
        scale: float32 (rows,): the weight that an integer 1 stands for.
        correction: int32 (rows,): what the offset of an unsigned state adds to a sum.
        base: first column of each window over ``step``, uint16.
        step: windows begin at its multiples.
        depth: vectors of weights in a window.
        order: int32 (rows,): which row of the weight each packed row is; ``None``: they are packed as given. ``scale``
            follows it.
    """

    format: str
    shape: tuple[int, int]
    nnz: int
    values: F32
    ptr: NDArray[np.int32] | None = None
    index32: NDArray[np.int32] | None = None
    index8: NDArray[np.uint8] | None = None
    tile: tuple[int, int] = (0, 0)
    words: NDArray[np.int16] | None = None
    words8: NDArray[np.int8] | None = None
    scale: F32 | None = None
    correction: NDArray[np.int32] | None = None
    base: NDArray[np.uint16] | None = None
    step: int = 0
    index16: NDArray[np.uint16] | None = None
    order: NDArray[np.int32] | None = None
    depth: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays: tuple[NDArray[Any] | None, ...] = (
            *(self.values, self.ptr, self.index32, self.index8),
            *(self.words, self.words8, self.scale, self.correction, self.base, self.index16, self.order),
        )
        return sum(a.nbytes for a in arrays if a is not None)

    @property
    def padding(self) -> float:
        """Stored values per live connection, at least 1; 1 for an empty matrix."""
        stored = self.values.size + sum(w.size for w in (self.words, self.words8) if w is not None)
        return stored / self.nnz if self.nnz else 1.0

    @cached_property
    def matrix(self) -> kernels.Matrix:
        """The native matrix, its arrays checked and copied to aligned memory."""
        return kernels.Matrix(
            self.format,
            *self.shape,
            self.values,
            self.ptr,
            self.index32,
            self.index8,
            *self.tile,
            self.words,
            self.words8,
            self.scale,
            self.correction,
            self.base,
            self.step,
            self.index16,
            self.order,
            self.depth,
        )


def as_given(packed: Packed, rows: F32) -> F32:
    """The rows of a packed weight where the weight has them."""
    if packed.order is None:
        return np.ascontiguousarray(rows)
    out = np.empty_like(rows)
    out[packed.order] = rows
    return out


class Tile(NamedTuple):
    """Rows of a strip, inputs of a window, the multiple at which windows begin, and their vectors of weights."""

    rows: int
    cols: int
    step: int
    depth: int = 1

    @property
    def price(self) -> int:
        """What a window takes: 2 for each vector of weights, and about 1 to load its inputs."""
        return 2 * self.depth + 1


@dataclass(frozen=True)
class Grid:
    """What a layout pads: the rows of a strip, to equal length in each window (``docs/formats.md`` draws them).

    Attributes:
        tiles: windows that a packer chooses from, all with as many rows; a column of a block is a window of 1.
        per: weights of each row in a vector.
    """

    tiles: tuple[Tile, ...]
    per: int = 1

    @property
    def rows(self) -> int:
        """Rows of a strip."""
        return self.tiles[0].rows

    @property
    def cols(self) -> int:
        """Columns of a window."""
        return self.tiles[0].cols


Pack = Callable[[Pattern, F32], Packed]
Unpack = Callable[[Packed], F32]
Repack = Callable[[Pattern, F32, F32 | None], Packed]


@dataclass(frozen=True)
class Format:
    """One layout with its packer and its inverse.

    Attributes:
        name: as in the native list.
        pack: ``pack(pattern, weight)`` with a dense (rows, cols) float32 weight.
        unpack: the dense weight that the loop multiplies by.
        exact: whether it equals what was packed.
        repack: ``repack(pattern, weight, scale)`` with the scales of an earlier packing, for the integer formats.
        grid: what it pads, where its rows may come in any order (`Format.pack_ordered`).
        dtype: number type of the stored weights.
    """

    name: str
    pack: Pack
    unpack: Unpack
    exact: bool = True
    repack: Repack | None = None
    grid: Grid | None = None
    dtype: str = "f32"

    def pack_ordered(self, pattern: Pattern, weight: F32, order: ArrayLike, scale: F32 | None = None) -> Packed:
        """Pack the rows ``order[0]``, ``order[1]``, ... one after another; products and `unpack` do not change.

        Rows that pad little beside each other can so share a group.

        Raises:
            UsageError: ``order`` is no permutation of the rows.
            UnsupportedError: the rows of this format cannot be moved.
        """
        if self.grid is None:
            raise UnsupportedError(f"rows of format '{self.name}' cannot be moved: pack them as given")
        rows = permutation(order, pattern.shape[0], "rows")
        moved, values = pattern.permute(rows), weight[rows]
        packed = self.pack(moved, values) if self.repack is None else self.repack(moved, values, scale)
        return replace(packed, order=rows)
