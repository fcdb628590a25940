"""How layers are written in ONNX, and which way suits who reads the file."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.cells import RNN_RELU
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
    ``EVENTS``  as ``PACKED``, and recurrent products of neurons gather the weights of those that fired, wherever they
                are less than an eighth in a step; `AUTO` does not choose it, since it pays at few spikes alone
    ``CUSTOM``  as ``PACKED``, and RNNs, GRUs, LSTMs (projected ones too), neurons and sparse products become functions
                of our domain whose bodies are standard operators: plain runtimes run the bodies, ONNX Runtime with
                :func:`custom_ops` our sparse kernels
    ==========  ================================================================================================
    """

    AUTO = "auto"
    OP = "op"
    SCAN = "scan"
    PACKED = "packed"
    EVENTS = "events"
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
"""Density of a matrix up to which our kernels beat ONNX Runtime's operators at every batch that was measured; above it
they still win at batch 1, and lose at 4 to 16."""


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
    if form is Form.EVENTS and found is Consumer.TRACT:
        raise UsageError("tract knows no branches in a Scan, which form 'events' is made of: use form 'auto'")
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


def why_not_kernels(node: Recurrent, graph: Graph) -> str | None:
    """Why our library has no operator for ``node``, or ``None`` where it has."""
    if why_not_operator(node, graph) is None:
        return None
    if node.cell.vectors:
        if node.feature_shape:
            return "its units are no vector"
        if "hh_diag" in node.params:
            return "each of its units feeds back to itself alone"
        return "it runs backwards" if node.reverse else None
    if "hr" in node.params and "hh" in node.params:
        return None
    return why_not_operator(node, graph)


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
    wrong = "tract 0.23 runs ONNX's RNN with tanh, whatever it says" if node.cell is RNN_RELU else None
    if form in (Form.OP, Form.PACKED):
        refused = (reason if form is Form.OP else None) or (wrong if consumer is Consumer.TRACT else None)
        if refused is not None:
            raise UnsupportedError(
                f"layer '{node.name}' cannot be exported with form '{form.value}': {refused}; use form 'auto' or 'scan'"
            )
    if form is Form.OP:
        return Choice(Form.OP, False, "as asked")
    ours = why_not_kernels(node, graph)
    if form is Form.CUSTOM and ours is None:
        return Choice(Form.CUSTOM, True, "as asked")
    if form is Form.AUTO and consumer is Consumer.LIBRARY and ours is None:
        if "hh" not in node.params:
            return Choice(Form.CUSTOM, True, "our kernels save the Scan")
        density = f"{_density(node.weight('hh')):.0%} of its recurrent weights are alive"
        if sparse_enough(node.weight("hh")):
            return Choice(Form.CUSTOM, True, f"{density}, so our kernels win")
        rest = Form.OP if reason is None else Form.SCAN
        return Choice(rest, True, f"{density}, so that batches run faster without our kernels")
    if wrong is not None and form is Form.AUTO and consumer in (Consumer.ANY, Consumer.TRACT):
        return Choice(Form.SCAN, True, wrong)
    if reason is not None:
        wanted = form is Form.CUSTOM or (form is Form.AUTO and consumer is Consumer.LIBRARY)
        return Choice(Form.SCAN, True, ours if wanted and ours is not None else reason)
    if form in (Form.PACKED, Form.EVENTS) and consumer is Consumer.OPENVINO:
        raise UnsupportedError(
            f"layer '{node.name}' cannot be exported with form '{form.value}': openvino refuses packed weights in an "
            "operator; use form 'auto'"
        )
    if form is not Form.AUTO:
        return Choice(Form.OP, True, "as asked")
    if consumer in (Consumer.ANY, Consumer.OPENVINO):
        return Choice(Form.OP, False, "ONNX has an operator for it, and openvino refuses packed weights there")
    return Choice(Form.OP, True, "ONNX has an operator for it")


def _density(weight: NDArray[Any]) -> float:
    return float(np.count_nonzero(weight)) / max(weight.size, 1)


def sparse_enough(weight: NDArray[Any]) -> bool:
    """Whether our kernels multiply by this matrix faster than a dense product, for any number of vectors."""
    return _density(weight) <= CUSTOM_UP_TO


def packs(node: Node, graph: Graph, form: Form, consumer: Consumer) -> bool:
    """Whether the weights of a node are stored as their live entries."""
    if isinstance(node, Recurrent):
        return choose(node, graph, form, consumer).packed
    decoded_in_operator = node.kind == "gru_reset_first" and consumer in (Consumer.ANY, Consumer.OPENVINO)
    return form in (Form.PACKED, Form.EVENTS, Form.CUSTOM) or (form is Form.AUTO and not decoded_in_operator)


def final_only(node: Recurrent, port: str, graph: Graph) -> bool:
    """Whether the graph reads ``port`` of ``node`` after its last step alone, which for a reverse layer is step 0."""
    value, how = f"{node.name}.{port}", "first" if node.reverse else "last"
    readers = [n for n in graph.nodes if value in n.inputs]
    return value not in graph.outputs.values() and all(isinstance(n, TimeReduce) and n.how == how for n in readers)
