"""What the time of a product depends on, counted from the packed matrix; the same for every format."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsecirc.formats import Packed

NAMES = (
    "call",
    "rows",
    "columns",
    "values",
    "starts",
    "copied inputs",
    "bytes beyond L1",
    "bytes beyond L2",
    "bytes beyond L3",
)
"""What each coefficient is the microseconds of; ``starts`` are inner loops begun (rows, strips, tiles or columns)."""


@dataclass(frozen=True)
class Size:
    """What a packed matrix holds.

    Attributes:
        format: its layout.
        rows, cols: of the matrix.
        values: stored values, padding included.
        starts: inner loops that one product begins.
        nbytes: of all arrays.
        tile_cols: columns of a tile, 0 where there are none.
        by_column: whether only the columns of inputs that are not zero are visited.
    """

    format: str
    rows: int
    cols: int
    values: float
    starts: float
    nbytes: float
    tile_cols: int
    by_column: bool

    @staticmethod
    def of(packed: Packed, scale: float = 1.0) -> Size:
        """Of ``packed``, or of a matrix of ``scale`` times as many rows of the same kind."""
        stored = sum(a.size for a in (packed.values, packed.words, packed.words8) if a is not None)
        by_column = packed.format.startswith("columns")
        whole = by_column and packed.ptr is None  # columns without an index have a loop of their own
        starts = packed.shape[0] / 16 if packed.ptr is None else len(packed.ptr) - 1
        rows, cols = packed.shape
        return Size(
            "columns of every row" if whole else packed.format,
            round(rows * scale),
            cols,
            stored * scale,
            cols if by_column else starts * scale,
            packed.nbytes * scale,
            packed.tile[1],
            by_column,
        )


def features(size: Size, rate: float, caches: tuple[int, int, int]) -> NDArray[np.float64]:
    """The quantities of `NAMES` for one product with inputs of which ``rate`` are not zero."""
    visited = rate if size.by_column else 1.0
    touched = size.nbytes * visited
    working = touched + 4 * (size.rows + size.cols)
    copied = size.cols if size.tile_cols and size.cols % 64 else 0
    return np.array(
        [
            1.0,
            size.rows,
            size.cols,
            size.values * visited,
            size.starts * visited,
            copied,
            *(touched * _beyond(working, limit) for limit in caches),
        ]
    )


def _beyond(working: float, limit: int) -> float:
    """Share of ``working`` bytes, read again and again, that a cache of ``limit`` bytes does not hold.

    A cache shared with inputs, outputs and other processes fails gradually: from half its size to twice its size.
    """
    return float(np.clip(np.log2(max(working, 1) / limit) / 2 + 0.5, 0, 1))
