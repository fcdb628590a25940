"""Recurrent layers over whole sequences: ONNX's operators, or a Scan; and over one step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.export.onnx._builder import Builder
from sparsecirc.export.onnx._cells import carried, drive, step
from sparsecirc.export.onnx._form import Form, choose
from sparsecirc.export.onnx._lowering import Lowering, as_float
from sparsecirc.ir import Recurrent

_OPERATORS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "rnn_tanh": ("RNN", ("h",), {"activations": ["Tanh"]}),
    "rnn_relu": ("RNN", ("h",), {"activations": ["Relu"]}),
    "gru": ("GRU", ("z", "r", "n"), {"linear_before_reset": 1}),
    "lstm": ("LSTM", ("i", "o", "f", "g"), {}),
}
"""ONNX operator, our gates in ONNX's order, attributes. ONNX calls the new gate of a GRU h, of an LSTM c."""


def recurrent(low: Lowering, node: Recurrent) -> None:
    """Write one layer; sets the ports that are read in ``low.values``.

    Raises:
        UnsupportedError: the form asked for does not exist for this cell.
    """
    x = as_float(low, node)
    if low.step:
        ports = _one_step(low, node, x)
    elif choose(node, low.graph, low.form) is Form.OP:
        low.forms[node.name] = Form.OP
        ports = _operator(low, node, x)
    else:
        low.forms[node.name] = Form.SCAN
        ports = _scan(low, node, x)
    for port, value in ports.items():
        low.values[f"{node.name}.{port}"] = value
    if node.ports()[0] in ports:
        low.values[node.name] = ports[node.ports()[0]]


def _reordered(node: Recurrent, array: NDArray[Any], gates: tuple[str, ...]) -> NDArray[Any]:
    """Gate blocks of rows in the order of ``gates``."""
    blocks = array.reshape(len(gates), node.units, *array.shape[1:])
    return np.concatenate([blocks[node.cell.gates.index(g)] for g in gates])


def _operator(low: Lowering, node: Recurrent, x: str) -> dict[str, str]:
    b, n = low.b, node.name
    kind, gates, attributes = _OPERATORS[node.cell.name]
    inputs = [x]
    if node.cell.n_gates == 1:
        gates = node.cell.gates
    inputs += [b.const(_reordered(node, node.weight(role), gates)[None], f"{n}.{role}") for role in ("ih", "hh")]
    zeros = np.zeros(node.cell.n_gates * node.units)
    biases = [_reordered(node, np.asarray(node.params.get(r, zeros)), gates) for r in ("bias_ih", "bias_hh")]
    if any(r in node.params for r in ("bias_ih", "bias_hh")):
        inputs.append(b.const(np.concatenate(biases)[None], f"{n}.bias"))
    lstm = node.cell.name == "lstm"
    hints = [f"{n}.h.directed", "", f"{n}.c.last_directed"] if lstm else [f"{n}.h.directed"]
    direction = "reverse" if node.reverse else "forward"
    y, *rest = b.ops(kind, inputs, hints, hidden_size=node.units, direction=direction, **attributes)
    ports = {"h": b.op("Squeeze", [y, b.ints([1], f"{n}.h.axes")], f"{n}.h")}  # [T, 1, B, units]
    if lstm:
        last = b.op("Squeeze", [rest[-1], b.ints([0], f"{n}.c.axes")], f"{n}.c.last")  # [1, B, units]
        low.last[f"{n}.c"] = ports["c"] = last
    return ports


def _scan(low: Lowering, node: Recurrent, x: str) -> dict[str, str]:
    b, n, shapes = low.b, node.name, node.states()
    driven = drive(b, node, x, low.rank(node.inputs[0]))
    body = b.body()
    batch = b.op("Shape", [driven], f"{n}.batch", start=1, end=2)
    names, initial = carried(node), []
    for s in names:
        shape = b.op("Concat", [batch, b.ints(shapes[s], f"{n}.{s}.units")], f"{n}.{s}.shape", axis=0)
        initial.append(b.op("ConstantOfShape", [shape], f"{n}.{s}.zero"))
    state = {s: b.name(f"{n}.{s}.before") for s in names}
    inner = b.name(f"{n}.drive_t")
    new = step(body, node, inner, state)
    wanted = [p for p in node.ports() if _is_read(low, node, p)] or [node.ports()[0]]
    finals = [body.op("Identity", [new[s]], f"{n}.{s}.after") for s in names]
    emitted = [body.op("Identity", [new[p]], f"{n}.{p}_t") for p in wanted]
    drive_shape = low.specs[node.inputs[0]].shape if "ih" not in node.params else (node.cell.n_gates * node.units,)
    info = body.value_info
    graph = body.graph(
        f"{n}.step",
        [*(info(state[s], ["B", *shapes[s]]) for s in names), info(inner, ["B", *drive_shape])],
        [
            *(info(v, ["B", *shapes[s]]) for s, v in zip(names, finals, strict=True)),
            *(info(v, ["B", *shapes[p]]) for p, v in zip(wanted, emitted, strict=True)),
        ],
    )
    directions: dict[str, Any] = {}
    if node.reverse:
        directions = {"scan_input_directions": [1], "scan_output_directions": [1] * len(wanted)}
    hints = [*(f"{n}.{s}.last" for s in names), *(f"{n}.{p}" for p in wanted)]
    outputs = b.ops("Scan", [*initial, driven], hints, body=graph, num_scan_inputs=1, **directions)
    return dict(zip(wanted, outputs[len(names) :], strict=True))


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
