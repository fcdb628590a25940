"""How layers are written in ONNX, and which way suits who reads the file."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.ir import Graph, Node, Recurrent, TimeReduce


class Form(str, Enum):
    """How recurrent layers are written.

    ==========  ================================================================================================
    ``AUTO``    the best of the others, layer by layer, for the consumer that is named; see :func:`choose`
    ``OP``      ONNX's RNN, GRU and LSTM operators, which every runtime has kernels for; other layers are refused
    ``SCAN``    a Scan whose body is one time step of the cell, spelled out
    ``PACKED``  ``OP`` for every layer that has an operator, ``SCAN`` for the others, with weights stored as their
                live entries and decoded by operators in the graph: a small file, dense again once it is loaded
    ``CUSTOM``  as ``PACKED``, and every layer that has an operator becomes a function of our domain whose body is
                that operator: plain runtimes run the body, ONNX Runtime with :func:`custom_ops` our sparse kernels
    ==========  ================================================================================================
    """

    AUTO = "auto"
    OP = "op"
    SCAN = "scan"
    PACKED = "packed"
    CUSTOM = "custom"


class Consumer(str, Enum):
    """Who will read the file.

    =================  =============================================================================================
    ``ANY``            any of those below, and the reference evaluator
    ``ONNXRUNTIME``    ONNX Runtime as it comes
    ``LIBRARY``        ONNX Runtime with the library of :func:`custom_ops` registered
    ``OPENVINO``       OpenVINO; it refuses weights that are decoded in the graph where an operator reads them
    ``TRACT``          tract
    =================  =============================================================================================
    """

    ANY = "any"
    ONNXRUNTIME = "onnxruntime"
    LIBRARY = "onnxruntime+library"
    OPENVINO = "openvino"
    TRACT = "tract"


CUSTOM_UP_TO = 0.2
"""Density of a recurrent matrix up to which our kernels beat ONNX Runtime's operator at every batch that was measured;
above it they still win at batch 1, and lose at 4 to 16."""


@dataclass(frozen=True)
class Choice:
    """How one layer is written.

    Attributes:
        form: ``OP``, ``SCAN`` or ``CUSTOM``.
        packed: weights are stored as their live entries, where that is smaller.
        why: in words.
    """

    form: Form
    packed: bool
    why: str


def parse_form(form: Form | str) -> Form:
    """``form`` as a :class:`Form`.

    Raises:
        UsageError: an unknown name.
    """
    try:
        return Form(form)
    except ValueError:
        raise UsageError(f"ONNX form {form!r} is unknown: expected one of {', '.join(f.value for f in Form)}") from None


def parse_consumer(consumer: Consumer | str, form: Form) -> Consumer:
    """``consumer`` as a :class:`Consumer`.

    Raises:
        UsageError: an unknown name, or one that refuses every file of the form.
    """
    try:
        found = Consumer(consumer)
    except ValueError:
        names = ", ".join(c.value for c in Consumer)
        raise UsageError(f"ONNX consumer {consumer!r} is unknown: expected one of {names}") from None
    if form is Form.CUSTOM and found in (Consumer.OPENVINO, Consumer.TRACT):
        raise UsageError(f"{found.value} knows no functions, which form 'custom' is made of: use form 'auto'")
    return found


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


def choose(node: Recurrent, graph: Graph, form: Form, consumer: Consumer) -> Choice:
    """How one recurrent layer is written; for ``AUTO`` by what was measured (docs/onnx.md).

    A layer with an operator gets it: for gated ones it is as fast as a Scan or faster, up to 2.6 times. With our
    library a layer gets our kernels instead, up to the density `CUSTOM_UP_TO`. Packed weights cost nothing in speed,
    so they are used wherever the consumer reads them.

    Raises:
        UnsupportedError: ``form`` is ``OP`` and there is no operator for it.
    """
    reason = why_not_operator(node, graph)
    if form is Form.SCAN:
        return Choice(Form.SCAN, False, "as asked")
    if form is Form.OP and reason is not None:
        raise UnsupportedError(
            f"layer '{node.name}' cannot be exported with form 'op': {reason}; use form 'auto' or 'scan'"
        )
    packed = form is not Form.OP
    if reason is not None:
        return Choice(Form.SCAN, packed, reason)
    if packed and form is not Form.AUTO and consumer is Consumer.OPENVINO:
        raise UnsupportedError(
            f"layer '{node.name}' cannot be exported with form '{form.value}': openvino refuses packed weights in an "
            "operator; use form 'auto'"
        )
    if form is not Form.AUTO:
        return Choice(Form.CUSTOM if form is Form.CUSTOM else Form.OP, packed, "as asked")
    if consumer is Consumer.LIBRARY:
        density = float(np.count_nonzero(node.weight("hh"))) / max(node.weight("hh").size, 1)
        if density <= CUSTOM_UP_TO:
            return Choice(Form.CUSTOM, True, f"{density:.0%} of its recurrent weights are alive, so our kernels win")
        return Choice(
            Form.OP, True, f"{density:.0%} of its recurrent weights are alive: batches run faster as operator"
        )
    if consumer in (Consumer.ANY, Consumer.OPENVINO):
        return Choice(Form.OP, False, "ONNX has an operator for it, and openvino refuses packed weights there")
    return Choice(Form.OP, True, "ONNX has an operator for it")


def packs(node: Node, graph: Graph, form: Form, consumer: Consumer) -> bool:
    """Whether the weights of a node are stored as their live entries."""
    if isinstance(node, Recurrent):
        return choose(node, graph, form, consumer).packed
    decoded_in_operator = node.kind == "gru_reset_first" and consumer in (Consumer.ANY, Consumer.OPENVINO)
    return form in (Form.PACKED, Form.CUSTOM) or (form is Form.AUTO and not decoded_in_operator)


def final_only(node: Recurrent, port: str, graph: Graph) -> bool:
    """Whether the graph reads ``port`` of ``node`` after its last step alone, which for a reverse layer is step 0."""
    value, how = f"{node.name}.{port}", "first" if node.reverse else "last"
    readers = [n for n in graph.nodes if value in n.inputs]
    return value not in graph.outputs.values() and all(isinstance(n, TimeReduce) and n.how == how for n in readers)
