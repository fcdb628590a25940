"""Tiled lookup: the inputs of a tile sit in registers, and an index chosen per weight fetches them without a gather.

A tile is ``tile_rows`` rows (the lanes of a vector) by ``tile_cols`` columns. Slot s of a tile holds the s-th live
weight of each of its rows; rows with fewer are padded with zeros, so a tile takes as many slots as its longest row::

    tile (4 x 8)            slots: values          index8 (or low bits)
    a . . b . . . .         a c d g                0 1 0 6
    . c . . . . . .         b . e h                3 . 2 7
    d . e . f . . .         . . f .                . . 4 .
    . . . . . . g h

``mantissa`` stores the index in the low bits of the weight, which is rounded to the nearest float that has them:
2^-19 relative at 4 bits, 2^-17 at 6. Those weights are the model from then on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc._target import Isa
from sparsecirc.errors import UnsupportedError
from sparsecirc.formats._packed import F32, Format, Packed

LOOKUP_TILE = {Isa.AVX512: (16, 32), Isa.AVX2: (8, 16), Isa.SCALAR: (16, 32)}
MANTISSA_TILE = {Isa.AVX512: (16, 64), Isa.AVX2: (8, 16), Isa.SCALAR: (16, 64)}


def ranks(pattern: Pattern, tile: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Of each live weight: its (row, tile column) run, its tile, and how many of its row come before it in the tile."""
    across = -(-pattern.shape[1] // tile[1])
    row = pattern.rows.astype(np.int64)
    run = row * across + pattern.indices // tile[1]  # runs of one row within one tile are consecutive
    starts = np.flatnonzero(np.diff(run, prepend=-1)) if pattern.nnz else np.zeros(0, np.int64)
    slot = np.arange(pattern.nnz) - np.repeat(starts, np.diff(np.append(starts, pattern.nnz)))
    return run, (row // tile[0]) * across + pattern.indices // tile[1], slot


def slots(pattern: Pattern, tile: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Slot count of each tile, and the place of each live weight in the value array."""
    (rows, cols), (height, width) = pattern.shape, tile
    n_tiles = -(-rows // height) * -(-cols // width)
    _, tile_of, slot = ranks(pattern, tile)
    count = np.zeros(n_tiles, np.int64)
    np.maximum.at(count, tile_of, slot + 1)
    if count.size and count.max() > 255:
        raise UnsupportedError(f"a tile of {height} x {width} has {count.max()} slots: the format counts up to 255")
    offset = np.concatenate([[0], np.cumsum(count)[:-1]]) if n_tiles else np.zeros(0, np.int64)
    place = (offset[tile_of] + slot) * height + pattern.rows % height if pattern.nnz else np.zeros(0, np.int64)
    return count.astype(np.uint8), place


def lookup(tile: tuple[int, int]) -> Format:
    """The tiled lookup with a byte of index per slot."""

    def pack(pattern: Pattern, weight: F32) -> Packed:
        count, place = slots(pattern, tile)
        size = int(count.sum(dtype=np.int64)) * tile[0]
        values, index = np.zeros(size, np.float32), np.zeros(size, np.uint8)
        values[place] = pattern.values(weight)
        index[place] = pattern.indices % tile[1]
        return Packed("lookup", pattern.shape, pattern.nnz, values, index8=index, count=count, tile=tile)

    return Format("lookup", pack, _unpack)


def mantissa(tile: tuple[int, int]) -> Format:
    """The tiled lookup with the index inside the weight."""

    def pack(pattern: Pattern, weight: F32) -> Packed:
        count, place = slots(pattern, tile)
        values = np.zeros(int(count.sum(dtype=np.int64)) * tile[0], np.float32)
        values[place] = _hide(pattern.values(weight).astype(np.float32), pattern.indices % tile[1], tile[1])
        return Packed("mantissa", pattern.shape, pattern.nnz, values, count=count, tile=tile)

    return Format("mantissa", pack, _unpack, exact=False)


def _hide(weight: F32, index: NDArray[np.int32], width: int) -> F32:
    """The float nearest to each weight whose low bits are its index."""
    bits = weight.view(np.uint32)
    base = (bits & np.uint32(0xFFFFFFFF ^ (width - 1))) | index.astype(np.uint32)
    below = np.where((bits & np.uint32(0x7FFFFFFF)) >= width, base - np.uint32(width), base)
    candidates = np.stack([base, below, base + np.uint32(width)]).view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.abs(candidates.astype(np.float64) - weight)
    error[~np.isfinite(error)] = np.inf
    chosen: F32 = np.take_along_axis(candidates, error.argmin(axis=0)[None], axis=0)[0]
    return chosen


def _unpack(packed: Packed) -> F32:
    (rows, cols), (height, width) = packed.shape, packed.tile
    assert packed.count is not None
    across = -(-cols // width)
    tile_of = np.repeat(np.arange(packed.count.size), packed.count)  # one entry per slot
    index = packed.index8 if packed.index8 is not None else packed.values.view(np.uint32) & np.uint32(width - 1)
    lane = np.tile(np.arange(height), len(tile_of))
    row = np.repeat(tile_of // across * height, height) + lane
    col = np.repeat(tile_of % across * width, height) + index
    out = np.zeros((-(-rows // height) * height, across * width), np.float32)
    live = packed.values != 0  # padding shares index 0 with a live weight and must not overwrite it
    out[row[live], col[live]] = packed.values[live]
    return np.ascontiguousarray(out[:rows, :cols])


def lookup_for(isa: Isa) -> Format:
    """The exact lookup with the tile that ``isa`` reads."""
    return lookup(LOOKUP_TILE[isa])


def mantissa_for(isa: Isa) -> Format:
    """The lookup with hidden indices and the tile that ``isa`` reads."""
    return mantissa(MANTISSA_TILE[isa])
