"""Arithmetic on the indices of an embedding: exporters wrap those below zero, as Python counts from the end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsecirc.frontends._onnx._values import Anything, Array, Unknown, Value

NOTE = "indices are taken to be 0 or more: the file counts those below from the end of the table"


def of_indices(kind: str, x: Sequence[Anything], notes: list[str]) -> Anything:
    """What an operator makes of indices that are 0 or more, or ``None`` where it is no such arithmetic.

    ``i < 0`` is false, and so ``i + n`` for negative ones is multiplied by zero or not chosen. Keras writes an
    embedding as ``(i < 0) (i + n) + (1 - (i < 0)) i``, others as a choice between the two.
    """
    if kind == "Less" and _indices(x[0]) and _all(x[1], 0):
        if NOTE not in notes:
            notes.append(NOTE)
        return np.array(False)
    if kind == "Where" and isinstance(x[0], np.ndarray) and x[0].dtype == bool and x[0].size == 1:
        chosen = x[1] if bool(x[0].ravel()[0]) else x[2]
        return chosen if any(_indices(v) for v in x[1:]) else None
    if kind not in ("Add", "Mul") or len(x) != 2:
        return None
    for value, other in ((x[0], x[1]), (x[1], x[0])):
        if kind == "Mul" and isinstance(value, Unknown) and _all(other, 0):
            return np.zeros((), np.int64)
        if not _indices(value):
            continue
        if kind == "Mul" and _all(other, 0):
            return np.zeros((), np.int64)
        if _all(other, 1 if kind == "Mul" else 0):
            return value
        if isinstance(other, np.ndarray):
            return Unknown("indices are moved or multiplied before they are looked up")
    return None


def _indices(value: Anything) -> bool:
    return isinstance(value, Value) and value.dtype == "i"


def _all(value: Anything, number: int) -> bool:
    plain: Array | None = value if isinstance(value, np.ndarray) and value.dtype != object else None
    return plain is not None and plain.size > 0 and bool(np.all(plain == number))
