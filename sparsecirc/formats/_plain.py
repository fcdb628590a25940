"""Dense panels, compressed rows and event columns."""

from __future__ import annotations

import numpy as np

from sparsecirc._pattern import Pattern
from sparsecirc.formats._packed import F32, Format, Packed

PANEL = 16
"""Rows of a dense panel, side by side for each column."""


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
    return Packed("columns", pattern.shape, pattern.nnz, values, ptr=by_source.indptr, index32=by_source.indices)


def _unpack_columns(packed: Packed) -> F32:
    rows, cols = packed.shape
    if packed.ptr is None or packed.index32 is None:
        return np.ascontiguousarray(packed.values.reshape(cols, rows).T)
    out = np.zeros((rows, cols), np.float32)
    out[packed.index32, np.repeat(np.arange(cols), np.diff(packed.ptr))] = packed.values
    return out


DENSE = Format("dense", _pack_dense, _unpack_dense)
CSR = Format("csr", _pack_csr, _unpack_csr)
COLUMNS = Format("columns", _pack_columns, _unpack_columns)
