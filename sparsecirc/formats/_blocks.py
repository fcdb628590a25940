"""Blocks of r rows by c columns that are alive or dead as a whole: c inputs, each times r consecutive weights.

Strips of r rows, blocks in the order of their columns, one index a block; a block holds its columns one after another.
"""

from __future__ import annotations

import numpy as np

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UnsupportedError
from sparsecirc.formats._packed import F32, Format, Grid, Pack, Packed, Tile, Unpack, as_given


def _packer(name: str, height: int, width: int) -> Pack:
    def pack(pattern: Pattern, weight: F32) -> Packed:
        rows, cols = pattern.shape
        if cols % width:
            raise UnsupportedError(
                f"format '{name}' needs a multiple of {width} columns, got {cols}: use another format"
            )
        strips, across = -(-rows // height), cols // width
        live = np.zeros((strips, across), bool)
        live[pattern.rows // height, pattern.indices // width] = True
        ptr = np.zeros(strips + 1, np.int32)
        np.cumsum(live.sum(axis=1), out=ptr[1:])
        at = np.nonzero(live)
        padded = np.zeros((strips * height, cols), np.float32)
        padded[:rows] = pattern.apply(weight)
        # [strips, across, width, height]: the rows of one column side by side
        blocks = padded.reshape(strips, height, across, width).transpose(0, 2, 3, 1)[at]
        first = (at[1] * width).astype(np.int32)
        return Packed(name, pattern.shape, pattern.nnz, blocks.ravel(), ptr=ptr, index32=first)

    return pack


def _unpacker(height: int, width: int) -> Unpack:
    def unpack(packed: Packed) -> F32:
        assert packed.ptr is not None
        assert packed.index32 is not None
        rows, cols = packed.shape
        strips = len(packed.ptr) - 1
        out = np.zeros((strips, cols // width, width, height), np.float32)
        strip = np.repeat(np.arange(strips), np.diff(packed.ptr))
        out[strip, packed.index32 // width] = packed.values.reshape(-1, width, height)
        return as_given(packed, out.transpose(0, 3, 1, 2).reshape(strips * height, cols)[:rows])

    return unpack


BLOCK_SHAPES = {"block16x1": (16, 1), "block8x1": (8, 1), "block8x4": (8, 4), "block4x4": (4, 4)}
"""(rows, columns) of a block, by format; as in ``kernels/kernels.def``."""

BLOCKS = {
    name: Format(
        name, _packer(name, *shape), _unpacker(*shape), grid=Grid((Tile(*shape, 1),)) if shape[1] == 1 else None
    )
    for name, shape in BLOCK_SHAPES.items()
}
