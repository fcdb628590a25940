"""Recurrent layers over whole sequences: ONNX's operators, or a Scan; and over one step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.cells import GRU
from sparsecirc.export.onnx._builder import Builder, Dim
from sparsecirc.export.onnx._cells import carried, drive, step
from sparsecirc.export.onnx._form import Choice, Consumer, Form, choose, sparse_enough, why_not_operator
from sparsecirc.export.onnx._functions import (
    DOMAIN,
    driven_function,
    driven_inputs,
    driven_name,
    function_name,
    recurrent_function,
)
from sparsecirc.export.onnx._lowering import Lowering, as_float, sparse_product
from sparsecirc.export.onnx._split import groups, in_order, part_of, rows_of
from sparsecirc.ir import Recurrent

_OPERATORS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "rnn_tanh": ("RNN", ("h",), {"activations": ["Tanh"]}),
    "rnn_relu": ("RNN", ("h",), {"activations": ["Relu"]}),
    "gru": ("GRU", ("z", "r", "n"), {"linear_before_reset": 1}),
    "lstm": ("LSTM", ("i", "o", "f", "g"), {}),
}
"""ONNX operator, our gates in ONNX's order, attributes. ONNX calls the new gate of a GRU h, of an LSTM c."""


_ALL = 2**31 - 1
"""An end behind all steps."""


def recurrent(low: Lowering, node: Recurrent) -> None:
    """Write one layer; sets the ports that are read in ``low.values``.

    Raises:
        UnsupportedError: the form asked for does not exist for this cell.
    """
    x = as_float(low, node)
    if low.step:
        ports = _one_step(low, node, x)
    else:
        choice = low.choices[node.name] = choose(node, low.graph, low.form, low.consumer)
        form = choice.form
        wanted = [p for p in node.ports() if _is_read(low, node, p)] or [node.ports()[0]]
        ports = _parted(low, node, x, form, wanted) if low.structure else _whole(low, node, x, form, wanted)
        if "c" in ports and why_not_operator(node, low.graph) is None and form is not Form.SCAN:
            low.last[f"{node.name}.c"] = ports["c"]  # [B, units]
    for port, value in ports.items():
        low.values[f"{node.name}.{port}"] = value
    if node.ports()[0] in ports:
        low.values[node.name] = ports[node.ports()[0]]


def _reordered(node: Recurrent, array: NDArray[Any], gates: tuple[str, ...]) -> NDArray[Any]:
    """Gate blocks of rows in the order of ``gates``."""
    blocks = array.reshape(len(gates), node.units, *array.shape[1:])
    return np.concatenate([blocks[node.cell.gates.index(g)] for g in gates])


def _whole(low: Lowering, node: Recurrent, x: str, form: Form, wanted: list[str]) -> dict[str, str]:
    """Ports of a layer, or of a part of one, over whole sequences."""
    if form is Form.SCAN:
        return _scan(low, node, x, wanted)
    return _operator(low, node, x, form) if why_not_operator(node, low.graph) is None else _driven(low, node, x)


def _parted(low: Lowering, node: Recurrent, x: str, form: Form, wanted: list[str]) -> dict[str, str]:
    """A layer in the parts that it falls into, or whole."""
    units, ordered = groups(node, form), False
    if len(units) == 1 and (node.cell is not GRU or _may_scan(low)):
        units, ordered = in_order(node, form), True
    if len(units) == 1:
        return _whole(low, node, x, form, wanted)
    low.split[node.name] = [len(u) for u in units]
    if ordered and node.cell is GRU and form is Form.OP:
        low.b.packed = low.form is not Form.SCAN
        low.choices[node.name] = Choice(
            Form.SCAN, low.b.packed, "its units read each other in an order, which ONNX's operator cannot use"
        )
    fed = [node.cell.feedback] if ordered and node.cell.feedback not in wanted else []
    made: list[dict[str, str]] = []
    for k, mine in enumerate(units):
        rows, given, reads, beside = rows_of(node, mine), x, None, ""
        read = [j for j in range(k) if ordered and np.any(node.weight("hh")[np.ix_(rows, units[j])])]
        if read:
            reads = np.concatenate([units[j] for j in read])
            before = [_shifted(low, node, made[j][node.cell.feedback], j) for j in read]
            if node.cell is GRU:
                earlier = low.b.op("Concat", before, f"{node.name}.part{k}.earlier", axis=-1)
                weight = node.weight("hh")[np.ix_(rows, reads)]
                beside, reads = low.b.linear(earlier, weight, None, 3, f"{node.name}.part{k}.beside"), None
            else:
                given = low.b.op("Concat", [x, *before], f"{node.name}.part{k}.input", axis=-1)
        part = part_of(node, mine, k, reads)
        if ordered and node.cell is GRU:
            made.append(_scan(low, part, given, [*wanted, *fed], beside))
        else:
            made.append(_whole(low, part, given, form, [*wanted, *fed]))
    return _together(low, node, made, units)


