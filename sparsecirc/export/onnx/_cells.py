"""One time step of every cell, spelled in ONNX operators: the body of a Scan, and the network of a step file."""

from __future__ import annotations

from collections.abc import Callable

from sparsecirc.cells import ALIF, Reset
from sparsecirc.errors import UnsupportedError
from sparsecirc.export.onnx._builder import Builder
from sparsecirc.ir import Recurrent

States = dict[str, str]
Body = Callable[[Builder, Recurrent, str, str | None, States], States]


def carried(node: Recurrent) -> tuple[str, ...]:
    """States a step needs from the step before; spikes only where they are fed back, or move a threshold."""
    fed_back = "hh" in node.params or "hh_diag" in node.params or node.cell is ALIF
    return tuple(s for s in node.cell.states if s != node.cell.feedback or fed_back or not node.cell.spiking)


def drive(b: Builder, node: Recurrent, x: str, rank: int) -> str:
    """The input product with its bias, for a value of ``rank`` axes."""
    bias = node.weight("bias_ih") if "bias_ih" in node.params else None
    hint = f"{node.name}.drive"
    if "ih" in node.params:
        return b.linear(x, node.weight("ih"), bias, rank, hint)
    return x if bias is None else b.op("Add", [x, b.const(bias, f"{hint}.bias")], hint)


def step(b: Builder, node: Recurrent, driven: str, state: States, beside: str = "") -> States:
    """New states from the driven input and the carried states; ``beside`` is added to the recurrent product.

    Raises:
        UnsupportedError: a cell without a body here.
    """
    body = _BODIES.get(node.cell.name)
    if body is None:
        raise UnsupportedError(
            f"layer '{node.name}' is a '{node.cell.name}', which has no ONNX body: expected one of {', '.join(_BODIES)}"
        )
    rec = _recurrence(b, node, state)
    if beside:
        rec = beside if rec is None else b.op("Add", [rec, beside], f"{node.name}.rec.all")
    new = body(b, node, driven, rec, state)
    if "hr" in node.params:
        new["h"] = b.product(new["h"], node, "hr", "", f"{node.name}.projected")
    return new


def _recurrence(b: Builder, node: Recurrent, state: States) -> str | None:
    hint = f"{node.name}.rec"
    if "hh" in node.params:
        return b.product(state[node.cell.feedback], node, "hh", "bias_hh", hint)
    if "hh_diag" not in node.params:
        return None
    bias = node.weight("bias_hh") if "bias_hh" in node.params else None
    y = b.op("Mul", [state[node.cell.feedback], b.const(node.weight("hh_diag"), f"{hint}.diag")], hint)
    return y if bias is None else b.op("Add", [y, b.const(bias, f"{hint}.bias")], hint)


def _pre(b: Builder, node: Recurrent, driven: str, rec: str | None) -> str:
    return driven if rec is None else b.op("Add", [driven, rec], f"{node.name}.pre")


def _rnn_tanh(b: Builder, node: Recurrent, driven: str, rec: str | None, state: States) -> States:
    return {"h": b.op("Tanh", [_pre(b, node, driven, rec)], f"{node.name}.h.new")}


def _rnn_relu(b: Builder, node: Recurrent, driven: str, rec: str | None, state: States) -> States:
    return {"h": b.op("Relu", [_pre(b, node, driven, rec)], f"{node.name}.h.new")}


def _gru(b: Builder, node: Recurrent, driven: str, rec: str | None, state: States) -> States:
    n = node.name
    a_r, a_z, a_n = b.gates(node, driven, "a")
    if rec is not None:
        b_r, b_z, b_n = b.gates(node, rec, "b")
        a_r, a_z = b.op("Add", [a_r, b_r], f"{n}.r.pre"), b.op("Add", [a_z, b_z], f"{n}.z.pre")
        r = b.op("Sigmoid", [a_r], f"{n}.r")
        a_n = b.op("Add", [a_n, b.op("Mul", [r, b_n], f"{n}.n.rec")], f"{n}.n.pre")
    z = b.op("Sigmoid", [a_z], f"{n}.z")
    new = b.op("Tanh", [a_n], f"{n}.n")
    rest = b.op("Sub", [b.const(1.0, f"{n}.one"), z], f"{n}.z.rest")
    kept = b.op("Mul", [z, state["h"]], f"{n}.h.kept")
    return {"h": b.op("Add", [b.op("Mul", [rest, new], f"{n}.h.added"), kept], f"{n}.h.new")}


def _lstm(b: Builder, node: Recurrent, driven: str, rec: str | None, state: States) -> States:
    n = node.name
    pre_i, pre_f, pre_g, pre_o = b.gates(node, _pre(b, node, driven, rec), "pre")
    i, f, o = (b.op("Sigmoid", [p], f"{n}.{g}") for p, g in ((pre_i, "i"), (pre_f, "f"), (pre_o, "o")))
    g = b.op("Tanh", [pre_g], f"{n}.g")
    kept, added = b.op("Mul", [f, state["c"]], f"{n}.c.kept"), b.op("Mul", [i, g], f"{n}.c.added")
    c = b.op("Add", [kept, added], f"{n}.c.new")
    return {"h": b.op("Mul", [o, b.op("Tanh", [c], f"{n}.c.tanh")], f"{n}.h.new"), "c": c}


