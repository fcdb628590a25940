"""`Lowering`: the state of one translation, and the layers that have no recurrence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.export.onnx._builder import Builder, Dim
from sparsecirc.export.onnx._form import Choice, Consumer, Form, sparse_enough
from sparsecirc.export.onnx._functions import DOMAIN, linear_function, live_steps
from sparsecirc.ir import (
    Add,
    Affine,
    Concat,
    Conv,
    Elementwise,
    Embedding,
    Flatten,
    Graph,
    Linear,
    Multiply,
    Node,
    Pool,
    Repeat,
    Spec,
    TimeReduce,
)


@dataclass
class Lowering:
    """One translation of a graph.

    Attributes:
        graph: what is translated.
        b: where the ONNX nodes go.
        step: one time step without the time axis; else whole sequences (T, B, ...).
        form: how recurrent layers are asked for.
        consumer: who will read the file.
        opset: of the file.
        values: ONNX name of each graph value.
        last: ONNX name of the value after the last step, for sequences that ONNX gives no other way.
        times: length of the time axis by graph value: a symbol, or a number where it is fixed.
        states: of the step file: state name -> (input name, output name, feature shape).
        choices: how recurrent layers are written, and why, by layer.
        lengths: name of the input (B,) int32 of valid steps per sample, or "".
        structure: layers that fall apart are written in parts.
        functions: of our domain that nodes call, by name.
        split: units of each part, by layer that was split.
    """

    graph: Graph
    b: Builder
    step: bool
    form: Form
    opset: int
    values: dict[str, str] = field(default_factory=dict)
    last: dict[str, str] = field(default_factory=dict)
    times: dict[str, Dim] = field(default_factory=dict)
    states: dict[str, tuple[str, str, tuple[int, ...]]] = field(default_factory=dict)
    choices: dict[str, Choice] = field(default_factory=dict)
    consumer: Consumer = Consumer.ANY
    lengths: str = ""
    structure: bool = True
    functions: dict[str, Any] = field(default_factory=dict)
    split: dict[str, list[int]] = field(default_factory=dict)
    _live: dict[Dim, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.specs = self.graph.specs

    @property
    def own_products(self) -> bool:
        """Whether sparse products become operators of ours; step files hold none."""
        ours = self.form is Form.CUSTOM or (self.form is Form.AUTO and self.consumer is Consumer.LIBRARY)
        return ours and not self.step

    def lead(self, value: str) -> int:
        """Axes before the features: batch, and time where there is one."""
        return 2 if self.specs[value].time and not self.step else 1

    def rank(self, value: str) -> int:
        """Axes of a value in the ONNX graph."""
        return self.lead(value) + len(self.specs[value].shape)

    def dims(self, spec: Spec, time: Dim, *, batch_first: bool = False) -> list[Dim]:
        """Shape of an input or output."""
        if not spec.time or self.step:
            return ["B", *spec.shape]
        return ["B", time, *spec.shape] if batch_first else [time, "B", *spec.shape]

    def live(self, value: str) -> tuple[str, str]:
        """Of a sequence of the graph: its steps 0, 1, ... as int64 (T, 1), and which are valid, bool (T, B)."""
        time = self.times[value if value in self.times else value.rpartition(".")[0]]
        if time not in self._live:
            self._live[time] = live_steps(self.b, self.values[value], self.lengths)
        return self._live[time]

    def function(self, name: str, make: Callable[[], Any]) -> str:
        """``name``, of a function of our domain, which is added to the file once."""
        if name not in self.functions:
            self.functions[name] = make()
        return name

    def state_in(self, node: str, name: str, shape: tuple[int, ...]) -> str:
        """A state input of the step file."""
        key = f"{node}.{name}"
        given = self.b.name(key)
        self.states[key] = (given, self.b.name(f"{given}.next"), shape)
        return given

    def state_out(self, node: str, name: str, value: str) -> None:
        """The state output that belongs to :meth:`state_in`."""
        self.b.nodes.append(self.b.onnx.helper.make_node("Identity", [value], [self.states[f"{node}.{name}"][1]]))


def as_float(low: Lowering, node: Node, k: int = 0) -> str:
    """Input ``k`` of ``node`` as float32."""
    value = low.values[node.inputs[k]]
    if value not in low.b.integers:
        return value
    return low.b.op("Cast", [value], f"{node.name}.float", to=low.b.onnx.TensorProto.FLOAT)


def sparse_product(low: Lowering, x: str, source: str, weight: NDArray[Any], bias: NDArray[Any] | None, n: str) -> str:
    """W x + b along the last axis by our operator, whose function is a MatMul."""
    b = low.b
    name = "LinearSpikes" if low.specs[source].spikes else "Linear"
    low.function(name, lambda: linear_function(b.onnx, name, low.opset))
    offset = b.const(np.zeros(len(weight)) if bias is None else bias, f"{n}.bias")
    return b.op(name, [x, b.matrix(weight, f"{n}.weight"), offset], n, domain=DOMAIN)


def _linear(low: Lowering, node: Linear) -> str:
    bias = node.weight("bias") if "bias" in node.params else None
    if low.own_products and sparse_enough(node.weight("weight")):
        return sparse_product(low, as_float(low, node), node.inputs[0], node.weight("weight"), bias, node.name)
    return low.b.linear(as_float(low, node), node.weight("weight"), bias, low.rank(node.inputs[0]), node.name)


def _affine(low: Lowering, node: Affine) -> str:
    y = as_float(low, node)
    for role, kind in (("scale", "Mul"), ("shift", "Add")):
        if role in node.params:
            y = low.b.op(kind, [y, low.b.const(node.weight(role), f"{node.name}.{role}")], node.name)
    return y


def _embedding(low: Lowering, node: Embedding) -> str:
    index = low.values[node.inputs[0]]
    if index not in low.b.integers:
        index = low.b.op("Cast", [index], f"{node.name}.index", to=low.b.onnx.TensorProto.INT64)
    return low.b.op("Gather", [low.b.matrix(node.weight("weight"), f"{node.name}.weight"), index], node.name, axis=0)


def _per_step(low: Lowering, node: Node, kind: str, constants: list[str], **attributes: Any) -> str:
    """An operator on (N, channels, *space): time and batch are joined before it and parted after it."""
    b, x = low.b, as_float(low, node)
    if low.lead(node.inputs[0]) == 1:
        return b.op(kind, [x, *constants], node.name, **attributes)
    lead = b.op("Shape", [x], f"{node.name}.lead", start=0, end=2)
    joined = b.ints([-1, *low.specs[node.inputs[0]].shape], f"{node.name}.joined_shape")
    y = b.op("Reshape", [x, joined], f"{node.name}.joined")
    y = b.op(kind, [y, *constants], f"{node.name}.each", **attributes)
    features = b.ints(low.specs[node.name].shape, f"{node.name}.features")
    return b.op("Reshape", [y, b.op("Concat", [lead, features], f"{node.name}.shape", axis=0)], node.name)


def _conv(low: Lowering, node: Conv) -> str:
    b, weight = low.b, node.weight("weight")
    constants = [b.const(weight, f"{node.name}.weight")]
    if "bias" in node.params:
        constants.append(b.const(node.weight("bias"), f"{node.name}.bias"))
    attributes = {
        "kernel_shape": list(weight.shape[2:]),
        "strides": list(node.stride),
        "pads": [*node.padding, *node.padding],
        "dilations": list(node.dilation),
        "group": node.groups,
    }
    if not node.over_time:
        return _per_step(low, node, "Conv", constants, **attributes)
    x = b.op("Transpose", [as_float(low, node)], f"{node.name}.time_last", perm=[1, 2, 0])  # [B, in, T]
    y = b.op("Conv", [x, *constants], f"{node.name}.over_time", **attributes)
    return b.op("Transpose", [y], node.name, perm=[2, 0, 1])


def _pool(low: Lowering, node: Pool) -> str:
    kind = "MaxPool" if node.how == "max" else "AveragePool"
    return _per_step(low, node, kind, [], kernel_shape=list(node.kernel), strides=list(node.stride))


_FUNCTIONS = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "identity": "Identity"}


def _elementwise(low: Lowering, node: Elementwise) -> str:
    if node.fn in _FUNCTIONS:
        return low.b.op(_FUNCTIONS[node.fn], [as_float(low, node)], node.name)
    kind = "Softmax" if node.fn == "softmax" else "LogSoftmax"
    return low.b.op(kind, [as_float(low, node)], node.name, axis=-1)


def _combine(low: Lowering, node: Add) -> str:
    kind = "Mul" if isinstance(node, Multiply) else "Add"
    y = as_float(low, node)
    for k in range(1, len(node.inputs)):
        y = low.b.op(kind, [y, as_float(low, node, k)], node.name)
    return y


def _concat(low: Lowering, node: Concat) -> str:
    return low.b.op("Concat", [as_float(low, node, k) for k in range(len(node.inputs))], node.name, axis=-1)


def _flatten(low: Lowering, node: Flatten) -> str:
    # 0 keeps an axis as it is, so time and batch stay free.
    shape = [0] * low.lead(node.inputs[0]) + [int(np.prod(low.specs[node.inputs[0]].shape))]
    return low.b.op("Reshape", [as_float(low, node), low.b.ints(shape, f"{node.name}.shape")], node.name)


def _repeat(low: Lowering, node: Repeat) -> str:
    x = as_float(low, node)
    if low.step:
        return low.b.op("Identity", [x], node.name)
    shape = [node.steps] + [1] * low.rank(node.inputs[0])
    return low.b.op("Expand", [x, low.b.ints(shape, f"{node.name}.steps")], node.name)


def _time_reduce(low: Lowering, node: TimeReduce) -> str:
    if low.step:
        return _time_reduce_step(low, node)
    b = low.b
    if node.inputs[0] in low.last:  # only where `node.how` asks for that very step
        return b.op("Identity", [low.last[node.inputs[0]]], node.name)
    if low.lengths:
        return _time_reduce_ragged(low, node)
    x = as_float(low, node)
    if node.how in ("last", "first"):
        index = b.const(-1 if node.how == "last" else 0, f"{node.name}.index", np.int64)
        return b.op("Gather", [x, index], node.name, axis=0)
    kind = {"sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax"}[node.how]
    return _over_time(low, kind, x, node.name)


def _over_time(low: Lowering, kind: str, x: str, hint: str) -> str:
    """A reduction along the first axis."""
    if kind == "ReduceSum" or low.opset >= 18:  # axes became an input in 13 for the sum, in 18 for the others
        return low.b.op(kind, [x, low.b.ints([0], f"{hint}.axes")], hint, keepdims=0)
    return low.b.op(kind, [x], hint, axes=[0], keepdims=0)


def _time_reduce_ragged(low: Lowering, node: TimeReduce) -> str:
    """The reduction over the valid steps of each sample; zeros where it has none."""
    b, n, x, features = low.b, node.name, as_float(low, node), [1] * len(node.feature_shape)
    step, live = low.live(node.inputs[0])
    count = _over_time(low, "ReduceSum", b.op("Cast", [live], f"{n}.number", to=b.onnx.TensorProto.INT64), f"{n}.count")
    if node.how == "last":
        live = b.op("Equal", [step, b.op("Sub", [count, b.ints([1], f"{n}.one")], f"{n}.end")], f"{n}.ends")
    elif node.how == "first":
        live = b.op("And", [live, b.op("Equal", [step, b.ints([0], f"{n}.start")], f"{n}.starts")], f"{n}.begins")
    wide = b.op("Reshape", [live, b.ints([0, 0, *features], f"{n}.wide")], f"{n}.valid")
    zero = b.const(0.0, f"{n}.zero")
    if node.how != "max":
        chosen = b.op("Where", [wide, x, zero], f"{n}.chosen")
        if node.how != "mean":
            return _over_time(low, "ReduceSum", chosen, n)
        total = _over_time(low, "ReduceSum", chosen, f"{n}.total")
        some = b.op("Max", [count, b.ints([1], f"{n}.least")], f"{n}.some")
        some = b.op("Cast", [some], f"{n}.steps", to=b.onnx.TensorProto.FLOAT)
        return b.op("Div", [total, b.op("Reshape", [some, b.ints([0, *features], f"{n}.shape")], f"{n}.by")], n)
    chosen = b.op("Where", [wide, x, b.const(-np.inf, f"{n}.lowest")], f"{n}.chosen")
    any_step = b.op("Reshape", [b.op("Greater", [count, b.ints([0], f"{n}.none")], f"{n}.some"),
                                b.ints([0, *features], f"{n}.shape")], f"{n}.any")  # fmt: skip
    return b.op("Where", [any_step, _over_time(low, "ReduceMax", chosen, f"{n}.most"), zero], n)


def _time_reduce_step(low: Lowering, node: TimeReduce) -> str:
    """The reduction over the steps so far, from what it carries."""
    b, x, n = low.b, as_float(low, node), node.name
    if node.how == "last":
        return b.op("Identity", [x], n)
    value = low.state_in(n, "value", node.feature_shape)
    if node.how == "sum":
        new = b.op("Add", [value, x], n)
        low.state_out(n, "value", new)
        return new
    count = low.state_in(n, "count", ())
    more = b.op("Add", [count, b.const(1.0, f"{n}.one")], f"{n}.count.new")
    low.state_out(n, "count", more)
    wide = b.ints([0] + [1] * len(node.feature_shape), f"{n}.wide")
    if node.how == "mean":
        new = b.op("Add", [value, x], f"{n}.value.new")
        result = b.op("Div", [new, b.op("Reshape", [more, wide], f"{n}.count.wide")], n)
    else:
        begun = b.op("Greater", [count, b.const(0.0, f"{n}.zero")], f"{n}.begun")
        begun = b.op("Reshape", [begun, wide], f"{n}.begun.wide")
        later = value if node.how == "first" else b.op("Max", [value, x], f"{n}.larger")
        new = result = b.op("Where", [begun, later, x], n)
    low.state_out(n, "value", new)
    return result


LAYERS: dict[type[Node], Callable[[Lowering, Any], str]] = {
    Add: _combine,
    Affine: _affine,
    Concat: _concat,
    Conv: _conv,
    Elementwise: _elementwise,
    Embedding: _embedding,
    Flatten: _flatten,
    Linear: _linear,
    Multiply: _combine,
    Pool: _pool,
    Repeat: _repeat,
    TimeReduce: _time_reduce,
}
"""How each node without a recurrence is written; each returns the name of its value."""