def _may_scan(low: Lowering) -> bool:
    """Whether a layer that has an operator may become Scans: they are slow in OpenVINO and tract."""
    return low.form is not Form.OP and low.consumer in (Consumer.ANY, Consumer.ONNXRUNTIME, Consumer.LIBRARY)


def _shifted(low: Lowering, node: Recurrent, h: str, k: int) -> str:
    """The state of the step before at every step, zero at the first; of a reverse layer that of the step after."""
    name, b = f"{node.name}.part{k}.before", low.b  # tract dies of a Pad that takes something away
    begin, end, pads = (1, _ALL, [0, 0, 0, 1, 0, 0]) if node.reverse else (0, -1, [1, 0, 0, 0, 0, 0])
    ends = [b.ints([v], f"{name}.{what}") for v, what in ((begin, "from"), (end, "to"), (0, "axis"))]
    return b.op("Pad", [b.op("Slice", [h, *ends], f"{name}.steps"), b.ints(pads, f"{name}.pads")], name)


def _together(
    low: Lowering, node: Recurrent, parts: list[dict[str, str]], units: list[NDArray[np.intp]]
) -> dict[str, str]:
    """Ports of the parts side by side, units in their own order."""
    order = np.argsort(np.concatenate(units))
    ports = {}
    for port in parts[0]:
        name = f"{node.name}.{port}"
        joined = low.b.op("Concat", [p[port] for p in parts], f"{name}.parts", axis=-1)
        if np.array_equal(order, np.arange(node.units)):
            ports[port] = joined
        else:
            ports[port] = low.b.op("Gather", [joined, low.b.ints(order.tolist(), f"{name}.order")], name, axis=-1)
    return ports


def _operator(low: Lowering, node: Recurrent, x: str, form: Form) -> dict[str, str]:
    """ONNX's operator, or the function of our domain that has it as its body."""
    b, n = low.b, node.name
    kind, gates, attributes = _OPERATORS[node.cell.name]
    custom = form is Form.CUSTOM
    inputs = [x]
    if node.cell.n_gates == 1:
        gates = node.cell.gates
    inputs += [b.matrix(_reordered(node, node.weight(role), gates), f"{n}.{role}", first=True) for role in ("ih", "hh")]
    zeros = np.zeros(node.cell.n_gates * node.units)
    biases = [_reordered(node, np.asarray(node.params.get(r, zeros)), gates) for r in ("bias_ih", "bias_hh")]
    biased = custom or any(r in node.params for r in ("bias_ih", "bias_hh"))
    if biased or low.lengths:
        inputs.append(b.const(np.concatenate(biases)[None], f"{n}.bias") if biased else "")
    if low.lengths:
        inputs.append(low.lengths)
    lstm = node.cell.name == "lstm"
    attributes = {"direction": "reverse" if node.reverse else "forward", **attributes}
    if custom:
        ragged, hints = bool(low.lengths), [f"{n}.h", *([f"{n}.c.last"] if lstm else [])]
        name = low.function(
            function_name(kind, attributes, ragged=ragged),
            lambda: recurrent_function(b.onnx, kind, attributes, lstm=lstm, ragged=ragged, opset=low.opset),
        )
        h, *last = b.ops(name, inputs, hints, label=n, domain=DOMAIN, hidden_size=node.units)
        ports = {"h": h}
    else:
        hints = [f"{n}.h.directed", "", f"{n}.c.last_directed"] if lstm else [f"{n}.h.directed"]
        y, *rest = b.ops(kind, inputs, hints, label=n, hidden_size=node.units, **attributes)
        ports = {"h": b.op("Squeeze", [y, b.ints([1], f"{n}.h.axes")], f"{n}.h")}  # [T, 1, B, units]
        last = [b.op("Squeeze", [rest[-1], b.ints([0], f"{n}.c.axes")], f"{n}.c.last")] if lstm else []
    return ports | ({"c": last[0]} if lstm else {})  # [B, units]


def _driven(low: Lowering, node: Recurrent, x: str) -> dict[str, str]:
    """A function of our domain for what ONNX has no operator for, behind the input product."""
    b, n, ragged = low.b, node.name, bool(low.lengths)
    if "ih" in node.params and sparse_enough(node.weight("ih")):
        bias = node.weight("bias_ih") if "bias_ih" in node.params else None
        driven = sparse_product(low, x, node.inputs[0], node.weight("ih"), bias, f"{n}.drive")
    else:
        driven = drive(b, node, x, low.rank(node.inputs[0]))
    held = [np.broadcast_to(v, node.units) for v in node.vectors().values()]
    zeros = np.zeros(node.cell.n_gates * node.units)
    given = {
        "D": lambda: driven,
        "R": lambda: b.matrix(node.weight("hh"), f"{n}.hh"),
        "B": lambda: b.const(node.params.get("bias_hh", zeros), f"{n}.bias_hh"),
        "P": lambda: b.matrix(node.weight("hr"), f"{n}.hr"),
        "V": lambda: b.const(np.stack(held), f"{n}.vectors"),
        "lengths": lambda: low.lengths,
    }
    name = low.function(
        driven_name(node, ragged=ragged), lambda: driven_function(node, ragged=ragged, opset=low.opset)
    )  # fmt: skip
    inputs = [given[k]() for k in driven_inputs(node, ragged=ragged)]
    states = node.cell.states
    made = b.ops(name, inputs, [f"{n}.{s}" for s in states], label=n, domain=DOMAIN)
    return dict(zip(states, made, strict=True))


