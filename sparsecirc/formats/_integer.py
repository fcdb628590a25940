"""Integer layouts for recurrent weights of cells whose state lies in [-1, 1] (rnn_tanh, gru, lstm without projection).

``lookup16`` is the tiled lookup in 16 bits: a word is the weight and, in its low 6 (or 5) bits, the column in a tile of
64 (or 32). A weight keeps 10 (or 11) effective bits of its own and no index is stored. ``dense16`` and ``dense8`` are
the dense integer competitors, symmetric with a scale per row. The state is quantised to 12 bits (8 beside ``dense8``)
at every step.

    w is about word * scale[row];    y[row] = scale[row] / 2047 * sum(word * round(2047 * h[column]))

The weights the words stand for are the model from then on (`Program.graph`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc._target import Isa
from sparsecirc.formats._lookup import PADDED, Tile, corners, slots
from sparsecirc.formats._packed import F32, Format, Grid, Packed, as_given

TILES = {
    Isa.AVX512: Tile(16, 64),
    Isa.AVX2: Tile(16, 32, 1),
    Isa.NEON: Tile(16, 32, 1),
    Isa.SCALAR: Tile(16, 64),
}
SUM_LIMIT = (2**31 - 1) // 2047 - 4096
"""Largest sum of word magnitudes whose products with a 12-bit state fit 32 bits, less room for the index bits."""


def _row_scale(pattern: Pattern, weight: F32, top: int, group: NDArray[np.int64] | None, n_groups: int) -> F32:
    """Scale per row: the largest word is at most ``top`` and the words of a group at most `SUM_LIMIT`."""
    rows = pattern.shape[0]
    values = np.abs(pattern.values(weight).astype(np.float64))
    largest = np.zeros(rows)
    np.maximum.at(largest, pattern.rows, values)
    scale = largest / top
    if group is not None:
        sums = np.bincount(group, weights=values, minlength=n_groups).reshape(rows, n_groups // max(rows, 1))
        scale = np.maximum(scale, sums.max(axis=1, initial=0.0) / SUM_LIMIT)
    return np.where(scale > 0, scale, 1.0).astype(np.float32)


def lookup16(tile: Tile) -> Format:
    """Words with the column in their low bits; a slot holds two of each row."""

    def pack(pattern: Pattern, weight: F32, scale: F32 | None = None) -> Packed:
        s = slots(pattern, tile, per=2)
        if scale is None:
            rows, across = pattern.shape[0], -(-pattern.shape[1] // tile.cols)
            run = pattern.rows * np.int64(across) + pattern.indices // tile.cols  # each run of a tile is one int32 sum
            # Windows are summed in pieces too short to overflow.
            scale = _row_scale(pattern, weight, 32700, None if tile.step else run, rows * across)
        exact = pattern.values(weight).astype(np.float64) / scale[pattern.rows]
        most = 32768 // tile.cols
        high = np.clip(np.rint((exact - s.column) / tile.cols), -most, most - 1)
        words = np.zeros(s.total * 2 * tile.rows, np.int16)
        words[s.place] = (tile.cols * high + s.column).astype(np.int16)
        return Packed(
            *("lookup16", pattern.shape, pattern.nnz, np.zeros(0, np.float32)),
            count=s.count,
            ptr=s.ptr,
            base=s.base,
            tile=tile[:2],
            step=tile.step,
            words=words,
            scale=scale,
        )

    return Format("lookup16", pack, _unpack_lookup16, exact=False, repack=pack, grid=Grid(tile.rows, tile.cols, 2))


def _unpack_lookup16(packed: Packed) -> F32:
    (rows, cols), (height, width) = packed.shape, packed.tile
    assert packed.words is not None
    assert packed.scale is not None
    first_row, first_column = (np.repeat(v, 2 * height) for v in corners(packed))
    row = first_row + np.arange(packed.words.size) % (2 * height) // 2
    column = first_column + (packed.words & (width - 1))
    live = packed.words != 0  # padding; a live weight whose word is 0 is a zero as well
    out = np.zeros((-(-rows // height) * height, -(-cols // PADDED) * PADDED), np.float32)
    scale = np.zeros(len(out), np.float32)
    scale[:rows] = packed.scale
    out[row[live], column[live]] = packed.words[live] * scale[row[live]]
    return as_given(packed, out[:rows, :cols])


def lookup16_for(isa: Isa) -> Format:
    """The integer lookup with the tile that ``isa`` reads."""
    return lookup16(TILES[isa])


def _panels(words: NDArray[np.int64], per: int) -> NDArray[np.int64]:
    """(rows, cols) to [strips][groups of ``per`` columns][16][per], zero-padded."""
    rows, cols = words.shape
    strips, groups = -(-rows // 16), -(-cols // per)
    padded = np.zeros((strips * 16, groups * per), np.int64)
    padded[:rows, :cols] = words
    return padded.reshape(strips, 16, groups, per).transpose(0, 2, 1, 3).ravel()


def _from_panels(flat: NDArray[np.int64], shape: tuple[int, int], per: int) -> NDArray[np.int64]:
    rows, cols = shape
    strips, groups = -(-rows // 16), -(-cols // per)
    panels = flat.reshape(strips, groups, 16, per).transpose(0, 2, 1, 3)
    return panels.reshape(strips * 16, groups * per)[:rows, :cols]


def pack_dense16(pattern: Pattern, weight: F32, scale: F32 | None = None) -> Packed:
    """Dense 16-bit words in pairs of columns."""
    if scale is None:
        scale = _row_scale(pattern, weight, 32700, pattern.rows.astype(np.int64), pattern.shape[0])
    words = np.rint(pattern.apply(weight).astype(np.float64) / scale[:, None]).astype(np.int64)
    empty = np.zeros(0, np.float32)
    return Packed("dense16", pattern.shape, pattern.nnz, empty, words=_panels(words, 2).astype(np.int16), scale=scale)


def _unpack_dense16(packed: Packed) -> F32:
    assert packed.words is not None
    assert packed.scale is not None
    words = _from_panels(packed.words.astype(np.int64), packed.shape, 2)
    return (words * packed.scale[:, None]).astype(np.float32)


def pack_dense8(pattern: Pattern, weight: F32, scale: F32 | None = None) -> Packed:
    """Dense bytes in fours of columns; the state is stored with 128 added, which ``correction`` takes away."""
    if scale is None:
        dense = np.abs(pattern.apply(weight)).max(axis=1, initial=0.0)
        scale = np.where(dense > 0, dense / 127, 1.0).astype(np.float32)
    words = np.rint(pattern.apply(weight).astype(np.float64) / scale[:, None]).astype(np.int64)
    words = np.clip(words, -127, 127)
    return Packed(
        "dense8",
        pattern.shape,
        pattern.nnz,
        np.zeros(0, np.float32),
        words8=_panels(words, 4).astype(np.int8),
        scale=scale,
        correction=(128 * words.sum(axis=1)).astype(np.int32),
    )


def _unpack_dense8(packed: Packed) -> F32:
    assert packed.words8 is not None
    assert packed.scale is not None
    words = _from_panels(packed.words8.astype(np.int64), packed.shape, 4)
    return (words * packed.scale[:, None]).astype(np.float32)


DENSE16 = Format("dense16", pack_dense16, _unpack_dense16, exact=False, repack=pack_dense16)
DENSE8 = Format("dense8", pack_dense8, _unpack_dense8, exact=False, repack=pack_dense8)
