"""Functions of our domain: what a runtime without our library runs in the place of our operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DOMAIN = "sparsecirc"
"""Of our operators and of the functions that say what they mean."""


def function_name(kind: str, attributes: Mapping[str, Any], *, ragged: bool) -> str:
    """``"Gru"``, ``"RnnTanhReverseRagged"``: as ``library/operators.c`` calls it."""
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
