"""Functions and tensor methods of a hand-written ``forward``, by their name in torch without underscores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sparsecirc.frontends._pooling import POOLING
from sparsecirc.frontends._recorder import Handler, Recorder, tensors
from sparsecirc.frontends._shapes import SHAPES
from sparsecirc.frontends._values import Opaque, Refusal, Running, Stack, Tracked, Value
from sparsecirc.ir import Add, Affine, Concat, Elementwise, Linear, Multiply, Node

Tensor = torch.Tensor


# ---- values that pass through ---------------------------------------------------------------------------------------
def _identity(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    what = rec.find(x)
    return rec.track(func(x, *args, **kwargs), what if what is not None else Opaque("a constant"))


def _to_float(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    # Everything runs in float64 whatever the model asks for, so that the graph is compared exactly.
    what = rec.find(x)
    assert what is not None
    return rec.track(x.to(torch.float64) if not x.dtype.is_floating_point else x.view_as(x), what)


def _to(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    dtypes = [a.dtype if isinstance(a, Tensor) else a for a in (*args, *kwargs.values())]
    if any(d in (torch.int32, torch.int64, torch.bool) for d in dtypes if isinstance(d, torch.dtype)):
        if x.dtype.is_floating_point:
            raise Refusal("turns values into whole numbers", "do it outside the model")
        return _identity(rec, Tensor.to, x, torch.int64)
    return (
        _to_float(rec, func, x) if any(isinstance(d, torch.dtype) for d in dtypes) else _identity(rec, Tensor.detach, x)
    )


def _long(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return _to(rec, func, x, torch.int64)


def _constant(rec: Recorder, func: Any, *args: Any, **kwargs: Any) -> Any:
    return func(*args, **kwargs)  # depends on the shape only


def _dropout(
    rec: Recorder, func: Any, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    if training and p:
        raise Refusal("drops values at random in evaluation too", "pass training=self.training to F.dropout")
    return _identity(rec, Tensor.detach, x)


def _compare(rec: Recorder, func: Any, x: Any, other: Any) -> Any:
    if x is None or other is None:
        return func(x, other)
    raise Refusal("compares values", "decide nothing on values: only fixed layers and functions can be converted")


def _reads(rec: Recorder, func: Any, *args: Any, **kwargs: Any) -> Any:
    raise Refusal("takes values out of the model's tensors", "decide nothing on values inside the model")


def _random(rec: Recorder, func: Any, *args: Any, **kwargs: Any) -> Any:
    raise Refusal("draws random numbers", "encode the input before the model, and pass it the encoded sequence")


def _packed(rec: Recorder, func: Any, *args: Any, **kwargs: Any) -> Any:
    raise Refusal("packs a sequence", "call the layer on the padded tensor, and pass lengths= when the graph runs")


# ---- pointwise ------------------------------------------------------------------------------------------------------
def pointwise(rec: Recorder, hint: str, key: tuple[Any, ...], fn: str, value: Value) -> Value:
    """A relu, tanh or sigmoid."""
    return rec.draft.same_axes(hint, key, lambda n, i: Elementwise(n, i, fn=fn), [value])


def _activation(fn: str) -> Handler:
    def handler(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        value = rec.value(x)
        return rec.track(func(x, *args, **kwargs), pointwise(rec, fn, (fn,), fn, value))

    return handler


def softmax(rec: Recorder, hint: str, key: tuple[Any, ...], fn: str, value: Value, dim: int | None) -> Value:
    """A softmax over the last feature axis.

    Raises:
        Refusal: over another axis.
    """
    if dim is None or value.axes[dim] != len(value.features) - 1:
        raise Refusal(f"takes a softmax along dim={dim}, which is not the last feature axis", "give it dim=-1")
    return pointwise(rec, hint, key, fn, value)


def _softmax(fn: str) -> Handler:
    def handler(rec: Recorder, func: Any, x: Tensor, dim: int | None = None, *args: Any, **kwargs: Any) -> Tensor:
        value = softmax(rec, fn, (fn,), fn, rec.value(x), dim)
        return rec.track(func(x, dim), value)

    return handler


def affine(rec: Recorder, hint: str, key: tuple[Any, ...], value: Value, scale: Any = None, shift: Any = None) -> Value:
    """Scale * x + shift with numpy arrays that broadcast over the features."""
    params = {"scale": scale, "shift": shift}
    params = {k: v for k, v in params.items() if v is not None}
    return rec.draft.same_axes(hint, key, lambda n, i: Affine(n, i, params), [value])


def _over_features(rec: Recorder, constant: Any, value: Value) -> Any:
    """A constant as an array over the features of ``value``."""
    if not isinstance(constant, Tensor):
        return np.asarray([constant], dtype=np.float64)
    shape = [1] * (len(value.axes) - constant.ndim) + list(constant.shape)
    outside = [n for n, a in zip(shape, value.axes, strict=True) if not isinstance(a, int)]
    if len(shape) > len(value.axes) or any(n != 1 for n in outside) or value.features != tuple(sorted(value.features)):
        raise Refusal("combines with a constant that differs between samples or steps", "give it one entry per feature")
    sizes = [n for n, a in zip(shape, value.axes, strict=True) if isinstance(a, int)]
    return rec.array(constant.double()).reshape(sizes or [1])


Combine = Callable[[Any, Any], Any]


def _binary(name: str) -> Handler:
    """``add``, ``sub``, ``rsub``, ``mul``, ``div``: of two values, or of a value and a constant."""

    def handler(
        rec: Recorder, func: Any, a: Any, b: Any, *, alpha: float = 1, rounding_mode: Any = None, out: Any = None
    ) -> Any:
        if alpha != 1 or rounding_mode is not None or out is not None:
            raise Refusal(f"'{name}' with alpha, rounding_mode or out", "write it as a plain sum or product")
        # Looked up before the operation runs, which may write into its operands.
        left = rec.find(a) is not None
        shape = (a if left else b).shape
        if left and rec.find(b) is not None:
            made = _of_two(rec, name, a, b)
        else:
            made = _with_constant(rec, name, a if left else b, b if left else a, left)
        result = func(a, b)
        if result.shape != shape:
            raise Refusal(f"'{name}' spreads {tuple(shape)} to {tuple(result.shape)}", "bring both to one shape first")
        return rec.track(result, made)

    return handler


def _of_two(rec: Recorder, name: str, a: Tensor, b: Tensor) -> Tracked:
    if name == "add":
        running = _running(rec.find(a), rec.find(b))
        if running is not None:
            return running
    x, y = rec.value(a), rec.value(b)
    if name == "rsub":
        x, y = y, x
    if name in ("sub", "rsub"):
        y = affine(rec, "negative", ("affine", -1), y, scale=np.asarray([-1.0]))
    elif name not in ("add", "mul"):
        raise Refusal("divides one value by another", "only division by a constant can be converted")
    kind: type[Node] = Multiply if name == "mul" else Add
    return rec.draft.same_axes(kind.kind, (kind.kind,), kind, [x, y])


def _running(a: Any, b: Any) -> Running | None:
    """The sum over time that a loop builds by adding the next step."""
    if isinstance(b, (Running, Value)) and isinstance(a, Value):
        a, b = (b, a) if isinstance(b, Running) or (b.step or 0) < (a.step or 0) else (a, b)
    if not isinstance(b, Value) or b.step is None or a.name != b.name or a.axes != b.axes:
        return None
    if isinstance(a, Running) and a.last == b.step - 1:
        return replace(a, last=b.step)
    return Running(a.name, a.axes, 1) if isinstance(a, Value) and a.step == 0 and b.step == 1 else None


def _with_constant(rec: Recorder, name: str, x: Tensor, c: Any, left: bool) -> Tracked:
    """``x + c``, ``x - c``, ``c - x``, ``x * c``, ``x / c``; ``left`` where x is the left operand."""
    what = rec.find(x)
    assert what is not None
    if (name == "add" or (name == "sub" and left)) and not torch.count_nonzero(torch.as_tensor(c)):
        return what
    value = rec.value(x)
    if name == "div" and left:
        if not isinstance(c, Tensor) and c == rec.draft.length:
            mean = rec.draft.mean_of_sum(value)
            if mean is not None:
                return mean
        name, c = "mul", 1.0 / c
    array = _over_features(rec, c, value)
    scale, shift = None, None
    if name == "mul":
        scale = array
    elif name == "add":
        shift = array
    elif (name == "sub") == left and name in ("sub", "rsub"):
        shift = -array
    elif name in ("sub", "rsub"):
        scale, shift = np.asarray([-1.0]), array
    else:
        raise Refusal("divides a constant by a value", "only division by a constant can be converted")
    key = ("affine", *(None if v is None else (v.shape, v.tobytes()) for v in (scale, shift)))
    return affine(rec, "scale" if shift is None else "shift", key, value, scale, shift)


def _negative(rec: Recorder, func: Any, x: Tensor) -> Tensor:
    value = affine(rec, "negative", ("affine", -1), rec.value(x), scale=np.asarray([-1.0]))
    return rec.track(func(x), value)


# ---- products -------------------------------------------------------------------------------------------------------
def _linear(rec: Recorder, func: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    value = rec.value(x)
    if any(rec.find(t) is not None for t in tensors((weight, bias))):
        raise Refusal("multiplies two values that both depend on the input", "only fixed weights can be converted")
    owner = rec.parameter_name(weight)
    hint = owner.removesuffix(".weight").removesuffix("_weight") if owner else "linear"
    params = {k: rec.array(t) for k, t in (("weight", weight), ("bias", bias)) if t is not None}
    identity = ("module", hint, bias is None) if owner else ("linear", weight.shape, params["weight"].tobytes())
    value.lead()
    return rec.track(func(x, weight, bias), rec.draft.emit(hint, identity, lambda n, i: Linear(n, i, params), [value]))


def _matmul(rec: Recorder, func: Any, x: Tensor, weight: Tensor) -> Tensor:
    if rec.find(weight) is not None or weight.ndim != 2:
        raise Refusal("multiplies matrices other than a value by a fixed weight (x @ W)", "use nn.Linear")
    return rec.track(func(x, weight), rec.value(_linear(rec, torch.nn.functional.linear, x, weight.T)))


# ---- joining and reducing -------------------------------------------------------------------------------------------
def _concat(rec: Recorder, func: Any, items: Sequence[Tensor], dim: int = 0, **kwargs: Any) -> Tensor:
    values = [rec.value(t) for t in items]
    result = func(items, dim)
    roles = {v.axes[dim] for v in values}
    if roles == {"1"}:
        at = dim % result.ndim
        bare = [replace(v, axes=(*v.axes[:at], *v.axes[at + 1 :])) for v in values]
        return rec.track(result, _put_together(rec, bare, at))
    if roles != {len(values[0].features) - 1} or len({v.lead() for v in values}) != 1:
        raise Refusal(f"concatenates along dim={dim}, which is not the last feature axis", "concatenate with dim=-1")
    return rec.track(result, concat(rec, "concat", values))


def concat(rec: Recorder, hint: str, values: Sequence[Value]) -> Value:
    """Values side by side along their last feature axis."""
    return values[0] if len(values) == 1 else rec.draft.emit(hint, ("concat",), Concat, values)


def _stack(rec: Recorder, func: Any, items: Sequence[Tensor], dim: int = 0, **kwargs: Any) -> Tensor:
    values = [rec.value(t) for t in items]
    result = func(items, dim)
    return rec.track(result, _put_together(rec, values, dim % result.ndim))


def _put_together(rec: Recorder, values: list[Value], axis: int) -> Value | Stack:
    if all(v.step is not None for v in values) and len({v.name for v in values}) == 1:
        return rec.sequence(values, axis, len(values))
    if any(v.axes != values[0].axes or v.whole for v in values):
        raise Refusal("stacks values of different layout", "concatenate them along the features")
    return Stack(tuple(values), axis)


def _over_time(how: str) -> Handler:
    def handler(rec: Recorder, func: Any, x: Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Any:
        value = rec.value(x)
        dims = [dim] if isinstance(dim, int) else list(dim or ())
        dims = [d[0] if isinstance(d, (tuple, list)) else d for d in dims]
        at = dims[0] % x.ndim if len(dims) == 1 else -1
        if at < 0 or value.axes[at] != "T":
            raise Refusal(
                f"takes the {how} along dim={dim}, which is not time", f"only the {how} over time can be converted"
            )
        out = func(x, at, keepdim)
        axes = (*value.axes[:at], *(("1",) if keepdim else ()), *value.axes[at + 1 :])
        made = replace(rec.draft.reduce(value.name, how), axes=axes)
        if isinstance(out, Tensor):
            return rec.track(out, made)
        rec.track(out[0], made)
        rec.track(out[1], Opaque(f"the step of the {how}"))
        return out

    return handler


def _names(handler: Handler, *names: str) -> dict[str, Handler]:
    return dict.fromkeys(names, handler)


FUNCTIONS: dict[str, Handler] = {
    **SHAPES,
    **_names(_identity, "contiguous", "clone", "detach", "alias", "cpu", "cuda", "get data", "requires_grad"),
    **_names(_to_float, "float", "double", "half", "bfloat16"),
    **_names(_to, "to", "type", "type_as"),
    **_names(_long, "long", "int"),
    **_names(_constant, "zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full",
             "new_empty", "new_tensor", "size", "dim", "numel", "len", "stride", "is_floating_point", "ndimension"),
    **_names(_dropout, "dropout", "dropout1d", "dropout2d", "feature_dropout", "alpha_dropout"),
    **_names(_compare, "eq", "ne", "lt", "le", "gt", "ge"),
    **_names(_reads, "item", "index", "tolist", "numpy", "array", "nonzero", "contains"),
    **_names(_random, "bernoulli", "rand_like", "randn_like", "multinomial", "poisson", "normal"),
    "pack_padded_sequence": _packed,
    **{fn: _activation(fn) for fn in ("relu", "tanh", "sigmoid")},
    **{fn: _softmax(fn) for fn in ("softmax", "log_softmax")},
    **_names(_binary("add"), "add", "iadd", "radd"),
    **_names(_binary("mul"), "mul", "imul", "rmul", "multiply"),
    **_names(_binary("sub"), "sub", "isub", "subtract"),
    "rsub": _binary("rsub"),
    **_names(_binary("div"), "div", "idiv", "truediv", "itruediv", "true_divide", "divide"),
    **_names(_binary("rdiv"), "rdiv", "rtruediv"),
    **_names(_negative, "neg", "negative"),
    "linear": _linear,
    **_names(_matmul, "matmul", "mm"),
    **_names(_concat, "cat", "concat", "concatenate"),
    "stack": _stack,
    "mean": _over_time("mean"),
    "sum": _over_time("sum"),
    **_names(_over_time("max"), "max", "amax"),
    **POOLING,
}  # fmt: skip
"""Handlers by name; ``operator`` forms, methods and in-place forms of an operation share one."""
