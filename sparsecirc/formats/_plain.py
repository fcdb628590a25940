"""Dense panels, compressed rows, whole or tiled, and event columns."""

from __future__ import annotations

import numpy as np

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UnsupportedError
from sparsecirc.formats._packed import F32, Format, Packed

PANEL = 16
"""Rows of a dense panel, side by side for each column."""

TILE = (64, 256)
"""Rows of a block and columns of a tile of ``tiled_csr``: 256 inputs of 64 samples are 64 KiB."""


def _pack_dense(pattern: Pattern, weight: F32) -> Packed:
    rows, cols = pattern.shape
    strips = -(-rows // PANEL)
    padded = np.zeros((strips * PANEL, cols), np.float32)
    padded[:rows] = pattern.apply(weight)
    panels = padded.reshape(strips, PANEL, cols).transpose(0, 2, 1)
    return Packed("dense", pattern.shape, pattern.nnz, np.ascontiguousarray(panels).ravel())


def _unpack_dense(packed: Packed) -> F32:
    rows, cols = packed.shape
    strips = -(-rows // PANEL)
    panels = packed.values.reshape(strips, cols, PANEL).transpose(0, 2, 1)
    return np.ascontiguousarray(panels.reshape(strips * PANEL, cols)[:rows])


def _pack_csr(pattern: Pattern, weight: F32) -> Packed:
    values = np.ascontiguousarray(pattern.values(weight), np.float32)
    return Packed("csr", pattern.shape, pattern.nnz, values, ptr=pattern.indptr, index32=pattern.indices)


def _unpack_csr(packed: Packed) -> F32:
    assert packed.ptr is not None
    assert packed.index32 is not None
    out = np.zeros(packed.shape, np.float32)
    out[np.repeat(np.arange(packed.shape[0]), np.diff(packed.ptr)), packed.index32] = packed.values
    return out


def _pack_columns(pattern: Pattern, weight: F32) -> Packed:
    if pattern.nnz == pattern.shape[0] * pattern.shape[1]:  # whole columns need no index
        return Packed("columns", pattern.shape, pattern.nnz, np.ascontiguousarray(weight.T, np.float32).ravel())
    by_source = pattern.transpose()
    values = np.ascontiguousarray(weight, np.float32)[by_source.indices, by_source.rows]
    narrow = pattern.shape[0] <= 1 << 16
    return Packed(
        "columns",
        pattern.shape,
        pattern.nnz,
        values,
        ptr=by_source.indptr,
        index16=by_source.indices.astype(np.uint16) if narrow else None,
        index32=None if narrow else by_source.indices,
    )


def _unpack_columns(packed: Packed) -> F32:
    rows, cols = packed.shape
    index = packed.index32 if packed.index16 is None else packed.index16
    if packed.ptr is None or index is None:
        return np.ascontiguousarray(packed.values.reshape(cols, rows).T)
    out = np.zeros((rows, cols), np.float32)
    out[index, np.repeat(np.arange(cols), np.diff(packed.ptr))] = packed.values
    return out


def _pack_columns16(pattern: Pattern, weight: F32) -> Packed:
    rows, cols = pattern.shape
    if rows % PANEL:
        raise UnsupportedError(f"columns16 needs rows in multiples of {PANEL}, the matrix is {rows} x {cols}")
    mask = pattern.mask().reshape(rows // PANEL, PANEL, cols)
    column, strip = np.nonzero(mask.any(axis=1).T)
    blocks = pattern.apply(weight).reshape(rows // PANEL, PANEL, cols)[strip, :, column]
    ptr = np.concatenate([[0], np.cumsum(np.bincount(column, minlength=cols))]).astype(np.int32)
    values = np.ascontiguousarray(blocks, np.float32).ravel()
    return Packed("columns16", pattern.shape, pattern.nnz, values, ptr=ptr, index32=strip.astype(np.int32))


def _unpack_columns16(packed: Packed) -> F32:
    assert packed.ptr is not None
    assert packed.index32 is not None
    rows, cols = packed.shape
    out = np.zeros((rows // PANEL, PANEL, cols), np.float32)
    out[packed.index32, :, np.repeat(np.arange(cols), np.diff(packed.ptr))] = packed.values.reshape(-1, PANEL)
    return out.reshape(rows, cols)


def _unpack_tiled_csr(packed: Packed) -> F32:
    assert packed.ptr is not None
    assert packed.index16 is not None
    rows, cols = packed.shape
    height, width = packed.tile
    lists = np.repeat(np.arange(packed.ptr.size - 1), np.diff(packed.ptr))
    piece, tiles = lists // height, -(-cols // width)
    out = np.zeros((rows, cols), np.float32)
    if lists.size:
        out[piece // tiles * height + lists % height, piece % tiles * width + packed.index16] = packed.values
    return out


def tiled_csr(height: int, width: int) -> Format:
    """Compressed rows in tiles of ``height`` rows by ``width`` columns."""

    def pack(pattern: Pattern, weight: F32) -> Packed:
        rows, cols = pattern.shape
        tiles, blocks = -(-cols // width), -(-rows // height)
        order = np.lexsort((pattern.rows, pattern.indices // width, pattern.rows // height))
        row, col = pattern.rows[order], pattern.indices[order]
        lists = (row // height * tiles + col // width) * height + row % height
        ptr = np.concatenate([[0], np.cumsum(np.bincount(lists, minlength=blocks * tiles * height))]).astype(np.int32)
        values = np.ascontiguousarray(weight, np.float32)[row, col]
        index = (col % width).astype(np.uint16)
        tile = (height, width)
        return Packed("tiled_csr", pattern.shape, pattern.nnz, values, ptr=ptr, index16=index, tile=tile)

    return Format("tiled_csr", pack, _unpack_tiled_csr)


DENSE = Format("dense", _pack_dense, _unpack_dense)
CSR = Format("csr", _pack_csr, _unpack_csr)
COLUMNS = Format("columns", _pack_columns, _unpack_columns)
COLUMNS16 = Format("columns16", _pack_columns16, _unpack_columns16)
TILED_CSR = tiled_csr(*TILE)
