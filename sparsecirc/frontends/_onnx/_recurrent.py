"""RNN, GRU and LSTM operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sparsecirc.cells import CELLS, Cell
from sparsecirc.errors import FileFormatError, UnsupportedError
from sparsecirc.frontends._onnx._build import Attributes, Build
from sparsecirc.frontends._onnx._values import Anything, Array, Fill, Skipped, Value
from sparsecirc.ir import Node, Recurrent, ResetFirstGru, TimeReduce

_GATES = {"RNN": ("h",), "GRU": ("z", "r", "n"), "LSTM": ("i", "o", "f", "g")}
"""Our names of the gates in ONNX's order."""
_USUAL = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}


def recurrent(b: Build, node: Any, a: Attributes, x: Sequence[Anything]) -> list[Anything]:
    """One layer, in one or both directions: the states at every step, and those after the last one.

    Raises:
        UnsupportedError: an option that no cell here has.
        FileFormatError: weights that do not fit.
    """
    name, kind = node.name or next(o for o in node.output if o), node.op_type
    x = [*x, *[None] * (8 - len(x))]
    directions = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}.get(
        a.get("direction", "forward")
    )
    if directions is None:
        raise FileFormatError(f"{kind} '{name}' has the direction '{a.get('direction')}'")
    cells = [_cell(kind, name, a, k) for k in range(len(directions))]
    _options(kind, name, a, x)
    source = x[0]
    if not isinstance(source, Value):
        raise UnsupportedError(f"{kind} '{name}' reads a constant, or what nothing here can follow")
    wanted = ("B", "T", 0) if a.get("layout") else ("T", "B", 0)
    source = b.joined(source, name)
    if source.axes != wanted:
        raise UnsupportedError(f"{kind} '{name}' needs {wanted}: {b.layout(source)}")
    weights = _weights(b, kind, name, a, x, len(directions))
    made = []
    for k, (reverse, cell) in enumerate(zip(directions, cells, strict=True)):
        params = {role: ours(cell, kind, w[k]) for role, w in weights.items()}
        units = params["hh"].shape[1]
        label = b.label(name if len(directions) == 1 else f"{name}.{'reverse' if reverse else 'forward'}")
        backwards = reverse != source.reversed
        layer: Node = Recurrent(label, (source.name,), params, cell=cell, units=units, reverse=backwards)
        if kind == "GRU" and not a.get("linear_before_reset", 0):
            layer = ResetFirstGru(label, (source.name,), params, units=units, reverse=backwards)
        made.append(b.add(layer))
    front: tuple[Any, ...] = ("B",) if a.get("layout") else ("D",)
    steps: tuple[Any, ...] = ("B", "T", "D", 0) if a.get("layout") else ("T", "D", "B", 0)
    last: tuple[Any, ...] = (*front, "D", 0) if a.get("layout") else (*front, "B", 0)
    outputs: list[Anything] = [replace(_value(tuple(f"{n}.h" for n in made), steps), reversed=source.reversed)]
    for k, port in ((1, "h"), (2, "c")):
        if len(node.output) > k and node.output[k]:
            ends = [final_state(b, n, port, r != source.reversed) for n, r in zip(made, directions, strict=True)]
            outputs.append(_value(tuple(ends), last))
        else:
            outputs.append(None)
    return outputs[: len(node.output)]


def _value(names: tuple[str, ...], axes: tuple[Any, ...]) -> Value:
    return Value(names, tuple(None if a == "D" and len(names) == 1 else a for a in axes))


def final_state(b: Build, layer: str, port: str, reverse: bool) -> str:
    """A value that holds the state after the last step."""
    shape = b.specs[f"{layer}.{port}"].shape
    how = "first" if reverse else "last"
    return b.add(TimeReduce(b.label(f"{layer}.{port}_n"), (f"{layer}.{port}",), how=how, feature_shape=shape))


def _cell(kind: str, name: str, a: Attributes, k: int) -> Cell:
    """The cell of direction ``k``."""
    usual = _USUAL[kind]
    given = a.get("activations") or usual
    one = given if len(given) == len(usual) else given[k * len(usual) : (k + 1) * len(usual)]  # torch names them once
    own = [str(f).lower() for f in one]
    if kind == "RNN" and own in (["tanh"], ["relu"]):
        return CELLS[f"rnn_{own[0]}"]
    if own != [f.lower() for f in usual]:
        raise UnsupportedError(f"{kind} '{name}' has the activations {given}: a layer here has {usual}")
    return CELLS[kind.lower()]


def _options(kind: str, name: str, a: Attributes, x: Sequence[Anything]) -> None:
    if a.get("clip"):
        raise UnsupportedError(f"{kind} '{name}' clips its states at {a['clip']}: no layer here does")
    if kind == "LSTM" and (a.get("input_forget") or (x[7] is not None and not zero(x[7]))):
        raise UnsupportedError(f"LSTM '{name}' has peepholes or coupled gates: no layer here does")
    for k, what in ((5, "state"), (6, "cell state")):
        if kind != "LSTM" and k == 6:
            continue
        if isinstance(x[k], Skipped):
            continue
        if x[k] is not None and not zero(x[k]):
            raise UnsupportedError(
                f"{kind} '{name}' starts from a {what} that is not zero: layers here start from zero"
            )
    lengths = x[4]
    if lengths is not None and not isinstance(lengths, Skipped):
        raise UnsupportedError(f"{kind} '{name}' takes valid steps that are no input of the file: no graph here can")


def zero(value: Anything) -> bool:
    """Whether it is a first state of zeros."""
    if isinstance(value, Fill):
        return value.value == 0
    return isinstance(value, np.ndarray) and value.dtype != object and not np.any(value)


def _weights(
    b: Build, kind: str, name: str, a: Attributes, x: Sequence[Anything], directions: int
) -> dict[str, list[Array]]:
    """By role, one array a direction, gates in ONNX's order."""
    w, r, biases = x[1], x[2], x[3]
    if not isinstance(w, np.ndarray) or not isinstance(r, np.ndarray):
        raise UnsupportedError(f"the weights of {kind} '{name}' are no constants: they cannot be pruned or compiled")
    gates = len(_GATES[kind])
    rows = r.shape[1] if r.ndim == 3 else -1
    units = rows // gates
    if (
        w.ndim != 3
        or r.ndim != 3
        or rows != gates * units
        or r.shape != (directions, rows, units)
        or w.shape[:2] != (directions, rows)
        or a.get("hidden_size", units) != units
    ):
        raise FileFormatError(
            f"{kind} '{name}' has weights of shapes {w.shape} and {r.shape}, which do not fit each other"
        )
    found = {"ih": list(w), "hh": list(r)}
    if biases is not None:
        if not isinstance(biases, np.ndarray) or biases.shape != (directions, 2 * rows):
            raise FileFormatError(f"{kind} '{name}' has a bias that is no constant of shape {(directions, 2 * rows)}")
        if np.any(biases):
            found["bias_ih"], found["bias_hh"] = list(biases[:, :rows]), list(biases[:, rows:])
    return found


def ours(cell: Cell, kind: str, array: Array) -> Array:
    """Gate blocks in our order."""
    order = _GATES[kind] if cell.n_gates > 1 else cell.gates
    blocks = np.split(array, len(order))
    return np.ascontiguousarray(np.concatenate([blocks[order.index(g)] for g in cell.gates]).astype(np.float32))
