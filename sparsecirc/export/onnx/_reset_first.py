"""The GRU whose reset acts before the recurrent product."""

from __future__ import annotations

import numpy as np

from sparsecirc.export.onnx._form import Choice, Form
from sparsecirc.export.onnx._lowering import Lowering, as_float
from sparsecirc.ir import ResetFirstGru


def reset_first(low: Lowering, node: ResetFirstGru) -> None:
    """ONNX's GRU with ``linear_before_reset = 0``, or one step of it spelled out."""
    value = _step(low, node) if low.step else _sequence(low, node)
    low.values[node.name] = low.values[f"{node.name}.h"] = value


def _sequence(low: Lowering, node: ResetFirstGru) -> str:
    b, n, units = low.b, node.name, node.units
    low.choices[n] = Choice(Form.OP, b.packed, "ONNX has an operator for it")
    zeros = np.zeros(3 * units)
    order = np.concatenate([np.arange(units, 2 * units), np.arange(units), np.arange(2 * units, 3 * units)])  # z, r, h
    inputs = [as_float(low, node), *(b.matrix(node.weight(r)[order], f"{n}.{r}", first=True) for r in ("ih", "hh"))]
    biases = [np.asarray(node.params.get(r, zeros))[order] for r in ("bias_ih", "bias_hh")]
    inputs.append(b.const(np.concatenate(biases)[None], f"{n}.bias"))
    if low.lengths:
        inputs.append(low.lengths)
    direction = "reverse" if node.reverse else "forward"
    y = b.ops(
        "GRU", inputs, [f"{n}.h.directed"], label=n, hidden_size=units, direction=direction, linear_before_reset=0
    )
    return b.op("Squeeze", [y[0], b.ints([1], f"{n}.h.axes")], f"{n}.h")


def _step(low: Lowering, node: ResetFirstGru) -> str:
    b, n, units = low.b, node.name, node.units
    x, h = as_float(low, node), low.state_in(n, "h", (units,))
    driven = b.linear(x, node.weight("ih"), node.params.get("bias_ih"), 2, f"{n}.drive")
    bias = node.params.get("bias_hh")
    sizes = b.ints([2 * units, units], f"{n}.sizes")
    a_rz, a_n = b.ops("Split", [driven, sizes], [f"{n}.a.rz", f"{n}.a.n"], axis=-1)
    halves = None if bias is None else (bias[: 2 * units], bias[2 * units :])
    rec = b.linear(h, node.weight("hh")[: 2 * units], halves and halves[0], 2, f"{n}.rec")
    gates = b.op("Sigmoid", [b.op("Add", [a_rz, rec], f"{n}.pre")], f"{n}.gates")
    r, z = b.ops("Split", [gates, b.ints([units, units], f"{n}.halves")], [f"{n}.r", f"{n}.z"], axis=-1)
    kept = b.op("Mul", [r, h], f"{n}.reset")
    inner = b.linear(kept, node.weight("hh")[2 * units :], halves and halves[1], 2, f"{n}.inner")
    new = b.op("Tanh", [b.op("Add", [a_n, inner], f"{n}.n.pre")], f"{n}.n")
    rest = b.op("Sub", [b.const(1.0, f"{n}.one"), z], f"{n}.z.rest")
    terms = [b.op("Mul", [rest, new], f"{n}.h.added"), b.op("Mul", [z, h], f"{n}.h.kept")]
    y = b.op("Add", terms, f"{n}.h.new")
    low.state_out(n, "h", y)
    return y
