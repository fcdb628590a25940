"""A recurrence as a Python loop over time, written once for numpy and torch arrays.

This is what a user of a sparse matrix library has to write: the library's product, and the gates around it. Biases
are folded into the input product where the equations allow it, the gates of one function are computed together, and
only asked-for outputs are kept, so that the comparison is with a good loop.

Arrays are (units, batch), or (units,) where the engine prefers a vector at batch 1: gates are then slices of the
first axis, which is contiguous.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sparsecirc.cells import Options, Reset
from sparsecirc.ir import Recurrent

Array = Any
Step = Callable[[Array, Array, dict[str, Array]], dict[str, Array]]


@dataclass(frozen=True)
class Ops:
    """The functions that numpy and torch do not share.

    Attributes:
        tanh: elementwise.
        sigmoid: elementwise.
        relu: elementwise.
        number: booleans to float32.
    """

    tanh: Callable[[Array], Array]
    sigmoid: Callable[[Array], Array]
    relu: Callable[[Array], Array]
    number: Callable[[Array], Array]


@dataclass(frozen=True)
class Loop:
    """One layer ready to run.

    Attributes:
        node: the layer; its options and direction.
        ops: of the array library.
        recur: recurrent product of the fed-back state, without its bias; ``None`` for a layer without recurrence.
        late_bias: the part of the recurrent bias that cannot be folded into the drive (a GRU's new gate), or ``None``.
        vectors: the cell's per-unit parameters, shaped to broadcast over the state.
        project: LSTM projection, or ``None``.
    """

    node: Recurrent
    ops: Ops
    recur: Callable[[Array], Array] | None
    late_bias: Array | None
    vectors: dict[str, Array]
    project: Callable[[Array], Array] | None = None

    def run(self, drive: Sequence[Array], state: dict[str, Array], ports: Sequence[str]) -> dict[str, list[Array]]:
        """Outputs by port, a list over time. ``drive[t]`` already holds the input product and the folded biases."""
        step = _STEPS[self.node.cell.name](self)
        feedback = self.node.cell.feedback
        kept: dict[str, list[Array]] = {p: [] for p in ports}
        order = range(len(drive) - 1, -1, -1) if self.node.reverse else range(len(drive))
        for t in order:
            rec = self.recur(state[feedback]) if self.recur is not None else None
            state = step(drive[t], rec, state)
            for port, values in kept.items():
                values.append(state[port])
        return {p: v[::-1] for p, v in kept.items()} if self.node.reverse else kept


def _rnn(loop: Loop) -> Step:
    act = loop.ops.tanh if loop.node.cell.name == "rnn_tanh" else loop.ops.relu
    return lambda a, b, _: {"h": act(a if b is None else a + b)}


def _gru(loop: Loop) -> Step:
    n, ops, late = loop.node.units, loop.ops, loop.late_bias

    def step(a: Array, b: Array, s: dict[str, Array]) -> dict[str, Array]:
        h, new = s["h"], a[2 * n :]
        if b is None:
            rz = ops.sigmoid(a[: 2 * n])
        else:
            rz = ops.sigmoid(a[: 2 * n] + b[: 2 * n])
            new = new + rz[:n] * (b[2 * n :] if late is None else b[2 * n :] + late)
        candidate = ops.tanh(new)
        return {"h": candidate + rz[n:] * (h - candidate)}

    return step


def _lstm(loop: Loop) -> Step:
    n, ops, project = loop.node.units, loop.ops, loop.project

    def step(a: Array, b: Array, s: dict[str, Array]) -> dict[str, Array]:
        p = a if b is None else a + b
        both = ops.sigmoid(p[: 2 * n])
        c = both[n:] * s["c"] + both[:n] * ops.tanh(p[2 * n : 3 * n])
        h = ops.sigmoid(p[3 * n :]) * ops.tanh(c)
        return {"h": h if project is None else project(h), "c": c}

    return step


def _lif(loop: Loop) -> Step:
    fire = _membrane(loop)

    def step(a: Array, b: Array, s: dict[str, Array]) -> dict[str, Array]:
        spk, mem = fire(a if b is None else a + b, s["mem"])
        return {"spk": spk, "mem": mem}

    return step


def _synaptic(loop: Loop) -> Step:
    fire, alpha = _membrane(loop), loop.vectors["alpha"]

    def step(a: Array, b: Array, s: dict[str, Array]) -> dict[str, Array]:
        syn = alpha * s["syn"] + (a if b is None else a + b)
        spk, mem = fire(syn, s["mem"])
        return {"spk": spk, "syn": syn, "mem": mem}

    return step


def _alif(loop: Loop) -> Step:
    options, number = loop.node.options, loop.ops.number
    beta, theta, rho, strength = (loop.vectors[k] for k in ("beta", "threshold", "rho", "strength"))
    reset, delay = options.reset, options.delay

    def step(a: Array, b: Array, s: dict[str, Array]) -> dict[str, Array]:
        fired, old, mem = s["spk"], s["adapt"], s["mem"]
        adapt = rho * old + fired
        level = theta + strength * adapt
        if delay and reset is Reset.ZERO:
            mem = mem - fired * mem
        mem = beta * mem + (a if b is None else a + b)
        if delay and reset is Reset.SUBTRACT:
            mem = mem - fired * (theta + strength * old if options.adapted else theta)
        elif delay and reset is Reset.ZERO_UPDATE:
            mem = mem - fired * mem
        spk = number(mem > level)
        if not delay and reset is not Reset.NONE:
            crossed = level if options.adapted else theta
            mem = mem - spk * (crossed if reset is Reset.SUBTRACT else mem)
        return {"spk": spk, "adapt": adapt, "mem": mem}

    return step


def _li(loop: Loop) -> Step:
    beta = loop.vectors["beta"]
    return lambda a, b, s: {"mem": beta * s["mem"] + (a if b is None else a + b)}


def _membrane(loop: Loop) -> Callable[[Array, Array], tuple[Array, Array]]:
    options: Options = loop.node.options
    theta, beta, number = loop.vectors["threshold"], loop.vectors["beta"], loop.ops.number
    reset, delay = options.reset, options.delay

    def fire(drive: Array, mem: Array) -> tuple[Array, Array]:
        due = number(mem > theta)
        if reset is Reset.ZERO:
            mem = mem - due * mem
        mem = beta * mem + drive
        if reset is Reset.SUBTRACT:
            mem = mem - due * theta
        elif reset is Reset.ZERO_UPDATE:
            mem = mem - due * mem
        spk = number(mem > theta)
        if not delay and reset is not Reset.NONE:
            now = spk - due
            mem = mem - now * (theta if reset is Reset.SUBTRACT else mem)
        return spk, mem

    return fire


_STEPS: dict[str, Callable[[Loop], Step]] = {
    "rnn_tanh": _rnn,
    "rnn_relu": _rnn,
    "gru": _gru,
    "lstm": _lstm,
    "lif": _lif,
    "synaptic": _synaptic,
    "alif": _alif,
    "li": _li,
}
