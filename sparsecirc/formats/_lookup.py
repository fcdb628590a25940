"""Tiled lookup: the inputs of a tile sit in registers, and an index chosen per weight fetches them without a gather.

A tile is ``rows`` rows (the lanes of a vector) by ``cols`` columns. Slot s of a tile holds the s-th live weight of each
of its rows; rows with fewer are padded with zeros, so a tile takes as many slots as its longest row::

    tile (4 x 8)            slots: values          index8 (or low bits)
    a . . b . . . .         a c d g                0 1 0 6
    . c . . . . . .         b . e h                3 . 2 7
    d . e . f . . .         . . f .                . . 4 .
    . . . . . . g h

Tiles lie side by side, or (``step`` > 0) every slot has a window of its own: it begins at the first column, down to a
multiple of ``step``, that any row of the strip still has to store, and takes from each row the next weight that lies in
it. That pads less (1.8 instead of 2.1 values per weight at 8 x 16 and 90 %), and a strip is one loop without a branch
on the length of each tile; but each slot loads its inputs anew, which AVX-512 cannot afford.

``mantissa`` stores the index in the low bits of the weight, which is rounded to the nearest float that has them:
2^-19 relative at 4 bits, 2^-17 at 6. Those weights are the model from then on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc._target import Isa
from sparsecirc.errors import UnsupportedError
from sparsecirc.formats._packed import F32, Format, Grid, Packed, as_given

Ints = NDArray[np.int64]


class Tile(NamedTuple):
    """Rows and columns of a tile; ``step`` is 0 where tiles lie side by side, else windows begin at its multiples."""

    rows: int
    cols: int
    step: int = 0


LOOKUP_TILE = {
    Isa.AVX512: Tile(16, 32),
    Isa.AVX2: Tile(8, 16, 8),
    Isa.NEON: Tile(16, 32, 1),
    Isa.SCALAR: Tile(16, 32),
}
MANTISSA_TILE = {**LOOKUP_TILE, Isa.AVX512: Tile(16, 64), Isa.SCALAR: Tile(16, 64)}
PADDED = 64
"""Inputs are readable, and zero, up to this multiple."""


@dataclass(frozen=True)
class Slots:
    """Where the live weights of a matrix are stored.

    Attributes:
        tile: the tile.
        per: weights of each row that a slot holds.
        total: number of slots.
        place: (nnz,) position of each live weight in an array of (total, rows, per).
        column: (nnz,) its column within the tile.
        count: (tiles,) slots of each tile side by side.
        ptr, base: (strips + 1,) and (total,): as in `Packed`, for windows.
    """

    tile: Tile
    per: int
    total: int
    place: Ints
    column: Ints
    count: NDArray[np.uint8] | None = None
    ptr: NDArray[np.int32] | None = None
    base: NDArray[np.uint16] | None = None


def slots(pattern: Pattern, tile: Tile, per: int = 1) -> Slots:
    """The slots of a pattern, each with ``per`` weights of every row."""
    return _windows(pattern, tile, per) if tile.step else _side_by_side(pattern, tile, per)


def _side_by_side(pattern: Pattern, tile: Tile, per: int) -> Slots:
    (rows, cols), (height, width, _) = pattern.shape, tile
    across = -(-cols // width)
    n_tiles = -(-rows // height) * across
    row = pattern.rows.astype(np.int64)
    run = row * across + pattern.indices // width  # runs of one row within one tile are consecutive
    starts = np.flatnonzero(np.diff(run, prepend=-1)) if pattern.nnz else np.zeros(0, np.int64)
    rank = np.arange(pattern.nnz) - np.repeat(starts, np.diff(np.append(starts, pattern.nnz)))
    tile_of, slot = (row // height) * across + pattern.indices // width, rank // per
    count = np.zeros(n_tiles, np.int64)
    np.maximum.at(count, tile_of, slot + 1)
    if count.size and count.max() > 255:
        raise UnsupportedError(f"a tile of {height} x {width} has {count.max()} slots: the format counts up to 255")
    first = np.concatenate([[0], np.cumsum(count)])
    place = ((first[tile_of] + slot) * height + row % height) * per + rank % per
    return Slots(tile, per, int(first[-1]), place, pattern.indices % np.int64(width), count.astype(np.uint8))


def _windows(pattern: Pattern, tile: Tile, per: int) -> Slots:
    """All strips take their k-th slot together, so that numpy does the work."""
    (rows, cols), (height, width, step) = pattern.shape, tile
    strips = -(-rows // height)
    last = -(-cols // PADDED) * PADDED - width
    if last > 65535 * step:
        raise UnsupportedError(f"windows of step {step} reach up to column {65535 * step + width}, got {cols} columns")
    column = np.append(pattern.indices, cols).astype(np.int64)
    none = pattern.nnz  # stands for a row that is done
    end = np.zeros(strips * height, np.int64)
    end[:rows] = pattern.indptr[1:]
    head = np.zeros(strips * height, np.int64)
    head[:rows] = pattern.indptr[:-1]
    slot, which, first = (np.zeros(pattern.nnz, np.int64) for _ in range(3))
    taken = np.zeros(strips, np.int64)
    bases = []
    while pattern.nnz:
        at = np.where(head < end, head, none)
        begin = column[at].reshape(strips, height).min(axis=1)
        live = np.flatnonzero(begin < cols)
        if not live.size:
            break
        begin = np.minimum(begin // step * step, last)
        bases.append((live, begin[live]))
        limit = np.repeat(begin + width, height)
        for k in range(per):
            at = np.where(head < end, head, none)
            mine = np.flatnonzero((at < none) & (column[at] < limit))
            weight = at[mine]
            slot[weight], which[weight], first[weight] = taken[mine // height], k, begin[mine // height]
            head[mine] += 1
        taken[live] += 1
    ptr = np.concatenate([[0], np.cumsum(taken)])
    base = np.zeros(int(ptr[-1]), np.uint16)
    for k, (strip, begin) in enumerate(bases):
        base[ptr[strip] + k] = begin // step
    row = pattern.rows.astype(np.int64)
    place = ((ptr[row // height] + slot) * height + row % height) * per + which
    return Slots(tile, per, base.size, place, column[:-1] - first, None, ptr.astype(np.int32), base)


def corners(packed: Packed) -> tuple[Ints, Ints]:
    """First row and first column of the tile of each slot."""
    height, width = packed.tile
    if packed.ptr is not None and packed.base is not None:
        strip = np.repeat(np.arange(len(packed.ptr) - 1), np.diff(packed.ptr))
        return strip * height, packed.base.astype(np.int64) * packed.step
    assert packed.count is not None
    across = max(-(-packed.shape[1] // width), 1)
    tile = np.repeat(np.arange(packed.count.size), packed.count)
    return tile // across * height, tile % across * width


def lookup(tile: tuple[int, int] | Tile) -> Format:
    """The tiled lookup with a byte of index per slot and row."""
    shape = Tile(*tile)

    def pack(pattern: Pattern, weight: F32) -> Packed:
        s = slots(pattern, shape)
        values, index = np.zeros(s.total * shape.rows, np.float32), np.zeros(s.total * shape.rows, np.uint8)
        values[s.place] = pattern.values(weight)
        index[s.place] = s.column
        return _packed("lookup", pattern, s, values, index)

    return Format("lookup", pack, _unpack, grid=Grid(*shape[:2]))


def mantissa(tile: tuple[int, int] | Tile) -> Format:
    """The tiled lookup with the index inside the weight."""
    shape = Tile(*tile)

    def pack(pattern: Pattern, weight: F32) -> Packed:
        s = slots(pattern, shape)
        values = np.zeros(s.total * shape.rows, np.float32)
        values[s.place] = _hide(pattern.values(weight).astype(np.float32), s.column.astype(np.int32), shape.cols)
        return _packed("mantissa", pattern, s, values, None)

    return Format("mantissa", pack, _unpack, exact=False, grid=Grid(*shape[:2]))


def _packed(name: str, pattern: Pattern, s: Slots, values: F32, index8: NDArray[np.uint8] | None) -> Packed:
    tile, step = s.tile[:2], s.tile.step
    return Packed(
        *(name, pattern.shape, pattern.nnz, values),
        index8=index8,
        count=s.count,
        ptr=s.ptr,
        base=s.base,
        tile=tile,
        step=step,
    )


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
    first_row, first_column = (np.repeat(v, height) for v in corners(packed))
    index = packed.index8 if packed.index8 is not None else packed.values.view(np.uint32) & np.uint32(width - 1)
    row = first_row + np.tile(np.arange(height), packed.values.size // height)
    col = first_column + index
    out = np.zeros((-(-rows // height) * height, -(-cols // PADDED) * PADDED), np.float32)
    live = packed.values != 0  # padding shares index 0 with a live weight and must not overwrite it
    out[row[live], col[live]] = packed.values[live]
    return as_given(packed, out[:rows, :cols])


def lookup_for(isa: Isa) -> Format:
    """The exact lookup with the tile that ``isa`` reads."""
    return lookup(LOOKUP_TILE[isa])


def mantissa_for(isa: Isa) -> Format:
    """The lookup with hidden indices and the tile that ``isa`` reads."""
    return mantissa(MANTISSA_TILE[isa])
