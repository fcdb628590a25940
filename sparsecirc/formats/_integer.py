"""Integer layouts for recurrent weights of cells whose state lies in [-1, 1] (rnn_tanh, gru, lstm without projection).

``lookup16`` is the lookup in 16 bits: a word is the weight and, in its low 6 (or 5) bits, the column in a window of 64
(or 32) inputs. A weight keeps 10 (or 11) effective bits of its own and no index is stored. ``lookup8`` has a byte of
weight and a byte of index, in windows of up to 128 inputs. ``dense16`` and ``dense8`` are the dense competitors. All
are symmetric with a scale per row; the state is quantised to 12 bits (8 beside bytes) at every step.

    w is about word * scale[row];    y[row] = scale[row] / 2047 * sum(word * round(2047 * h[column]))

The weights the words stand for are the model from then on (`Program.graph`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc._target import Isa
from sparsecirc.errors import UnsupportedError
from sparsecirc.formats._packed import F32, Format, Grid, Packed, Tile
from sparsecirc.formats._windows import corners, scatter, windows

LOOKUP16_TILE = {
    Isa.AVX512: Tile(16, 64, 16, 2),
    Isa.AVX2: Tile(16, 32, 1),
    Isa.NEON: Tile(16, 32, 1),
    Isa.SCALAR: Tile(16, 64, 16, 2),
}
LOOKUP8_TILE = {
    Isa.AVX512: Tile(16, 128, 64, 2),
    Isa.AVX2: Tile(8, 32, 1),
    Isa.NEON: Tile(16, 128, 64, 2),
    Isa.SCALAR: Tile(16, 128, 64, 2),
}
"""Windows that the kernels of an instruction set read."""
SUM_LIMIT = (2**31 - 1) // 2047 - 4096
"""Largest sum of word magnitudes whose products with a 12-bit state fit 32 bits, less room for rounding."""


def _row_scale(pattern: Pattern, weight: F32, top: int) -> F32:
    """Scale per row, so that the largest word is ``top``."""
    largest = np.zeros(pattern.shape[0])
    np.maximum.at(largest, pattern.rows, np.abs(pattern.values(weight).astype(np.float64)))
    return np.where(largest > 0, largest / top, 1.0).astype(np.float32)


def lookup16(tile: Tile) -> Format:
    """Words with the column in their low bits; a vector holds two of each row. Sums are short enough for any words."""

    def pack(pattern: Pattern, weight: F32, scale: F32 | None = None) -> Packed:
        w = windows(pattern, (tile,), per=2)
        scale = _row_scale(pattern, weight, 32700) if scale is None else scale
        exact = pattern.values(weight).astype(np.float64) / scale[pattern.rows]
        most = 32768 // tile.cols
        high = np.clip(np.rint((exact - w.column) / tile.cols), -most, most - 1)
        words = np.zeros(w.size, np.int16)
        words[w.place] = (tile.cols * high + w.column).astype(np.int16)
        return Packed(
            *("lookup16", pattern.shape, pattern.nnz, np.zeros(0, np.float32)),
            ptr=w.ptr,
            base=w.base,
            tile=tile[:2],
            step=tile.step,
            depth=tile.depth,
            words=words,
            scale=scale,
        )

    grid = Grid((tile,), 2)
    return Format("lookup16", pack, _unpack_lookup16, exact=False, repack=pack, grid=grid, dtype="int16")


def _unpack_lookup16(packed: Packed) -> F32:
    (height, width), depth = packed.tile, packed.depth
    assert packed.words is not None
    words = packed.words.reshape(-1, depth, height, 2)
    return _unpack_slots(packed, words, words & (width - 1))


def lookup8(tile: Tile) -> Format:
    """Bytes with a byte of index each; a vector holds four of each row."""

    def pack(pattern: Pattern, weight: F32, scale: F32 | None = None) -> Packed:
        w = windows(pattern, (tile,), per=4)
        slots = np.diff(w.ptr).max(initial=0) * tile.depth * 4
        if slots > 65536:
            raise UnsupportedError(f"a row takes {slots} bytes: format 'lookup8' sums up to 65536, use lookup16 or csr")
        scale = _row_scale(pattern, weight, 127) if scale is None else scale
        exact = np.rint(pattern.values(weight).astype(np.float64) / scale[pattern.rows])
        byte = np.clip(exact, -127, 127).astype(np.int8)
        words8, index8 = np.zeros(w.size, np.int8), np.zeros(w.size, np.uint8)
        words8[w.place], index8[w.place] = byte, w.column
        total = np.bincount(pattern.rows, weights=byte, minlength=pattern.shape[0])
        return Packed(
            *("lookup8", pattern.shape, pattern.nnz, np.zeros(0, np.float32)),
            ptr=w.ptr,
            base=w.base,
            tile=tile[:2],
            step=tile.step,
            depth=tile.depth,
            words8=words8,
            index8=index8,
            scale=scale,
            correction=(128 * total).astype(np.int32),
        )

    grid = Grid((tile,), 4)
    return Format("lookup8", pack, _unpack_lookup8, exact=False, repack=pack, grid=grid, dtype="int8")


def _unpack_lookup8(packed: Packed) -> F32:
    height, depth = packed.tile[0], packed.depth
    assert packed.words8 is not None
    assert packed.index8 is not None
    shape = (-1, depth, height, 4)
    return _unpack_slots(packed, packed.words8.reshape(shape), packed.index8.reshape(shape))


def _unpack_slots(packed: Packed, words: NDArray[Any], column: NDArray[Any]) -> F32:
    """From words and their columns as (windows, depth, rows, per)."""
    assert packed.scale is not None
    first_row, first_column = (v[:, None, None, None] for v in corners(packed))
    row = np.broadcast_to(first_row + np.arange(packed.tile[0])[:, None], words.shape)
    scale = np.zeros(-(-packed.shape[0] // packed.tile[0]) * packed.tile[0], np.float32)
    scale[: packed.shape[0]] = packed.scale
    return scatter(packed, row, first_column + column, (words * scale[row]).astype(np.float32))


def lookup16_for(isa: Isa) -> Format:
    """The 16-bit lookup with the windows that ``isa`` reads."""
    return lookup16(LOOKUP16_TILE[isa])


def lookup8_for(isa: Isa) -> Format:
    """The 8-bit lookup with the windows that ``isa`` reads."""
    return lookup8(LOOKUP8_TILE[isa])


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
        whole = np.abs(pattern.apply(weight).astype(np.float64)).sum(axis=1)  # of a row: one int32 sum
        scale = np.maximum(_row_scale(pattern, weight, 32700), (whole / SUM_LIMIT).astype(np.float32))
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


DENSE16 = Format("dense16", pack_dense16, _unpack_dense16, exact=False, repack=pack_dense16, dtype="int16")
DENSE8 = Format("dense8", pack_dense8, _unpack_dense8, exact=False, repack=pack_dense8, dtype="int8")