def _fires(b: Builder, mem: str, theta: str, hint: str) -> str:
    above = b.op("Greater", [mem, theta], f"{hint}.above")
    return b.op("Cast", [above], hint, to=b.onnx.TensorProto.FLOAT)


def _without(b: Builder, mem: str, spikes: str, amount: str, hint: str) -> str:
    """``mem - spikes * amount``."""
    return b.op("Sub", [mem, b.op("Mul", [spikes, amount], f"{hint}.by")], hint)


def _membrane(b: Builder, node: Recurrent, current: str, mem: str) -> States:
    """Decay, integrate, reset, fire, in the order of operations of the cell's own step."""
    n, reset = node.name, node.options.reset
    beta, theta = (b.vector(node, k) for k in ("beta", "threshold"))
    due = _fires(b, mem, theta, f"{n}.due") if reset is not Reset.NONE else ""
    if reset is Reset.ZERO:
        mem = b.op("Mul", [b.op("Sub", [b.const(1.0, f"{n}.one"), due], f"{n}.quiet"), mem], f"{n}.mem.cleared")
    mem = b.op("Add", [b.op("Mul", [beta, mem], f"{n}.mem.decayed"), current], f"{n}.mem.driven")
    if reset is Reset.SUBTRACT:
        mem = _without(b, mem, due, theta, f"{n}.mem.reset")
    elif reset is Reset.ZERO_UPDATE:
        mem = _without(b, mem, due, mem, f"{n}.mem.reset")
    spk = _fires(b, mem, theta, f"{n}.spk.new")
    if not node.options.delay and reset is not Reset.NONE:
        now = b.op("Sub", [spk, due], f"{n}.now")
        mem = _without(b, mem, now, theta if reset is Reset.SUBTRACT else mem, f"{n}.mem.reset_now")
    return {"spk": spk, "mem": mem}


def _lif(b: Builder, node: Recurrent, driven: str, rec: str | None, state: States) -> States:
    return _membrane(b, node, _pre(b, node, driven, rec), state["mem"])


def _synaptic(b: Builder, node: Recurrent, driven: str, rec: str | None, state: States) -> States:
    alpha = b.vector(node, "alpha")
    kept = b.op("Mul", [alpha, state["syn"]], f"{node.name}.syn.kept")
    syn = b.op("Add", [kept, _pre(b, node, driven, rec)], f"{node.name}.syn.new")
    return {"syn": syn, **_membrane(b, node, syn, state["mem"])}


def _alif(b: Builder, node: Recurrent, driven: str, rec: str | None, state: States) -> States:
    n, options, reset = node.name, node.options, node.options.reset
    beta, theta, rho, strength = (b.vector(node, k) for k in ALIF.vectors)
    fired, old, mem = state["spk"], state["adapt"], state["mem"]
    adapt = b.op("Add", [b.op("Mul", [rho, old], f"{n}.adapt.kept"), fired], f"{n}.adapt.new")
    level = b.op("Add", [theta, b.op("Mul", [strength, adapt], f"{n}.rise")], f"{n}.level")
    if options.delay and reset is Reset.ZERO:
        mem = _without(b, mem, fired, mem, f"{n}.mem.cleared")
    current = _pre(b, node, driven, rec)
    mem = b.op("Add", [b.op("Mul", [beta, mem], f"{n}.mem.decayed"), current], f"{n}.mem.driven")
    if options.delay and reset is Reset.SUBTRACT:
        amount = theta
        if options.adapted:
            amount = b.op("Add", [theta, b.op("Mul", [strength, old], f"{n}.rise.before")], f"{n}.level.before")
        mem = _without(b, mem, fired, amount, f"{n}.mem.reset")
    elif options.delay and reset is Reset.ZERO_UPDATE:
        mem = _without(b, mem, fired, mem, f"{n}.mem.reset")
    spk = _fires(b, mem, level, f"{n}.spk.new")
    if not options.delay and reset is Reset.SUBTRACT:
        mem = _without(b, mem, spk, level if options.adapted else theta, f"{n}.mem.reset_now")
    elif not options.delay and reset is not Reset.NONE:
        mem = _without(b, mem, spk, mem, f"{n}.mem.reset_now")
    return {"spk": spk, "adapt": adapt, "mem": mem}


def _li(b: Builder, node: Recurrent, driven: str, rec: str | None, state: States) -> States:
    beta = b.vector(node, "beta")
    kept = b.op("Mul", [beta, state["mem"]], f"{node.name}.mem.kept")
    return {"mem": b.op("Add", [kept, _pre(b, node, driven, rec)], f"{node.name}.mem.new")}


_BODIES: dict[str, Body] = {
    "rnn_tanh": _rnn_tanh,
    "rnn_relu": _rnn_relu,
    "gru": _gru,
    "lstm": _lstm,
    "lif": _lif,
    "synaptic": _synaptic,
    "alif": _alif,
    "li": _li,
}