def _scan(low: Lowering, node: Recurrent, x: str, wanted: list[str], beside: str = "") -> dict[str, str]:
    """A Scan over one step; ``beside`` (T, B, gates * units) is added to the recurrent product."""
    b, n, shapes = low.b, node.name, node.states()
    driven = drive(b, node, x, low.rank(node.inputs[0]))
    body = b.body()
    batch = b.op("Shape", [driven], f"{n}.batch", start=1, end=2)
    names, initial = carried(node), []
    zero = b.onnx.numpy_helper.from_array(np.zeros(1, np.float32))
    for s in names:
        shape = b.op("Concat", [batch, b.ints(shapes[s], f"{n}.{s}.units")], f"{n}.{s}.shape", axis=0)
        # said aloud: tract takes a missing value for a float64
        initial.append(b.op("ConstantOfShape", [shape], f"{n}.{s}.zero", value=zero))
    state = {s: b.name(f"{n}.{s}.before") for s in names}
    inner = [b.name(f"{n}.drive_t"), *([b.name(f"{n}.beside_t")] if beside else [])]
    new = step(body, node, inner[0], state, inner[-1] if beside else "")
    scanned = [driven, *([beside] if beside else [])]
    if low.lengths:
        inner.append(b.name(f"{n}.live_t"))
        scanned.append(b.op("Cast", [low.live(node.inputs[0])[1]], f"{n}.live", to=b.onnx.TensorProto.FLOAT))
        finals, emitted = _held(body, node, new, state, wanted, inner[-1])
    else:
        finals = [body.op("Identity", [new[s]], f"{n}.{s}.after") for s in names]
        emitted = [body.op("Identity", [new[p]], f"{n}.{p}_t") for p in wanted]
    drive_shape = low.specs[node.inputs[0]].shape if "ih" not in node.params else (node.cell.n_gates * node.units,)
    info = body.value_info
    carried_in = [info(state[s], ["B", *shapes[s]]) for s in names]
    wide: list[Dim] = ["B", *drive_shape]
    given: list[list[Dim]] = [wide, wide, ["B"]] if beside else [wide, ["B"]]
    graph = body.graph(
        f"{n}.step",
        [*carried_in, *(info(v, shape) for v, shape in zip(inner, given, strict=False))],
        [
            *(info(v, ["B", *shapes[s]]) for s, v in zip(names, finals, strict=True)),
            *(info(v, ["B", *shapes[p]]) for p, v in zip(wanted, emitted, strict=True)),
        ],
    )
    directions: dict[str, Any] = {}
    if node.reverse:
        directions = {"scan_input_directions": [1] * len(scanned), "scan_output_directions": [1] * len(wanted)}
    hints = [*(f"{n}.{s}.last" for s in names), *(f"{n}.{p}" for p in wanted)]
    outputs = b.ops("Scan", [*initial, *scanned], hints, body=graph, num_scan_inputs=len(scanned), **directions)
    return dict(zip(wanted, outputs[len(names) :], strict=True))


def _held(
    body: Builder, node: Recurrent, new: dict[str, str], state: dict[str, str], wanted: list[str], live: str
) -> tuple[list[str], list[str]]:
    """States after, and what is put out: past its end a sample keeps its state and emits zeros."""
    n, shapes = node.name, node.states()
    zero = body.const(0.0, f"{n}.ended")

    def valid(s: str) -> str:
        wide = body.op("Reshape", [live, body.ints([0] + [1] * len(shapes[s]), f"{n}.{s}.wide")], f"{n}.{s}.live_wide")
        return body.op("Cast", [wide], f"{n}.{s}.valid", to=body.onnx.TensorProto.BOOL)

    kept = [body.op("Where", [valid(s), new[s], state[s]], f"{n}.{s}.after") for s in state]
    return kept, [body.op("Where", [valid(p), new[p], zero], f"{n}.{p}_t") for p in wanted]


def _is_read(low: Lowering, node: Recurrent, port: str) -> bool:
    """Whether anybody reads this port; writing out a sequence nobody reads costs time at every step."""
    values = {f"{node.name}.{port}", *((node.name,) if port == node.ports()[0] else ())}
    read = {v for n in low.graph.nodes for v in n.inputs} | set(low.graph.outputs.values())
    return bool(values & read)


def _one_step(low: Lowering, node: Recurrent, x: str) -> dict[str, str]:
    b: Builder = low.b
    shapes = node.states()
    state = {s: low.state_in(node.name, s, shapes[s]) for s in carried(node)}
    new = step(b, node, drive(b, node, x, low.rank(node.inputs[0])), state)
    for s in state:
        low.state_out(node.name, s, new[s])
    return new
