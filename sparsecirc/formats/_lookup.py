"""Lookups in float: ``lookup`` (exact), ``mantissa`` (the index hidden in the weight) and ``lookup_bf16``.

Windows are drawn in ``_windows.py``. ``mantissa`` stores the index in the low bits of the weight, which is rounded to
the nearest float that has them: 2^-19 relative at 4 bits, 2^-17 at 6. ``lookup_bf16`` rounds to bfloat16, 2^-9
relative, and keeps the index beside it; inputs and sums stay float32. Rounded weights are the model from then on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc._target import Isa
from sparsecirc.formats._packed import F32, Format, Grid, Packed, Tile
from sparsecirc.formats._windows import Ints, Windows, corners, scatter, windows

_WIDE = (Tile(16, 64, 16, 2), Tile(16, 64, 16, 4))
LOOKUP_TILES = {
    Isa.AVX512: _WIDE,
    Isa.AVX2: (Tile(16, 16, 4),),
    Isa.NEON: (Tile(16, 32, 1),),
    Isa.SCALAR: _WIDE,
}
"""Windows that the kernels of an instruction set read; the packer takes the cheapest."""
BF16_TILES = {**LOOKUP_TILES, Isa.AVX2: (Tile(8, 16, 8, 2),), Isa.NEON: _WIDE}


def lookup(*tiles: Tile) -> Format:
    """The exact lookup with a byte of index per weight."""

    def pack(pattern: Pattern, weight: F32) -> Packed:
        w = windows(pattern, tiles)
        values = np.zeros(w.size, np.float32)
        values[w.place] = pattern.values(weight)
        return _packed("lookup", pattern, w, values=values, index8=_index(w))

    return Format("lookup", pack, _unpack, grid=Grid(tiles))


def mantissa(*tiles: Tile) -> Format:
    """The lookup with the index inside the weight."""

    def pack(pattern: Pattern, weight: F32) -> Packed:
        w = windows(pattern, tiles)
        values = np.zeros(w.size, np.float32)
        values[w.place] = _hide(pattern.values(weight).astype(np.float32), w.column.astype(np.int32), w.tile.cols)
        return _packed("mantissa", pattern, w, values=values)

    return Format("mantissa", pack, _unpack, exact=False, grid=Grid(tiles))


def lookup_bf16(*tiles: Tile) -> Format:
    """The lookup in bfloat16, two vectors of weights interleaved."""

    def pack(pattern: Pattern, weight: F32) -> Packed:
        w = windows(pattern, tiles)
        words = np.zeros(w.size, np.int16)
        pair = (w.window * w.tile.depth + w.vector) // 2
        words[(pair * w.tile.rows + w.row) * 2 + w.vector % 2] = _to_bf16(pattern.values(weight)).view(np.int16)
        return _packed("lookup_bf16", pattern, w, words=words, index8=_index(w))

    return Format("lookup_bf16", pack, _unpack, exact=False, grid=Grid(tiles), dtype="bf16")


def _index(w: Windows) -> NDArray[np.uint8]:
    """Columns in their windows as (windows, rows, depth)."""
    index = np.zeros(w.size, np.uint8)
    index[(w.window * w.tile.rows + w.row) * w.tile.depth + w.vector] = w.column
    return index


def _packed(
    name: str,
    pattern: Pattern,
    w: Windows,
    *,
    values: F32 | None = None,
    index8: NDArray[np.uint8] | None = None,
    words: NDArray[np.int16] | None = None,
) -> Packed:
    return Packed(
        *(name, pattern.shape, pattern.nnz, np.zeros(0, np.float32) if values is None else values),
        index8=index8,
        words=words,
        ptr=w.ptr,
        base=w.base,
        tile=w.tile[:2],
        step=w.tile.step,
        depth=w.tile.depth,
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


def _to_bf16(values: F32) -> NDArray[np.uint16]:
    """The upper half of each float32, rounded to nearest with ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    nan = np.isnan(values)
    return np.where(nan, (bits >> np.uint32(16)) | np.uint32(0x40), rounded).astype(np.uint16)


def _from_bf16(words: NDArray[np.int16]) -> F32:
    return (words.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def _unpack(packed: Packed) -> F32:
    (height, width), depth = packed.tile, packed.depth
    first_row, first_column = corners(packed)
    values = packed.values.reshape(-1, depth, height)
    if packed.words is not None:
        pairs = _from_bf16(packed.words).reshape(-1, depth // 2, height, 2)
        values = np.ascontiguousarray(pairs.transpose(0, 1, 3, 2)).reshape(-1, depth, height)
    if packed.index8 is not None:
        index: Ints = packed.index8.reshape(-1, height, depth).transpose(0, 2, 1).astype(np.int64)
    else:
        index = (values.view(np.uint32) & np.uint32(width - 1)).astype(np.int64)
    row = np.broadcast_to(first_row[:, None, None] + np.arange(height), values.shape)
    return scatter(packed, row, first_column[:, None, None] + index, values)


def lookup_for(isa: Isa) -> Format:
    """The exact lookup with the windows that ``isa`` reads."""
    return lookup(*LOOKUP_TILES[isa])


def mantissa_for(isa: Isa) -> Format:
    """The lookup with hidden indices and the windows that ``isa`` reads."""
    return mantissa(*LOOKUP_TILES[isa])


def lookup_bf16_for(isa: Isa) -> Format:
    """The bfloat16 lookup with the windows that ``isa`` reads."""
    return lookup_bf16(*BF16_TILES[isa])
