"""Functions of our domain: what a runtime without our library runs in the place of our operators.

Operators of the library are in ``library/layers.c`` (what ONNX has operators for), ``driven.c`` (neurons, projections)
and ``products.c``; the names here are theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparsecirc.cells import ALIF, LI, Reset
from sparsecirc.export.onnx._builder import Builder
from sparsecirc.export.onnx._cells import carried, step
from sparsecirc.ir import Recurrent

DOMAIN = "sparsecirc"
"""Of our operators and of the functions that say what they mean."""
_INPUTS = {"hh": "R", "bias_hh": "B", "hr": "P"}
"""Input of a function that holds a weight of the layer."""


def function_name(kind: str, attributes: Mapping[str, Any], *, ragged: bool) -> str:
    """``"Gru"``, ``"RnnTanhReverseRagged"``: as ``library/layers.c`` calls it."""
    activation = attributes.get("activations", [""])[0]
    reverse = "Reverse" if attributes["direction"] == "reverse" else ""
    return f"{kind.capitalize()}{activation}{reverse}{'Ragged' if ragged else ''}"


def recurrent_function(
    onnx: Any, kind: str, attributes: Mapping[str, Any], *, lstm: bool, ragged: bool, opset: int
) -> Any:
    """A FunctionProto: (X, W, R, B[, lengths]) -> h of every step (T, B, units), and c after the last one (B, units).

    The body is ONNX's operator with the function's ``hidden_size``. The direction is part of the name: the reference
    evaluator reads it before it knows the function's attributes.
    """
    helper = onnx.helper
    inputs = ["X", "W", "R", "B", *(["lengths"] if ragged else [])]
    outputs = ["H", "C"] if lstm else ["H"]
    operator = helper.make_node(kind, inputs, ["Y", "", "Y_c"] if lstm else ["Y"], **attributes)
    size = "hidden_size"
    operator.attribute.append(onnx.AttributeProto(name=size, type=onnx.AttributeProto.INT, ref_attr_name=size))
    nodes = [operator]
    for value, squeezed, axis in (("Y", "H", 1), ("Y_c", "C", 0))[: len(outputs)]:
        nodes.append(helper.make_node("Constant", [], [f"{squeezed}_axis"], value_ints=[axis]))
        nodes.append(helper.make_node("Squeeze", [value, f"{squeezed}_axis"], [squeezed]))
    name = function_name(kind, attributes, ragged=ragged)
    imports = [helper.make_opsetid("", opset)]
    return helper.make_function(DOMAIN, name, inputs, outputs, nodes, imports, [size])


class FunctionBuilder(Builder):
    """Nodes of a function, which has no constants but nodes that make them, and weights that are inputs.

    Args:
        names: of the function's inputs and outputs.
        opset: of the function.
    """

    def __init__(self, names: Sequence[str] | set[str], opset: int) -> None:
        super().__init__(names)
        self.opset = opset

    def body(self) -> FunctionBuilder:
        """A builder for a subgraph, sharing the names."""
        return FunctionBuilder(self.names, self.opset)

    def const(self, value: ArrayLike, hint: str, dtype: Any = np.float32) -> str:
        """A node that makes a constant."""
        super().const(value, hint, dtype)
        tensor = self.constants.pop()
        self.nodes.append(self.onnx.helper.make_node("Constant", [], [tensor.name], value=tensor))
        return str(tensor.name)

    def product(self, x: str, node: Recurrent, role: str, bias_role: str, hint: str) -> str:
        """The input that holds a matrix times a state."""
        bias = [_INPUTS[bias_role]] if bias_role else []
        return self.op("Gemm", [x, _INPUTS[role], *bias], hint, transB=1)

    def vector(self, node: Recurrent, key: str) -> str:
        """What each unit holds, which `driven_function` takes from its input."""
        return key

    def gates(self, node: Recurrent, value: str, label: str) -> list[str]:
        """Blocks of equal size, whatever it is."""
        hints = [f"{label}.{g}" for g in node.cell.gates]
        more: dict[str, Any] = {"num_outputs": len(hints)} if self.opset >= 18 else {}
        return self.ops("Split", [value], hints, axis=-1, **more)


def driven_name(node: Recurrent, *, ragged: bool) -> str:
    """``"LifSubtract"``, ``"AlifZeroNowForwardRagged"``, ``"LstmProjected"``: as ``library/driven.c`` calls it."""
    end = "Ragged" if ragged else ""
    if not node.cell.vectors:
        return f"LstmProjected{'Reverse' if node.reverse else ''}{end}"
    options, reset = node.options, ""
    if node.cell is not LI:
        reset = "NoReset" if options.reset is Reset.NONE else options.reset.value.title().replace("_", "")
        if node.cell is ALIF and options.reset is Reset.SUBTRACT and options.adapted:
            reset += "Adapted"
        if options.reset is not Reset.NONE and not options.delay:
            reset += "Now"
    return f"{node.cell.name.capitalize()}{reset}{'' if 'hh' in node.params else 'Forward'}{end}"


def driven_inputs(node: Recurrent, *, ragged: bool) -> list[str]:
    """Names of the function's inputs in order; see ``library/driven.c``."""
    parts = [*(["R", "B"] if "hh" in node.params else []), *(["P"] if "hr" in node.params else [])]
    return ["D", *parts, *(["V"] if node.cell.vectors else []), *(["lengths"] if ragged else [])]


