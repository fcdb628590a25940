"""Weights stored as their live entries: a byte of gap each, and a float or byte of value, decoded inside the graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.ir import Graph

Array = NDArray[Any]

SMALLEST = 256
"""Entries below which a weight is stored as it is."""
_LONGEST = 255
_TOP = 127
_NODES = 400
"""Bytes that the nodes of one decoder take in the file, about."""


@dataclass(frozen=True)
class Code:
    """A matrix as its live entries in row order.

    Attributes:
        shape: (rows, columns).
        gaps: uint8 (n,): how far each entry lies behind the one before it; the first, behind entry 0. Where that is
            more than 255, an entry of zero stands in between.
        values: float32 (n,), or int8 (n,) where each row has a scale.
        scale: float32 (rows, 1), or ``None``.
    """

    shape: tuple[int, int]
    gaps: NDArray[np.uint8]
    values: Array
    scale: NDArray[np.float32] | None

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return self.gaps.nbytes + self.values.nbytes + (0 if self.scale is None else self.scale.nbytes)


def encode(weight: Array) -> Code | None:
    """The code of a matrix, exact, or ``None`` where it would take more room than all its entries in float32.

    Values are bytes where every row is a whole multiple, from -127 to 127, of its largest magnitude over 127, as
    :func:`round_int8` leaves it.
    """
    single = np.asarray(weight, np.float32)
    if single.size < SMALLEST:
        return None
    at = np.flatnonzero(single)
    if 2 * len(at) + _NODES >= 4 * single.size:
        return None
    gaps = np.diff(at, prepend=0)
    fillers = np.maximum(gaps - 1, 0) // _LONGEST  # zeros in between; the last gap of an entry is 1 to 255
    ends = np.cumsum(fillers + 1) - 1
    coded = np.full(int(ends[-1]) + 1 if len(at) else 0, _LONGEST, np.int64)
    coded[ends] = gaps - _LONGEST * fillers
    scale, whole = _grid(single)
    source = single if whole is None else whole
    values = np.zeros(len(coded), source.dtype)
    values[ends] = source.ravel()[at]
    rows, columns = single.shape
    code = Code((rows, columns), coded.astype(np.uint8), values, None if whole is None else scale)
    return code if code.nbytes + _NODES < single.nbytes else None


def _grid(single: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int8] | None]:
    """A scale per row, and the whole numbers that give the matrix exactly, or ``None`` where there are none."""
    scale = np.abs(single).max(axis=1, keepdims=True) / np.float32(_TOP)
    scale[scale == 0] = 1
    whole = np.rint(single / scale).astype(np.int8)
    exact = np.array_equal(whole.astype(np.float32) * scale, single)
    return scale, whole if exact else None


def round_int8(graph: Graph) -> tuple[Graph, float]:
    """The graph with every weight matrix rounded to whole multiples, up to 127, of a scale per row.

    The scale is the largest magnitude of the row over 127, rounded to 16 bits, so that all products are exact in
    float32: what :func:`export_onnx` packs from it in bytes is this graph bit by bit. Biases and what neurons hold
    stay as they are.

    Returns:
        The graph, and the largest change of a weight relative to the largest magnitude of its row.
    """
    worst = 0.0
    nodes = []
    for node in graph.nodes:
        params = {}
        for role in node.matrix_roles:
            if role not in node.params or node.params[role].ndim < 2:
                continue
            value = np.asarray(node.weight(role), np.float32)
            flat = value.reshape(len(value), int(np.prod(value.shape[1:])))
            top = np.abs(flat).max(axis=1, keepdims=True, initial=0.0)
            bits = (top / np.float32(_TOP)).view(np.uint32)
            scale = ((bits + np.uint32(0x80)) & np.uint32(0xFFFFFF00)).view(np.float32)
            scale[scale == 0] = 1
            rounded = np.clip(np.rint(flat / scale), -_TOP, _TOP) * scale
            gap = np.abs(rounded - flat) / np.where(top == 0, 1, top)
            worst = max(worst, float(gap.max(initial=0.0)))
            params[role] = rounded.astype(np.float32).reshape(value.shape)
        nodes.append(node.with_params(**params) if params else node)
    return replace(graph, nodes=tuple(nodes)), worst
