"""Indexing and reshaping: they change where axes lie, never the numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from sparsecirc.frontends._recorder import Handler, Recorder
from sparsecirc.frontends._values import Axis, Buffer, Refusal, Stack, Value, describe
from sparsecirc.ir import Concat, Flatten

Tensor = torch.Tensor


def _getitem(rec: Recorder, func: Any, x: Tensor, index: Any) -> Tensor:
    what = rec.find(x)
    result = func(x, index)
    items = list(index) if isinstance(index, tuple) else [index]
    if any(isinstance(i, (Tensor, list)) for i in items):
        raise Refusal(
            "picks entries by a tensor of indices",
            "for the last valid step of padded sequences return x[:, -1] here and pass lengths= when the graph runs",
        )
    if any(i is Ellipsis for i in items):
        at = next(k for k, i in enumerate(items) if i is Ellipsis)
        missing = x.ndim - sum(i is not None and i is not Ellipsis for i in items)
        items[at : at + 1] = [slice(None)] * missing
    if isinstance(what, Stack):
        return rec.track(result, _index_stack(what, items))
    value = rec.value(x)
    kept = [i for i in items if i is not None]
    kept += [slice(None)] * (x.ndim - len(kept))
    for at, item in enumerate(kept):
        value = _index_features(rec, value, at, x.shape[at], item)
    for at, item in enumerate(kept):
        if isinstance(item, int) and value.axes[at] == "T":
            value = _index_time(rec, value, at, x.shape[at], item)
            break
    after = iter([a for a, item in zip(value.axes, kept, strict=True) if not isinstance(item, int)])
    axes: list[Axis] = ["1" if i is None else next(after) for i in items if i is None or not isinstance(i, int)]
    return rec.track(result, replace(value, axes=(*axes, *after)))


def _index_features(rec: Recorder, value: Value, at: int, size: int, item: Any) -> Value:
    """Check the index of one axis, and take a part of a concatenation; time itself is not indexed yet."""
    role = value.axes[at]
    if isinstance(item, slice):
        bounds = item.indices(size)
        if bounds == (0, size, 1):
            return value
        if isinstance(role, int) and role == len(value.features) - 1 and bounds[2] == 1:
            return _part(rec, value, bounds[0], bounds[1])
    elif isinstance(item, int) and role in ("T", "1"):
        return value
    raise Refusal(
        f"takes [{_text(item)}] of axis {at} of a value with axes {describe(value.axes)}",
        "only one time step, whole axes, and the parts of a concatenation can be taken",
    )


def _text(item: Any) -> str:
    if not isinstance(item, slice):
        return str(item)
    return ":".join("" if i is None else str(i) for i in (item.start, item.stop))


def _index_time(rec: Recorder, value: Value, at: int, size: int, item: int) -> Value:
    if item == -1:
        return replace(rec.draft.reduce(value.name, "last"), axes=value.axes)
    if size != rec.draft.length:
        raise Refusal(f"takes step {item} of a sequence whose length a convolution changed", "take the last one, [-1]")
    return replace(value, step=item % size)


def _part(rec: Recorder, value: Value, start: int, stop: int) -> Value:
    """The input of a concatenation (e.g. one direction of a bidirectional layer) that ``[start:stop]`` picks."""
    node = rec.draft.nodes.get(value.name)
    offset = 0
    if isinstance(node, Concat):
        for name in node.inputs:
            width = rec.draft.specs[name].shape[-1]
            if (offset, offset + width) == (start, stop):
                return replace(value, name=name)
            offset += width
    raise Refusal(f"takes features {start}:{stop} of '{value.name}'", "split the layer that makes them into two layers")


def _index_stack(stack: Stack, items: list[Any]) -> Value:
    items = items + [slice(None)] * (stack.axis + 1 - len(items))
    pick = items.pop(stack.axis)
    if not isinstance(pick, int) or any(i != slice(None) for i in items):
        raise Refusal("takes a part of the states of several layers", "pick one layer, e.g. h_n[-1]")
    return stack.parts[pick]


def _setitem(rec: Recorder, func: Any, x: Tensor, index: Any, new: Any) -> None:
    items = list(index) if isinstance(index, tuple) else [index]
    axis = next((k for k, i in enumerate(items) if isinstance(i, int)), -1)
    rest = items[:axis] + items[axis + 1 :]
    if axis < 0 or any(i not in (Ellipsis, slice(None)) for i in rest) or Ellipsis in items[:axis]:
        raise Refusal("writes into a part of a tensor", "collect the steps in a list and torch.stack them")
    held = rec.find(x)
    buffer = held if isinstance(held, Buffer) else Buffer(axis)
    if (held is not None and not isinstance(held, Buffer)) or buffer.axis != axis:
        raise Refusal(
            "writes into a tensor that holds values already", "collect the steps in a list and torch.stack them"
        )
    func(x, index, new)
    buffer.filled[items[axis] % x.shape[axis]] = rec.value(new)
    rec.track(x, buffer)


def _select(rec: Recorder, func: Any, x: Tensor, dim: int, index: int) -> Tensor:
    items = [slice(None)] * (dim % x.ndim) + [index]
    return _getitem(rec, Tensor.__getitem__, x, tuple(items))


def _unbind(rec: Recorder, func: Any, x: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    return tuple(_select(rec, None, x, dim, k) for k in range(x.shape[dim]))


def _squeeze(rec: Recorder, func: Any, x: Tensor, dim: Any = None) -> Tensor:
    result = func(x) if dim is None else func(x, dim)
    held = rec.find(x)
    dims = range(x.ndim) if dim is None else [d % x.ndim for d in ([dim] if isinstance(dim, int) else dim)]
    gone = {d for d in dims if x.shape[d] == 1}
    if isinstance(held, Stack) and gone == {held.axis}:
        return rec.track(result, held.parts[0])
    value = rec.value(x)
    if any(value.axes[d] in ("T", "B") for d in gone):
        raise Refusal("squeezes away the time or batch axis", "squeeze a named dim")
    return rec.track(result, replace(value, axes=tuple(a for d, a in enumerate(value.axes) if d not in gone)))


def _unsqueeze(rec: Recorder, func: Any, x: Tensor, dim: int) -> Tensor:
    value = rec.value(x)
    at = dim % (x.ndim + 1)
    return rec.track(func(x, dim), replace(value, axes=(*value.axes[:at], "1", *value.axes[at:])))


def _permute(rec: Recorder, func: Any, x: Tensor, *dims: Any) -> Tensor:
    order = list(dims[0]) if len(dims) == 1 and not isinstance(dims[0], int) else list(dims)
    return _reorder(rec, x, [d % x.ndim for d in order])


def _transpose(rec: Recorder, func: Any, x: Tensor, dim0: int, dim1: int) -> Tensor:
    order = list(range(x.ndim))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return _reorder(rec, x, order)


def _swap_last(rec: Recorder, func: Any, x: Tensor) -> Tensor:
    return _transpose(rec, func, x, -2, -1)


def _movedim(rec: Recorder, func: Any, x: Tensor, source: int, destination: int) -> Tensor:
    order = [d for d in range(x.ndim) if d != source % x.ndim]
    order.insert(destination % x.ndim, source % x.ndim)
    return _reorder(rec, x, order)


def _reorder(rec: Recorder, x: Tensor, order: list[int]) -> Tensor:
    held = rec.find(x)
    result = x.permute(order)
    if isinstance(held, Stack):
        inner = [d - (d > held.axis) for d in order if d != held.axis]
        parts = tuple(replace(p, axes=tuple(p.axes[d] for d in inner)) for p in held.parts)
        return rec.track(result, Stack(parts, order.index(held.axis)))
    value = rec.value(x)
    return rec.track(result, replace(value, axes=tuple(value.axes[d] for d in order)))


def _reshape(rec: Recorder, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    result: Tensor = func(x, *args, **kwargs)
    return rec.track(result, reshaped(rec, x, result))


def reshaped(rec: Recorder, x: Tensor, result: Tensor) -> Value:
    """What ``x`` holds after a reshape: features flattened, axes of size one gained or lost, nothing else."""
    held = rec.find(x)
    if isinstance(held, Stack):
        part = held.parts[0]
        lead = part.lead()
        if held.axis == len(lead) and len(part.features) == 1 and result.ndim == len(lead) + 1:
            return rec.draft.emit("concat", ("concat",), Concat, held.parts)
        raise Refusal(
            "reshapes the states of several layers", "concatenate h_n[-2] and h_n[-1], or what you need of it"
        )
    value = rec.value(x)
    left = [(a, n) for a, n in zip(value.axes, x.shape, strict=True) if a != "1"]
    axes: list[Axis] = []
    flat = False
    for k, n in enumerate(result.shape):
        total = 1
        for _, m in left:
            total *= m
        if k == result.ndim - 1 and len(left) > 1 and all(isinstance(a, int) for a, _ in left) and total == n:
            flat, left = True, []
            axes.append(0)
        elif left and left[0][1] == n:
            axes.append(left.pop(0)[0])
        elif n == 1:
            axes.append("1")
        else:
            break
    if left or len(axes) != result.ndim or (flat and any(isinstance(a, int) for a in axes[:-1])):
        raise Refusal(
            f"reshapes {describe(value.axes)} of sizes {tuple(x.shape)} to {tuple(result.shape)}",
            "only features can be flattened, all into one; time and batch stay as they are",
        )
    if not flat:
        return replace(value, axes=tuple(axes))
    if value.features != tuple(range(len(value.features))):
        raise Refusal("flattens features that were permuted", "flatten them in their own order")
    count = len(value.features)
    return rec.draft.emit("flatten", ("flatten",), lambda n, i: Flatten(n, i, axes=count), [value], axes)


SHAPES: dict[str, Handler] = {
    "getitem": _getitem,
    "setitem": _setitem,
    "select": _select,
    "unbind": _unbind,
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    "permute": _permute,
    "transpose": _transpose,
    "swapaxes": _transpose,
    "swapdims": _transpose,
    "get mT": _swap_last,
    "movedim": _movedim,
    "moveaxis": _movedim,
    "reshape": _reshape,
    "view": _reshape,
    "flatten": _reshape,
}
"""Handlers by the function's name."""
