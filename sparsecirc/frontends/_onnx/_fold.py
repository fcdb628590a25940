"""Operators on constants, and on shapes that hold T and B: computed while the file is read, within a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sparsecirc.errors import UnsupportedError
from sparsecirc.frontends._onnx._read import Tensors
from sparsecirc.frontends._onnx._values import Array, Fill, Size

Attributes = Mapping[str, Any]
Fold = Callable[[Tensors, Attributes, Sequence[Any]], Any]


def axes_of(attributes: Attributes, inputs: Sequence[Any], k: int = 1) -> tuple[int, ...] | None:
    """Axes of a squeeze or a reduction: an attribute in old files, an input in new ones."""
    given = attributes.get("axes")
    if given is None and len(inputs) > k and inputs[k] is not None:
        given = inputs[k].ravel().tolist()
    return None if given is None else tuple(int(a) for a in given)


def _cast(t: Tensors, a: Attributes, x: Sequence[Any]) -> Array:
    if x[0].dtype == object:
        return np.asarray(x[0])
    return np.asarray(x[0]).astype(t.onnx.helper.tensor_dtype_to_np_dtype(a["to"]))


def _constant(t: Tensors, a: Attributes, x: Sequence[Any]) -> Array:
    if "value" in a or "sparse_value" in a:
        return np.asarray(a["value"] if "value" in a else a["sparse_value"])
    for key, dtype in (("value_int", np.int64), ("value_ints", np.int64), ("value_float", np.float32),
                       ("value_floats", np.float32)):  # fmt: skip
        if key in a:
            return np.asarray(a[key], dtype)
    raise UnsupportedError("a constant of the ONNX file is no number")


def _room(t: Tensors, shape: Sequence[int], what: str) -> None:
    if any(n < 0 for n in shape):
        raise UnsupportedError(f"a {what} of the ONNX file asks for the shape {list(shape)}")
    t.spend(math.prod(shape), what)


def lengths(shape: Array) -> tuple[Any, ...]:
    """A shape as Python numbers and sizes."""
    return tuple(n if isinstance(n, Size) else int(n) for n in np.asarray(shape).ravel().tolist())


def _width(shape: Sequence[Any]) -> int | None:
    return shape[-1] if shape and isinstance(shape[-1], int) else None


def _constant_of_shape(t: Tensors, a: Attributes, x: Sequence[Any]) -> Any:
    value = np.asarray(a.get("value", np.zeros(1, np.float32))).ravel()
    shape = lengths(x[0])
    if any(isinstance(n, Size) for n in shape):
        return Fill(float(value[0]), _width(shape))
    _room(t, shape, "ConstantOfShape")
    return np.full(shape, value[0])


def _expand(t: Tensors, a: Attributes, x: Sequence[Any]) -> Any:
    shape = lengths(x[1])
    if any(isinstance(n, Size) for n in shape):
        if x[0].size and np.all(x[0] == x[0].flat[0]):
            number = x[0].flat[0]
            return Fill(number if isinstance(number, Size) else float(number), _width(shape))
        raise UnsupportedError("the ONNX file expands different numbers along T or B, which no layer here can hold")
    _room(t, shape, "Expand")
    wide = np.broadcast_shapes(x[0].shape, shape)
    _room(t, wide, "Expand")
    return np.array(np.broadcast_to(x[0], wide))


def _gather(t: Tensors, a: Attributes, x: Sequence[Any]) -> Array:
    axis = a.get("axis", 0)
    _room(t, (*x[0].shape[:axis], *x[1].shape, *x[0].shape[axis:][1:]), "Gather")
    return np.asarray(np.take(x[0], x[1].astype(np.int64), axis=axis))


def slices(a: Attributes, x: Sequence[Any], rank: int) -> list[slice]:
    """The slice of every axis."""
    starts, ends = a.get("starts"), a.get("ends")
    axes, steps = a.get("axes"), None
    if starts is None:
        numbers = [None if v is None else [int(n) for n in np.ravel(v)] for v in x[1:5]]
        starts, ends, axes, steps = numbers + [None] * (4 - len(numbers))
    result = [slice(None)] * rank
    for k, (start, end) in enumerate(zip(starts or (), ends or (), strict=True)):
        step = 1 if not steps else steps[k]
        low = None if end < -(2**31) else end
        result[axes[k] if axes else k] = slice(start, end if step > 0 else low, step)
    return result


def _slice(t: Tensors, a: Attributes, x: Sequence[Any]) -> Array:
    return np.asarray(x[0][tuple(slices(a, x, x[0].ndim))])


def _reshape(t: Tensors, a: Attributes, x: Sequence[Any]) -> Array:
    shape = [x[0].shape[k] if n == 0 and not a.get("allowzero") else n for k, n in enumerate(lengths(x[1]))]
    return np.asarray(x[0].reshape(shape))


def _squeeze(t: Tensors, a: Attributes, x: Sequence[Any]) -> Array:
    return np.asarray(np.squeeze(x[0], axes_of(a, x)))


def _unsqueeze(t: Tensors, a: Attributes, x: Sequence[Any]) -> Array:
    return np.expand_dims(x[0], axes_of(a, x) or ())


def _scatter_elements(t: Tensors, a: Attributes, x: Sequence[Any]) -> Array:
    if a.get("reduction", "none") != "none":
        raise UnsupportedError("a ScatterElements of the ONNX file adds up, which is not read")
    out = np.array(x[0])
    at = np.where(x[1] < 0, x[1] + out.shape[a.get("axis", 0)], x[1]).astype(np.int64)
    np.put_along_axis(out, at, x[2], axis=a.get("axis", 0))
    return out


def _split(t: Tensors, a: Attributes, x: Sequence[Any]) -> list[Array]:
    axis = a.get("axis", 0)
    sizes = a.get("split") or (x[1].ravel().tolist() if len(x) > 1 and x[1] is not None else None)
    if sizes is None:
        parts = a.get("num_outputs", a["outputs"])
        step = -(-x[0].shape[axis] // parts)
        return [np.take(x[0], range(k * step, min((k + 1) * step, x[0].shape[axis])), axis) for k in range(parts)]
    return list(np.split(x[0], np.cumsum(sizes)[:-1].astype(int), axis=axis))


def _dequantize(t: Tensors, a: Attributes, x: Sequence[Any]) -> Array:
    def wide(v: Array) -> Array:
        return v.reshape([-1 if k == a.get("axis", 1) % x[0].ndim else 1 for k in range(x[0].ndim)]) if v.ndim else v

    zero = x[2] if len(x) > 2 and x[2] is not None else np.zeros_like(x[1], dtype=x[0].dtype)
    return np.asarray((x[0].astype(np.float32) - wide(zero).astype(np.float32)) * wide(x[1]).astype(np.float32))


def _range(t: Tensors, a: Attributes, x: Sequence[Any]) -> Array:
    start, stop, step = (v.item() for v in x[:3])
    _room(t, (max(0, math.ceil((stop - start) / step)) if step else 0,), "Range")
    return np.arange(start, stop, step, dtype=x[0].dtype)


def _pairwise(fn: Callable[[Any, Any], Any]) -> Fold:
    def fold(t: Tensors, a: Attributes, x: Sequence[Any]) -> Array:
        _room(t, np.broadcast_shapes(x[0].shape, x[1].shape), "sum or product")
        return np.asarray(fn(x[0], x[1]))

    return fold


def _div(a: Any, b: Any) -> Any:
    whole = a.dtype.kind in "iuO"
    return a // b if whole else a / b


FOLDS: Mapping[str, Fold] = {
    "Constant": _constant,
    "Identity": lambda _t, _a, x: x[0],
    "Cast": _cast,
    "CastLike": lambda _t, _a, x: np.asarray(x[0]).astype(x[1].dtype),
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Shape": lambda _t, a, x: np.array(x[0].shape, np.int64)[a.get("start", 0) : a.get("end", x[0].ndim)],
    "Size": lambda _t, _a, x: np.array(x[0].size, np.int64),
    "Gather": _gather,
    "Slice": _slice,
    "Concat": lambda _t, a, x: np.concatenate(x, axis=a["axis"]),
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": lambda _t, a, x: np.transpose(x[0], a.get("perm")),
    "CumSum": lambda _t, _a, x: np.cumsum(x[0], axis=int(x[1]), dtype=x[0].dtype),
    "ScatterElements": _scatter_elements,
    "Split": _split,
    "DequantizeLinear": _dequantize,
    "Range": _range,
    "Add": _pairwise(lambda a, b: a + b),
    "Sub": _pairwise(lambda a, b: a - b),
    "Mul": _pairwise(lambda a, b: a * b),
    "Div": _pairwise(_div),
    "Equal": _pairwise(lambda a, b: a == b),
    "Greater": _pairwise(lambda a, b: a > b),
    "Less": _pairwise(lambda a, b: a < b),
    "LessOrEqual": _pairwise(lambda a, b: a <= b),
    "GreaterOrEqual": _pairwise(lambda a, b: a >= b),
    "And": _pairwise(np.logical_and),
    "Or": _pairwise(np.logical_or),
    "Not": lambda _t, _a, x: ~x[0],
    "Neg": lambda _t, _a, x: -x[0],
    "Sqrt": lambda _t, _a, x: np.sqrt(x[0]),
    "ReduceProd": lambda _t, a, x: np.asarray(np.prod(x[0], axis=axes_of(a, x), keepdims=bool(a.get("keepdims", 1)))),
    "Where": lambda _t, _a, x: np.where(x[0], x[1], x[2]),
}
"""By operator."""
ON_SHAPES = frozenset({
    "Cast", "Concat", "ConstantOfShape", "Div", "Expand", "Gather", "Identity", "Mul", "ReduceProd", "Reshape", "Slice",
    "Split", "Squeeze", "Unsqueeze",
})  # fmt: skip
"""Those that also work where a shape holds T or B."""
