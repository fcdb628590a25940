"""Operators without a recurrence, on values that live in time and batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sparsecirc.errors import UnsupportedError
from sparsecirc.frontends._onnx._build import Attributes, Build
from sparsecirc.frontends._onnx._fold import axes_of, lengths, slices
from sparsecirc.frontends._onnx._shapes import reshaped
from sparsecirc.frontends._onnx._values import Anything, Array, Axis, Fill, Value
from sparsecirc.ir import Add, Affine, Concat, Conv, Elementwise, Embedding, Linear, Multiply, Pool, TimeReduce

Handler = Callable[[Build, Any, Attributes, Sequence[Anything]], "list[Anything]"]
PASS = frozenset({"Identity", "Dropout", "Cast"})


def _label(b: Build, node: Any) -> str:
    return b.label(node.name or next(o for o in node.output if o))


def _value(node: Any, value: Anything) -> Value:
    if not isinstance(value, Value):
        raise UnsupportedError(f"{node.op_type} '{node.name}' reads a constant, or what nothing here can follow")
    return value


def _same(b: Build, node: Any, a: Attributes, x: Sequence[Anything]) -> list[Anything]:
    return [x[0], *[None] * (len(node.output) - 1)]


def _pointwise(b: Build, node: Any, a: Attributes, x: Sequence[Anything]) -> list[Anything]:
    fn = {"Relu": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid"}[node.op_type]
    value = _value(node, x[0])
    names = tuple(b.add(Elementwise(_label(b, node), (n,), fn=fn)) for n in value.names)
    return [replace(value, names=names)]


def _softmax(b: Build, node: Any, a: Attributes, x: Sequence[Anything]) -> list[Anything]:
    value = b.vector(b.joined(_value(node, x[0]), node.name), node.name)
    axis = a.get("axis", -1)
    if axis not in (-1, len(value.axes) - 1):
        raise UnsupportedError(f"{node.op_type} '{node.name}' runs along axis {axis}: expected the last one")
    fn = "softmax" if node.op_type == "Softmax" else "log_softmax"
    return [replace(value, names=(b.add(Elementwise(_label(b, node), (value.name,), fn=fn)),))]


def _linear(b: Build, node: Any, x: Anything, weight: Array, bias: Array | None) -> list[Anything]:
    value = b.vector(b.joined(_value(node, x), node.name), node.name)
    params = {"weight": np.ascontiguousarray(weight.astype(np.float32))}
    if bias is not None:
        params["bias"] = np.broadcast_to(bias.ravel(), (len(weight),)).astype(np.float32)
    return [replace(value, names=(b.add(Linear(_label(b, node), (value.name,), params)),))]


def _matmul(b: Build, node: Any, a: Attributes, x: Sequence[Anything]) -> list[Anything]:
    if not isinstance(x[1], np.ndarray) or x[1].ndim != 2:
        raise UnsupportedError(
            f"MatMul '{node.name}' does not multiply a value by a constant matrix: no layer here does"
        )
    return _linear(b, node, x[0], x[1].T, None)


def _gemm(b: Build, node: Any, a: Attributes, x: Sequence[Anything]) -> list[Anything]:
    bias = x[2] if len(x) > 2 else None
    if not isinstance(x[1], np.ndarray) or x[1].ndim != 2 or a.get("transA"):
        raise UnsupportedError(f"Gemm '{node.name}' does not multiply a value by a constant matrix: no layer here does")
    if bias is not None and (
        not isinstance(bias, np.ndarray) or bias.size not in (1, bias.shape[-1] if bias.ndim else 1)
    ):
        raise UnsupportedError(f"Gemm '{node.name}' adds something else than a bias per output")
    weight = (x[1] if a.get("transB") else x[1].T) * np.float32(a.get("alpha", 1.0))
    return _linear(b, node, x[0], weight, None if bias is None else bias * np.float32(a.get("beta", 1.0)))


def _per_feature(b: Build, node: Any, value: Value, constant: Array) -> Array:
    """A constant that ONNX broadcasts against a value, in the axes of our features."""
    rank = len(value.axes)
    if constant.ndim > rank:
        raise UnsupportedError(f"{node.op_type} '{node.name}' broadcasts a value against a larger constant")
    wide = constant.reshape((1,) * (rank - constant.ndim) + constant.shape)
    features = len(b.specs[value.names[0]].shape)
    shape = [1] * features
    order: list[int] = []
    for k, axis in enumerate(value.axes):
        if isinstance(axis, int):
            shape[axis] = wide.shape[k]
            order.append(axis)
        elif wide.shape[k] != 1:
            raise UnsupportedError(f"{node.op_type} '{node.name}' adds or multiplies numbers that differ along T or B")
    if order != sorted(order):
        raise UnsupportedError(f"{node.op_type} '{node.name}' broadcasts over features in another order")
    return wide.reshape(shape).astype(np.float32)


def _combine(b: Build, node: Any, a: Attributes, x: Sequence[Anything]) -> list[Anything]:
    kind = node.op_type
    if isinstance(x[0], Value) and isinstance(x[1], Value):
        left, right = b.joined(x[0], node.name), b.joined(x[1], node.name)
        if left.axes != right.axes or kind not in ("Add", "Mul"):
            raise UnsupportedError(
                f"{kind} '{node.name}' combines values of different layouts, or not by a sum or product"
            )
        cls = Add if kind == "Add" else Multiply
        return [replace(left, names=(b.add(cls(_label(b, node), (left.name, right.name))),))]
    first = isinstance(x[0], Value)
    value, constant = (x[0], x[1]) if first else (x[1], x[0])
    value = b.joined(_value(node, value), node.name)
    if not isinstance(constant, np.ndarray) or constant.dtype == object or (not first and kind in ("Sub", "Div")):
        raise UnsupportedError(f"{kind} '{node.name}' combines a value with what is no constant here")
    number = _per_feature(b, node, value, constant)
    if kind in ("Add", "Sub"):
        number = number if kind == "Add" else -number
        if b.merge_bias(value.name, number):
            return [value]
        params = {"shift": number}
    else:
        params = {"scale": number if kind == "Mul" else 1 / number}
    return [replace(value, names=(b.add(Affine(_label(b, node), (value.name,), params)),))]


def _batch_norm(b: Build, node: Any, a: Attributes, x: Sequence[Anything]) -> list[Anything]:
    value = b.joined(_value(node, x[0]), node.name)
    if not all(isinstance(v, np.ndarray) for v in x[1:5]) or value.axes[1:2] != (0,):
        raise UnsupportedError(f"BatchNormalization '{node.name}' has no constants, or its channels are not axis 1")
    gain, bias, mean, variance = (np.asarray(v, np.float64) for v in x[1:5])
    scale = gain / np.sqrt(variance + a.get("epsilon", 1e-5))
    shape = (-1, *(1,) * (len(b.specs[value.name].shape) - 1))
    params = {"scale": scale.reshape(shape).astype(np.float32),
              "shift": (bias - mean * scale).reshape(shape).astype(np.float32)}  # fmt: skip
    return [replace(value, names=(b.add(Affine(_label(b, node), (value.name,), params)),))]


def _transpose(b: Build, node: Any, a: Attributes, x: Sequence[Anything]) -> list[Anything]:
    value = _value(node, x[0])
    perm = a.get("perm") or list(range(len(value.axes)))[::-1]
    if sorted(perm) != list(range(len(value.axes))):
        raise UnsupportedError(f"Transpose '{node.name}' has the order {perm} for {len(value.axes)} axes")
    return [replace(value, axes=tuple(value.axes[k] for k in perm))]


def _squeeze(b: Build, node: Any, a: Attributes, x: Sequence[Anything]) -> list[Anything]:
    value = _value(node, x[0])
    given = axes_of(a, x)
    gone = {k % len(value.axes) for k in given} if given is not None else {
        k for k, axis in enumerate(value.axes) if b.length(value, axis) == 1}  # fmt: skip
    return [replace(value, axes=_without(b, node, value, gone))]


def _without(b: Build, node: Any, value: Value, gone: set[int]) -> tuple[Axis, ...]:
    kept = []
    for k, axis in enumerate(value.axes):
        if k in gone and axis is not None:
            raise UnsupportedError(
                f"{node.op_type} '{node.name}' removes an axis that this graph keeps: {b.layout(value)}"
            )
        if k not in gone:
            kept.append(axis)
    return tuple(kept)


def _unsqueeze(b: Build, node: Any, a: Attributes, x: Sequence[Anything]) -> list[Anything]:
    value, new = _value(node, x[0]), list(axes_of(a, x) or ())
    axes: list[Axis] = list(value.axes)
    for k in sorted(n % (len(axes) + len(new)) for n in new):
        axes.insert(k, None)
    return [replace(value, axes=tuple(axes))]


def _reshape(b: Build, node: Any, a: Attributes, x: Sequence[Anything]) -> list[Anything]:
    value = _value(node, x[0])
    if node.op_type == "Flatten":
        axis = a.get("axis", 1) % (len(value.axes) + 1)
        shape: list[Any] = [1, 1]
        for k, n in enumerate(b.shape(value)):
            shape[k >= axis] = n * shape[k >= axis]
        return [reshaped(b, value, shape, node.name)]
    if not isinstance(x[1], np.ndarray):
        raise UnsupportedError(f"Reshape '{node.name}' has a shape that nothing here can follow")
    return [reshaped(b, value, list(lengths(x[1])), node.name)]


def _gather(b: Build, node: Any, a: Attributes, x: Sequence[Anything]) -> list[Anything]:
    axis = a.get("axis", 0)
    if isinstance(x[0], np.ndarray) and isinstance(x[1], Value):
        if x[0].ndim != 2 or axis or b.specs[x[1].name].shape:
            raise UnsupportedError(f"Gather '{node.name}' is no embedding of single indices: no layer here does that")
        weight = {"weight": np.ascontiguousarray(x[0].astype(np.float32))}
        return [Value((b.add(Embedding(_label(b, node), (x[1].name,), weight)),), (*x[1].axes, 0))]
    value = _value(node, x[0])
    if not isinstance(x[1], np.ndarray) or x[1].size != 1 or x[1].ndim > 1:
        raise UnsupportedError(f"Gather '{node.name}' picks by something else than one constant index")
    return [_one(b, node, value, axis % len(value.axes), int(x[1].ravel()[0]), keep=x[1].ndim == 1)]


def _one(b: Build, node: Any, value: Value, k: int, index: int, *, keep: bool) -> Value:
    """Entry ``index`` along axis ``k``; the axis stays, with length one, with ``keep``."""
    axis, size = value.axes[k], b.length(value, value.axes[k])
    rest: list[Axis] = list(value.axes)
    if isinstance(size, int) and not -size <= index < size:
        raise UnsupportedError(f"{node.op_type} '{node.name}' picks entry {index} of an axis of {size}")
    if axis is None:
        names = value.names
    elif axis == "D":
        names = (value.names[index],)
    elif axis == "T" and (index in (0, -1) or index + 1 == size):
        how = "first" if (index == 0) != value.reversed else "last"
        names = tuple(
            b.add(TimeReduce(_label(b, node), (n,), how=how, feature_shape=b.specs[n].shape)) for n in value.names
        )
    else:
        raise UnsupportedError(f"{node.op_type} '{node.name}' picks entry {index} of an axis that a graph keeps whole")
    rest[k : k + 1] = [None] if keep else []
    return replace(value, names=names, axes=tuple(rest), reversed=value.reversed and axis != "T")


def _slice(b: Build, node: Any, a: Attributes, x: Sequence[Anything]) -> list[Anything]:
    value = _value(node, x[0])
    if not all(v is None or (isinstance(v, np.ndarray) and v.dtype != object) for v in x[1:]):
        raise UnsupportedError(f"Slice '{node.name}' has ends that nothing here can follow")
    for k, part in enumerate(slices(a, [None, *x[1:]], len(value.axes))):
        size = b.length(value, value.axes[k])
        whole = part.start in (None, 0) and part.step in (None, 1) and (
            part.stop is None or part.stop >= 2**31 - 1 or part.stop == size)  # fmt: skip
        if whole:
            continue
        start = part.start or 0
        last = start == -1 and (part.stop is None or part.stop >= 2**31 - 1)
        if value.axes[k] == "D":
            names = value.names[part]
            if not names:
                raise UnsupportedError(f"Slice '{node.name}' takes nothing of an axis")
            single = len(names) == 1
            value = replace(value, names=names, axes=(*value.axes[:k], None if single else "D", *value.axes[k + 1 :]))
            continue
        if not last and (part.stop is None or part.stop - start != 1):
            raise UnsupportedError(f"Slice '{node.name}' takes a part of an axis: a graph here keeps all or one entry")
        value = _one(b, node, value, k, start, keep=True)
    return [value]


def _split(b: Build, node: Any, a: Attributes, x: Sequence[Anything]) -> list[Anything]:
    value = _value(node, x[0])
    k = a.get("axis", 0) % len(value.axes)
    if value.axes[k] != "D" or len(node.output) != len(value.names):
        raise UnsupportedError(f"Split '{node.name}' parts an axis that a graph here keeps whole: {b.layout(value)}")
    return [_one(b, node, value, k, i, keep=True) for i in range(len(value.names))]


def _stacked(node: Any, x: Sequence[Anything], axis: int) -> Value | None:
    """Values along an axis that is a stack already, or of length one in each; ``None`` for other axes."""
    values = [v for v in x if isinstance(v, Value)]
    k = axis % len(values[0].axes)
    if len(values) < len(x) or any(v.axes[k] not in (None, "D") or len(v.axes) != len(values[0].axes) for v in values):
        return None
    rest = [tuple(a for i, a in enumerate(v.axes) if i != k) for v in values]
    if any(r != rest[0] for r in rest) or any(v.axes[k] is None and len(v.names) > 1 for v in values):
        return None
    axes = (*values[0].axes[:k], "D", *values[0].axes[k + 1 :])
    return Value(tuple(n for v in values for n in v.names), axes, values[0].dtype)


def _concat(b: Build, node: Any, a: Attributes, x: Sequence[Anything]) -> list[Anything]:
    stack = _stacked(node, x, a["axis"]) if isinstance(x[0], Value) else None
    if stack is not None:
        return [stack]
    values = [b.joined(_value(node, v), node.name) for v in x]
    axis = a["axis"] % len(values[0].axes)
    layout = values[0].axes
    if any(v.axes != layout for v in values) or layout[axis] != len(b.specs[values[0].name].shape) - 1:
        raise UnsupportedError(f"Concat '{node.name}' joins values along another axis than the last feature axis")
    return [replace(values[0], names=(b.add(Concat(_label(b, node), tuple(v.name for v in values))),))]


def _reduce(b: Build, node: Any, a: Attributes, x: Sequence[Anything]) -> list[Anything]:
    value, over = b.joined(_value(node, x[0]), node.name), axes_of(a, x)
    if over is None or len(over) != 1 or value.axes[over[0] % len(value.axes)] != "T":
        raise UnsupportedError(f"{node.op_type} '{node.name}' reduces something else than the time axis")
    how = {"ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "max"}[node.op_type]
    shape = b.specs[value.name].shape
    name = b.add(TimeReduce(_label(b, node), (value.name,), how=how, feature_shape=shape))
    axes = [None if x == "T" else x for x in value.axes]
    if not a.get("keepdims", 1):
        del axes[over[0] % len(axes)]
    return [replace(value, names=(name,), axes=tuple(axes))]


def _spatial(b: Build, node: Any, value: Value, rank: int) -> bool:
    """Whether ONNX's (N, channels, space) are our features; ``False``: the one axis of space is time.

    Raises:
        UnsupportedError: neither.
    """
    if value.axes[1:] == tuple(range(rank + 1)) and len(b.specs[value.name].shape) == rank + 1:
        return True
    if rank == 1 and value.axes == ("B", 0, "T"):
        return False
    raise UnsupportedError(f"{node.op_type} '{node.name}' runs over other axes than a layer here: {b.layout(value)}")


def _window(
    node: Any, a: Attributes, kernel: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Stride, padding and dilation."""
    rank = len(kernel)
    strides, dilations = tuple(a.get("strides") or [1] * rank), tuple(a.get("dilations") or [1] * rank)
    pads, auto = list(a.get("pads") or [0] * (2 * rank)), a.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER") and set(strides) == {1}:
        both = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
        pads = [*(n // 2 for n in both), *(n - n // 2 for n in both)]
    elif auto not in ("NOTSET", "VALID"):
        raise UnsupportedError(f"{node.op_type} '{node.name}' pads by its strides: no layer here does")
    if pads[:rank] != pads[rank:]:
        raise UnsupportedError(f"{node.op_type} '{node.name}' pads its two sides differently: no layer here does")
    return strides, tuple(pads[:rank]), dilations


def _conv(b: Build, node: Any, a: Attributes, x: Sequence[Anything]) -> list[Anything]:
    value = b.joined(_value(node, x[0]), node.name)
    bias = x[2] if len(x) > 2 else None
    if not isinstance(x[1], np.ndarray) or not (bias is None or isinstance(bias, np.ndarray)):
        raise UnsupportedError(f"the weights of Conv '{node.name}' are no constants")
    weight, rank = x[1].astype(np.float32), x[1].ndim - 2
    stride, padding, dilation = _window(node, a, x[1].shape[2:])
    flat = [
        k for k in range(rank) if value.axes[2 + k : 3 + k] == (None,) and x[1].shape[2 + k] == 1 and not padding[k]
    ]
    if flat and len(flat) < rank:  # a convolution over one axis, written as one over two
        weight = weight.squeeze(tuple(2 + k for k in flat))
        stride, padding, dilation = (
            tuple(v for k, v in enumerate(w) if k not in flat) for w in (stride, padding, dilation)
        )
    kept = tuple(axis for k, axis in enumerate(value.axes) if k - 2 not in flat)
    over_time = not _spatial(b, node, replace(value, axes=kept), weight.ndim - 2)
    params = {"weight": weight} | ({} if bias is None else {"bias": bias.astype(np.float32)})
    name = b.add(
        Conv(_label(b, node), (value.name,), params, stride=stride, padding=padding, dilation=dilation,
             groups=a.get("group", 1), over_time=over_time)
    )  # fmt: skip
    return [replace(value, names=(name,))]


def _pool(b: Build, node: Any, a: Attributes, x: Sequence[Anything]) -> list[Anything]:
    value, kernel = b.joined(_value(node, x[0]), node.name), tuple(a["kernel_shape"])
    stride, padding, dilation = _window(node, a, kernel)
    if any(padding) or set(dilation) != {1} or a.get("ceil_mode") or not _spatial(b, node, value, len(kernel)):
        raise UnsupportedError(f"{node.op_type} '{node.name}' pads, dilates or rounds up: no pooling here does")
    how = "max" if node.op_type == "MaxPool" else "avg"
    name = b.add(Pool(_label(b, node), (value.name,), how=how, kernel=kernel, stride=stride))
    return [replace(value, names=(name,)), *[None] * (len(node.output) - 1)]


def _reverse(b: Build, node: Any, a: Attributes, x: Sequence[Anything]) -> list[Anything]:
    """ReverseSequence over all steps; with fewer valid steps it would be no layer's input."""
    value, steps = _value(node, x[0]), b.sizes.get("T", 1)
    told = x[1].value if isinstance(x[1], Fill) else x[1]
    whole = np.all(told == steps) if isinstance(told, np.ndarray) else told == steps
    if value.axes[a.get("time_axis", 0)] != "T" or value.axes[a.get("batch_axis", 1)] != "B" or not whole:
        raise UnsupportedError(f"ReverseSequence '{node.name}' turns round something else than all steps of a sequence")
    return [replace(value, reversed=not value.reversed)]


HANDLERS: Mapping[str, Handler] = {
    **dict.fromkeys(PASS, _same),
    **dict.fromkeys(("Relu", "Tanh", "Sigmoid"), _pointwise),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _combine),
    **dict.fromkeys(("Reshape", "Flatten"), _reshape),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax"), _reduce),
    **dict.fromkeys(("MaxPool", "AveragePool"), _pool),
    "BatchNormalization": _batch_norm,
    "Concat": _concat,
    "Conv": _conv,
    "Gather": _gather,
    "Gemm": _gemm,
    "ReverseSequence": _reverse,
    "MatMul": _matmul,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""By operator."""
KEEP_ORDER = frozenset({*PASS, "GRU", "LSTM", "RNN", "Relu", "ReverseSequence", "Sigmoid", "Slice", "Squeeze", "Tanh",
                        "Transpose", "Unsqueeze", "Gather"})  # fmt: skip
"""Those that also work on a sequence with the last step first."""
