"""How a recurrent layer is written in ONNX."""

from __future__ import annotations

from enum import Enum

from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.ir import Graph, Recurrent, TimeReduce


class Form(str, Enum):
    """How recurrent layers are written.

    ==========  ================================================================================================
    ``AUTO``    ``OP`` for every layer that has an operator, ``SCAN`` for the others
    ``OP``      ONNX's RNN, GRU and LSTM operators, which every runtime has kernels for; other layers are refused
    ``SCAN``    a Scan whose body is one time step of the cell, spelled out
    ``PACKED``  as ``AUTO``, with weights stored as their live entries and decoded by operators in the graph: a small
                file, whose weights are dense again once it is loaded
    ``CUSTOM``  as ``PACKED``, and every layer that has an operator becomes a function of our domain whose body is
                that operator: plain runtimes run the body, ONNX Runtime with :func:`custom_ops` our sparse kernels
    ==========  ================================================================================================
    """

    AUTO = "auto"
    OP = "op"
    SCAN = "scan"
    PACKED = "packed"
    CUSTOM = "custom"

    @property
    def packed(self) -> bool:
        """Whether weights are stored as their live entries."""
        return self in (Form.PACKED, Form.CUSTOM)


def parse_form(form: Form | str) -> Form:
    """``form`` as a :class:`Form`.

    Raises:
        UsageError: an unknown name.
    """
    try:
        return Form(form)
    except ValueError:
        raise UsageError(f"ONNX form {form!r} is unknown: expected one of {', '.join(f.value for f in Form)}") from None


def why_not_operator(node: Recurrent, graph: Graph) -> str | None:
    """Why ONNX has no operator for ``node``, or ``None`` where it has."""
    if node.cell.vectors:
        return f"ONNX has no operator for the neurons of cell '{node.cell.name}'"
    if "hr" in node.params:
        return "ONNX's LSTM operator has no projection"
    if "ih" not in node.params or "hh" not in node.params:
        return "ONNX's recurrent operators need an input and a recurrent matrix"
    if "c" in node.ports() and not final_only(node, "c", graph):
        return "ONNX's LSTM operator gives the cell state of the last step only, and this graph reads every step's"
    return None


def choose(node: Recurrent, graph: Graph, form: Form) -> Form:
    """``OP``, ``SCAN`` or ``CUSTOM`` for one layer.

    Raises:
        UnsupportedError: ``form`` is ``OP`` and there is no operator for it.
    """
    if form is Form.SCAN:
        return Form.SCAN
    reason = why_not_operator(node, graph)
    if reason is None:
        return Form.CUSTOM if form is Form.CUSTOM else Form.OP
    if form is Form.OP:
        raise UnsupportedError(
            f"layer '{node.name}' cannot be exported with form 'op': {reason}; use form 'auto' or 'scan'"
        )
    return Form.SCAN


def final_only(node: Recurrent, port: str, graph: Graph) -> bool:
    """Whether the graph reads ``port`` of ``node`` after its last step alone, which for a reverse layer is step 0."""
    value, how = f"{node.name}.{port}", "first" if node.reverse else "last"
    readers = [n for n in graph.nodes if value in n.inputs]
    return value not in graph.outputs.values() and all(isinstance(n, TimeReduce) and n.how == how for n in readers)