def driven_function(layer: Recurrent, *, ragged: bool, opset: int) -> Any:
    """A FunctionProto: the input product of every step, weights -> every state at every step.

    The body is a Scan over one spelled-out step, as form ``scan`` writes it.
    """
    node = replace(layer, name="layer")
    inputs = driven_inputs(node, ragged=ragged)
    outputs = [f"{s}.all" for s in node.cell.states]
    b = FunctionBuilder({*inputs, *outputs, *node.cell.vectors}, opset)
    helper = b.onnx.helper
    for k, key in enumerate(node.cell.vectors):
        b.nodes.append(helper.make_node("Gather", ["V", b.const(k, f"{key}.row", np.int64)], [key], axis=0))
    names, initial = carried(node), []
    zero = b.onnx.numpy_helper.from_array(np.zeros(1, np.float32))
    for s in names:
        initial.append(b.op("ConstantOfShape", [_shape_of(b, node, s)], f"{s}.zero", value=zero))
    body = b.body()
    state = {s: b.name(f"{s}.before") for s in names}
    inner = [b.name("drive_t")]
    new = step(body, node, inner[0], state)
    scanned = ["D"]
    finals = [new[s] for s in names]
    emitted = [new[s] for s in node.cell.states]
    if ragged:
        inner.append(b.name("live_t"))
        _, live = live_steps(b, "D", "lengths")
        scanned.append(b.op("Cast", [live], "live", to=b.onnx.TensorProto.FLOAT))
        wide = body.op("Unsqueeze", [inner[1], body.ints([1], "live.axis")], "live.wide")
        valid = body.op("Cast", [wide], "live.valid", to=b.onnx.TensorProto.BOOL)
        none = body.const(0.0, "ended")
        finals = [body.op("Where", [valid, new[s], state[s]], f"{s}.held") for s in names]
        emitted = [
            body.op("Where", [valid, v, none], f"{s}.emitted") for s, v in zip(node.cell.states, emitted, strict=True)
        ]
    info = body.value_info
    unknown = [None, None]
    graph = body.graph(
        "step",
        [*(info(state[s], unknown) for s in names), info(inner[0], unknown), *(info(v, [None]) for v in inner[1:])],
        [
            info(body.op("Identity", [v], f"{hint}.out"), unknown)
            for v, hint in zip([*finals, *emitted], [*names, *node.cell.states], strict=True)
        ],
    )
    directions: dict[str, Any] = {}
    if node.reverse:
        directions = {"scan_input_directions": [1] * len(scanned), "scan_output_directions": [1] * len(outputs)}
    last = [b.name(f"{s}.last") for s in names]
    b.nodes.append(helper.make_node("Scan", [*initial, *scanned], [*last, *outputs], body=graph,
                                    num_scan_inputs=len(scanned), **directions))  # fmt: skip
    imports = [helper.make_opsetid("", opset)]
    return helper.make_function(DOMAIN, driven_name(layer, ragged=ragged), inputs, outputs, b.nodes, imports)


def _shape_of(b: FunctionBuilder, node: Recurrent, state: str) -> str:
    """Shape (B, features) of a state before the first step."""
    if "hr" not in node.params:
        return b.op("Shape", ["D"], f"{state}.shape", start=1, end=3)
    axis = 0 if state == node.cell.feedback else 1
    sizes = [
        b.op("Shape", ["D"], f"{state}.batch", start=1, end=2),
        b.op("Shape", ["P"], f"{state}.features", start=axis, end=axis + 1),
    ]
    return b.op("Concat", sizes, f"{state}.shape", axis=0)


def linear_function(onnx: Any, name: str, opset: int) -> Any:
    """A FunctionProto ``Linear`` or ``LinearSpikes``: (X, W, B) -> X W' + B along the last axis."""
    helper = onnx.helper
    nodes = [
        helper.make_node("Transpose", ["W"], ["W_t"], perm=[1, 0]),
        helper.make_node("MatMul", ["X", "W_t"], ["WX"]),
        helper.make_node("Add", ["WX", "B"], ["Y"]),
    ]
    return helper.make_function(DOMAIN, name, ["X", "W", "B"], ["Y"], nodes, [helper.make_opsetid("", opset)])


def live_steps(b: Builder, x: str, lengths: str) -> tuple[str, str]:
    """Of a sequence (T, B, ...): its steps 0, 1, ... as int64 (T, 1), and which are valid, bool (T, B)."""
    count = b.op("Squeeze", [b.op("Shape", [x], "lengths.T", start=0, end=1)], "lengths.count")
    ends = [b.const(0, "lengths.from", np.int64), count, b.const(1, "lengths.by", np.int64)]
    steps = b.op("Unsqueeze", [b.op("Range", ends, "lengths.t"), b.ints([1], "lengths.axis")], "lengths.step")
    wide = b.op("Cast", [lengths], "lengths.wide", to=b.onnx.TensorProto.INT64)
    return steps, b.op("Less", [steps, wide], "lengths.live")
