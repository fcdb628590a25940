"""Layers without a recurrence, and reductions over time, as C statements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import Any

from sparsecirc.errors import UnsupportedError
from sparsecirc.export.c._build import Builder, Value
from sparsecirc.export.c._cells import emit_recurrent
from sparsecirc.export.c._loops import value_type
from sparsecirc.export.c._matrix import Packed
from sparsecirc.export.c._text import to_float32
from sparsecirc.ir import (
    Add,
    Affine,
    Concat,
    Conv,
    Elementwise,
    Embedding,
    Flatten,
    Linear,
    Multiply,
    Node,
    Pool,
    Recurrent,
    Repeat,
    TimeReduce,
)

Ports = dict[str, Value]


def _out(b: Builder, node: Node, shape: tuple[int, ...]) -> Value:
    return b.scratch(shape, f"{node.name}.out")


def _linear(b: Builder, node: Linear, inputs: list[Value]) -> Ports:
    weight = node.weight("weight")
    y = _out(b, node, (*inputs[0].shape[:-1], weight.shape[0]))
    b.linear(y, inputs[0], f"{node.name}.weight", weight, node.patterns.get("weight"), node.params.get("bias"))
    return {"": y}


def _affine(b: Builder, node: Affine, inputs: list[Value]) -> Ports:
    x = inputs[0]
    y = _out(b, node, x.shape)
    value = b.read(x)
    if "scale" in node.params:
        value = f"{value} * {b.vector(f'{node.name}.scale', node.params['scale'], x.shape)}"
    if "shift" in node.params:
        value = f"{value} + {b.vector(f'{node.name}.shift', node.params['shift'], x.shape)}"
    b.each(x.size, f"{y.expr}[i] = {value};")
    return {"": y}


def _embedding(b: Builder, node: Embedding, inputs: list[Value]) -> Ports:
    x = inputs[0]
    if x.ctype != "int32_t":
        raise UnsupportedError(
            f"embedding '{node.name}' reads a computed value: expected the indices of the graph input"
        )
    entries, width = node.params["weight"].shape
    y = _out(b, node, (*x.shape, width))
    to = f"{y.expr} + p * {width}u"
    b.each(
        x.size,
        f"const int32_t k = {b.use(x)}[p];",
        f"if (k >= 0 && k < {entries}) {{",
        *_indent(_row_of_table(b, node, to)),
        "} else { /* an index beyond the table reads as zeros, never beyond memory */",
        f"    memset({to}, 0, sizeof(float) * {width}u);",
        "}",
        var="p",
    )
    return {"": y}


def _row_of_table(b: Builder, node: Embedding, to: str) -> list[str]:
    """Statements that put row ``k`` of an embedding at ``to``, of all entries or of the live ones: what is smaller."""
    name, width = f"{node.name}.weight", node.params["weight"].shape[1]
    weight = node.weight("weight")
    packed, words = b.table(name, weight, node.patterns.get("weight"))
    clear = f"memset({to}, 0, sizeof(float) * {width}u);"
    if packed is not None and not packed.values.size:
        return [clear]
    scale = "" if words.scale is None else f"{b.scale(name, words)}[k] * (float)"
    ctype = value_type(b.options.weights)
    if packed is None:
        of = f"{b.constant(name, words.values, ctype)} + (uint32_t)k * {width}u"
        if not scale:
            return [f"memcpy({to}, {of}, sizeof(float) * {width}u);"]
        return [f"for (uint32_t i = 0u; i < {width}u; ++i) {{", f"    ({to})[i] = {scale}({of})[i];", "}"]
    values = b.constant(name, packed.values, ctype)
    index = b.constant(f"{name}.index", packed.index, f"{packed.index.dtype.name}_t")
    start = b.constant(f"{name}.start", packed.start, f"{packed.start.dtype.name}_t")
    return [
        clear,
        f"for (uint32_t e = {start}[k]; e < {start}[k + 1]; ++e) {{",
        f"    ({to})[{index}[e]] = {scale}{values}[e];",
        "}",
    ]


def _nest(heads: list[tuple[str, int]], body: list[str]) -> list[str]:
    """Nested loops, outermost first."""
    for var, count in reversed(heads):
        body = [f"for (uint32_t {var} = 0u; {var} < {count}u; ++{var}) {{", *_indent(body), "}"]
    return body


def _flat(parts: list[tuple[str, int]]) -> str:
    """Row-major offset of an index given as (expression, size of the axis)."""
    text = parts[0][0]
    for expr, size in parts[1:]:
        text = f"({text}) * {size}u + {expr}"
    return text


def _conv(b: Builder, node: Conv, inputs: list[Value]) -> Ports:
    """Output channel by output channel, tap by tap: a tap's weight meets every position; dead taps are not stored.

    A sum runs over ascending taps, like that of a linear layer.
    """
    if node.over_time:
        raise UnsupportedError(
            f"convolution '{node.name}' runs over time, and C code that goes step by step sees one step: replace it "
            "by a recurrent layer, or export to ONNX"
        )
    x, name = inputs[0], f"{node.name}.weight"
    out, per_group, *kernel = node.params["weight"].shape
    spatial = x.shape[1:]
    sizes = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(spatial, kernel, node.stride, node.padding, node.dilation, strict=True)
    ]
    packed, words = b.rows(name, node.weight("weight"), node.patterns.get("weight"))
    table = b.constant(name, packed.values, value_type(b.options.weights))
    y, taps, positions = _out(b, node, (out, *sizes)), prod(kernel), prod(sizes)
    heads: list[tuple[str, int]] = []
    body: list[str] = []
    for a, (n, s, p, d, count) in enumerate(zip(spatial, node.stride, node.padding, node.dilation, sizes, strict=True)):
        heads.append((f"p{a}", count))
        body.append(f"const uint32_t q{a} = p{a} * {s}u + k{a} * {d}u{f' - {p}u' if p else ''};")
        if p:  # a position left of the border wraps around to a large one
            body += [f"if (q{a} >= {n}u) {{", "    continue;", "}"]
    at = _flat([("c", 0), *((f"q{a}", n) for a, n in enumerate(spatial))])
    to = f"to[{_flat([(f'p{a}', n) for a, n in enumerate(sizes)])}]"
    body += (
        [f"if ({b.use(x)}[{at}] != 0u) {{", f"    {to} += v;", "}"] if x.spikes else [f"{to} += v * {b.read(x, at)};"]
    )
    group = f" + o / {out // node.groups}u * {per_group}u" if node.groups > 1 else ""
    tap = [f"const uint32_t c = {_axis('j', taps, 0)}{group};"]
    tap += [f"const uint32_t k{a} = {_axis('j', prod(kernel[a + 1 :]), n)};" for a, n in enumerate(kernel)]
    tap += [f"const float v = {'(float)' if words.scale is not None else ''}{table}[at];", "at += 1u;"]
    line = _taps(b, name, packed, per_group * taps, [*tap, *_nest(heads, body)])
    scale = f"{b.scale(name, words)}[o] * " if words.scale is not None else ""
    bias = (
        f" + {b.constant(f'{node.name}.bias', to_float32(node.params['bias'], 'bias'))}[o]"
        if "bias" in node.params
        else ""
    )
    start = [f"float *const to = {y.expr} + o * {positions}u;", f"memset(to, 0, sizeof(float) * {positions}u);"]
    end = _nest([("i", positions)], [f"to[i] = {scale}to[i]{bias};"]) if scale or bias else []
    b.emit("{", "    uint32_t at = 0u;", *_indent(_nest([("o", out)], [*start, *line, *end])), "}")
    return {"": y}


def _taps(b: Builder, name: str, packed: Packed, width: int, body: list[str]) -> list[str]:
    """A loop over the stored taps of output channel ``o``; ``j`` is which one of ``width``."""
    if packed.index is None or packed.count is None:
        return _nest([("j", width)], body)
    index = b.constant(f"{name}.index", packed.index, f"{packed.index.dtype.name}_t")
    count = b.constant(f"{name}.count", packed.count, f"{packed.count.dtype.name}_t")
    head = f"for (uint32_t n = 0u; n < {count}[o]; ++n) {{"
    if packed.gaps:
        return ["uint32_t j = 0u;", head, f"    j += {index}[at];", *_indent(body), "}"]
    return [head, f"    const uint32_t j = {index}[at];", *_indent(body), "}"]


def _axis(index: str, inner: int, size: int) -> str:
    """One axis of a flat index: ``inner`` entries lie behind each of its ``size`` ones, 0 for the outermost axis."""
    text = f"{index} / {inner}u" if inner > 1 else index
    return f"{text} % {size}u" if size > 1 else ("0u" if size == 1 else text)


def _indent(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _pool(b: Builder, node: Pool, inputs: list[Value]) -> Ports:
    x = inputs[0]
    spatial = x.shape[1:]
    sizes = [(n - k) // s + 1 for n, k, s in zip(spatial, node.kernel, node.stride, strict=True)]
    y = _out(b, node, (x.shape[0], *sizes))
    taps = [(f"k{a}", k) for a, k in enumerate(node.kernel)]
    at = _flat(
        [("o", 0), *((f"(p{a} * {s}u + k{a})", n) for a, (n, s) in enumerate(zip(spatial, node.stride, strict=True)))]
    )
    corner = _flat(
        [("o", 0), *((f"p{a} * {s}u", n) for a, (n, s) in enumerate(zip(spatial, node.stride, strict=True)))]
    )
    to = _flat([("o", 0), *((f"p{a}", n) for a, n in enumerate(sizes))])
    if node.how == "max":
        start = f"float sum = {b.read(x, corner)};"
        body = [f"const float v = {b.read(x, at)};", "sum = v > sum ? v : sum;"]
        end = f"{y.expr}[{to}] = sum;"
    else:
        start, body = "float sum = 0.0f;", [f"sum += {b.read(x, at)};"]
        end = f"{y.expr}[{to}] = sum / {prod(node.kernel)}.0f;"
    heads = [("o", x.shape[0]), *((f"p{a}", n) for a, n in enumerate(sizes))]
    b.emit(*_nest(heads, [start, *_nest(taps, body), end]))
    return {"": y}


def _elementwise(b: Builder, node: Elementwise, inputs: list[Value]) -> Ports:
    x = inputs[0]
    if node.fn == "identity":
        return {"": x}
    y = _out(b, node, x.shape)
    if node.fn in ("softmax", "log_softmax"):
        function = b.helper("log_softmax.c", "log_softmax")
        source = b.as_floats(x)
        n = x.shape[-1]
        at = f" + p * {n}u" if x.size > n else ""
        b.each(x.size // n, f"{function}({b.use(source)}{at}, {n}u, {y.expr}{at});", var="p")
        if node.fn == "softmax":
            b.each(x.size, f"{y.expr}[i] = expf({y.expr}[i]);")
        return {"": y}
    value = b.read(x)
    if node.fn == "relu":
        value = f"{value} > 0.0f ? {value} : 0.0f"
    elif node.fn == "tanh":
        value = f"{b.tanh()}({value})"
    else:
        value = f"{b.sigmoid()}({value})"
    b.each(x.size, f"{y.expr}[i] = {value};")
    return {"": y}


def _fold(operator: str) -> Callable[[Builder, Any, list[Value]], Ports]:
    def emit(b: Builder, node: Node, inputs: list[Value]) -> Ports:
        y = _out(b, node, inputs[0].shape)
        b.each(y.size, f"{y.expr}[i] = {f' {operator} '.join(b.read(x) for x in inputs)};")
        return {"": y}

    return emit


def _concat(b: Builder, node: Concat, inputs: list[Value]) -> Ports:
    shape = (*inputs[0].shape[:-1], sum(x.shape[-1] for x in inputs))
    spikes = all(x.spikes for x in inputs)
    y = b.member(node.name, "uint8_t", shape, f"spikes joined by {node.name}") if spikes else _out(b, node, shape)
    offset = 0
    for x in inputs:
        n = x.shape[-1]
        value = f"{b.use(x)}[p * {n}u + i]" if spikes else b.read(x, f"p * {n}u + i")
        b.emit(*_nest([("p", prod(shape[:-1])), ("i", n)], [f"{y.expr}[p * {shape[-1]}u + {offset}u + i] = {value};"]))
        offset += n
    return {"": y}


def _flatten(b: Builder, node: Flatten, inputs: list[Value]) -> Ports:
    x = inputs[0]
    return {"": replace(x, shape=(x.size,))}


def _repeat(b: Builder, node: Repeat, inputs: list[Value]) -> Ports:
    return {"": inputs[0]}


def _time_reduce(b: Builder, node: TimeReduce, inputs: list[Value]) -> Ports:
    """What a step adds; :func:`finish_time_reduce` makes the value of it."""
    x = inputs[0]
    total = b.member(f"{node.name}.value", "float", x.shape, f"{node.how} over time so far")
    entry = f"{total.expr}[i]"
    if node.how in ("sum", "mean"):
        b.each(x.size, f"{entry} += {b.read(x)};")
    elif node.how == "last":
        b.each(x.size, f"{entry} = {b.read(x)};")
    if node.how in ("first", "max", "mean"):
        count = b.member(f"{node.name}.count", "uint32_t", None, f"steps seen by {node.name}").expr
        if node.how == "first":
            b.emit(f"if ({count} == 0u) {{")
            b.each(x.size, f"{entry} = {b.read(x)};")
            b.emit("}")
        elif node.how == "max":
            b.each(x.size, f"{entry} = ({count} == 0u || {b.read(x)} > {entry}) ? {b.read(x)} : {entry};")
        b.emit(f"{count} += 1u;")
        return {"": total, "count": Value(count, (), "uint32_t")}
    return {"": total}


def finish_time_reduce(b: Builder, node: TimeReduce, ports: Mapping[str, Value]) -> Value:
    """The reduced value for the steps so far."""
    total = ports[""]
    if node.how != "mean":
        return total
    y = _out(b, node, total.shape)
    count = ports["count"].expr
    b.each(total.size, f"{y.expr}[i] = {total.expr}[i] / (float)({count} > 0u ? {count} : 1u);")
    return y


EMIT: dict[type[Node], Callable[[Builder, Any, list[Value]], Ports]] = {
    Add: _fold("+"),
    Affine: _affine,
    Concat: _concat,
    Conv: _conv,
    Elementwise: _elementwise,
    Embedding: _embedding,
    Flatten: _flatten,
    Linear: _linear,
    Multiply: _fold("*"),
    Pool: _pool,
    Recurrent: emit_recurrent,
    Repeat: _repeat,
    TimeReduce: _time_reduce,
}
