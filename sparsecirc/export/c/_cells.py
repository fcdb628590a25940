"""Recurrent and spiking layers as C statements."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparsecirc.cells import Reset
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.export.c._build import Builder, Value
from sparsecirc.export.c._emit_fixed import emit_fixed
from sparsecirc.export.c._fixed import is_fixed
from sparsecirc.ir import Recurrent


def emit_recurrent(b: Builder, node: Recurrent, inputs: list[Value]) -> dict[str, Value]:
    """One step of a recurrent layer; its states are fields of the state struct, updated in place.

    Raises:
        UnsupportedError: the layer runs backwards in time, or its cell has no C code.
    """
    if node.reverse:
        raise UnsupportedError(
            f"layer '{node.name}' runs backwards in time, and C code that goes step by step has no future to start "
            "from: train the network without the reverse direction, or export to ONNX"
        )
    if node.cell.name not in _CELLS:
        raise UnsupportedError(
            f"layer '{node.name}' has the cell '{node.cell.name}', which has no C code: expected one of "
            f"{', '.join(_CELLS)}"
        )
    if "bias_hh" in node.params and "hh" not in node.params and "hh_diag" not in node.params:
        raise UsageError(f"recurrent layer '{node.name}' has 'bias_hh' without a recurrent weight")
    if is_fixed(node, b.options):
        return emit_fixed(b, node, inputs[0])
    states = {
        s: b.member(
            f"{node.name}.{s}",
            "uint8_t" if node.cell.spiking and s == node.cell.feedback else "float",
            shape,
            f"state '{s}' of {node.name}",
        )
        for s, shape in node.states().items()
    }
    _CELLS[node.cell.name](b, node, inputs[0], states)
    return states


def _per_unit(b: Builder, node: Recurrent, role: str) -> str:
    """Expression of entry ``i`` of a parameter of the cell."""
    return b.vector(f"{node.name}.{role}", node.vectors()[role], node.feature_shape or (node.units,))


def _product(
    b: Builder, node: Recurrent, role: str, x: Value, target: Value, bias: str | None = None, *, add: bool = False
) -> None:
    vector = node.params.get(bias) if bias else None
    weight, pattern = node.weight(role), node.patterns.get(role)
    bounded = role == "hh" and bounded_state(node)
    integers = role != "hr"
    b.linear(target, x, f"{node.name}.{role}", weight, pattern, vector, add=add, bounded=bounded, integers=integers)


def bounded_state(node: Recurrent) -> bool:
    """Whether what the layer feeds back lies in [-1, 1]."""
    return node.cell.name in ("rnn_tanh", "gru", "lstm") and "hr" not in node.params


def _gates(b: Builder, node: Recurrent, x: Value, h: Value) -> Value:
    """Sum of input and recurrent product with both biases, (gates * units,)."""
    rows = node.cell.n_gates * node.units
    pre = b.scratch((rows,), f"{node.name}.pre")
    biases = [node.params[r].astype(np.float64) for r in ("bias_ih", "bias_hh") if r in node.params]
    bias = np.sum(biases, axis=0) if biases else None
    if "ih" in node.params:
        b.linear(pre, x, f"{node.name}.ih", node.weight("ih"), node.patterns.get("ih"), bias)
    else:
        shift = "" if bias is None else f" + {b.vector(f'{node.name}.bias', bias, (rows,))}"
        b.each(rows, f"{b.use(pre)}[i] = {b.read(x)}{shift};")
    if "hh" in node.params:
        _product(b, node, "hh", h, pre, add=True)
    elif "hh_diag" in node.params:
        if node.cell.n_gates > 1:
            raise UnsupportedError(
                f"layer '{node.name}' has one-to-one feedback into {node.cell.n_gates} gates: expected a full "
                "recurrent weight 'hh'"
            )
        diag = b.vector(f"{node.name}.hh_diag", node.weight("hh_diag"), (rows,))
        b.each(rows, f"{b.use(pre)}[i] += {b.read(h)} * {diag};")
    return pre


def _rnn_tanh(b: Builder, node: Recurrent, x: Value, states: dict[str, Value]) -> None:
    pre = _gates(b, node, x, states["h"])
    b.each(node.units, f"{states['h'].expr}[i] = {b.tanh()}({b.read(pre)});")


def _rnn_relu(b: Builder, node: Recurrent, x: Value, states: dict[str, Value]) -> None:
    pre = _gates(b, node, x, states["h"])
    b.each(node.units, f"{states['h'].expr}[i] = {b.read(pre)} > 0.0f ? {b.read(pre)} : 0.0f;")


def _gru(b: Builder, node: Recurrent, x: Value, states: dict[str, Value]) -> None:
    n, h = node.units, states["h"]
    tanh, sigmoid = b.tanh(), b.sigmoid()
    if "hh_diag" in node.params:
        raise UnsupportedError(
            f"layer '{node.name}' has one-to-one feedback into 3 gates: expected a full recurrent weight 'hh'"
        )
    drive = x
    if "ih" in node.params:
        drive = b.scratch((3 * n,), f"{node.name}.drive")
        _product(b, node, "ih", x, drive, "bias_ih")
    elif "bias_ih" in node.params:
        drive = b.scratch((3 * n,), f"{node.name}.drive")
        bias = b.vector(f"{node.name}.bias_ih", node.params["bias_ih"], (3 * n,))
        b.each(3 * n, f"{drive.expr}[i] = {b.read(x)} + {bias};")
    gate = [b.read(drive, f"{k * n}u + i") for k in range(3)]
    if "hh" in node.params:
        rec = b.scratch((3 * n,), f"{node.name}.rec")
        _product(b, node, "hh", h, rec, "bias_hh")
        back = [b.read(rec, f"{k * n}u + i") for k in range(3)]
        gate = [f"{gate[0]} + {back[0]}", f"{gate[1]} + {back[1]}", f"{gate[2]} + r * {back[2]}"]
    reset = [f"const float r = {sigmoid}({gate[0]});"] if "hh" in node.params else []
    b.each(
        n,
        *reset,
        f"const float z = {sigmoid}({gate[1]});",
        f"const float n = {tanh}({gate[2]});",
        f"{h.expr}[i] = (1.0f - z) * n + z * {h.expr}[i];",
    )


def _lstm(b: Builder, node: Recurrent, x: Value, states: dict[str, Value]) -> None:
    n, h, c = node.units, states["h"], states["c"]
    tanh, sigmoid = b.tanh(), b.sigmoid()
    pre = _gates(b, node, x, h)
    i, f, g, o = (b.read(pre, f"{k * n}u + i") for k in range(4))
    target = b.scratch((n,), f"{node.name}.wide") if "hr" in node.params else h
    b.each(
        n,
        f"const float c = {sigmoid}({f}) * {c.expr}[i] + {sigmoid}({i}) * {tanh}({g});",
        f"{c.expr}[i] = c;",
        f"{target.expr}[i] = {sigmoid}({o}) * {tanh}(c);",
    )
    if "hr" in node.params:
        _product(b, node, "hr", target, h)


def _current(b: Builder, node: Recurrent, x: Value, state: Value) -> str:
    """Expression of all that enters unit ``i``: (input + bias) + (recurrent + bias), summed in this order.

    ``state`` is what the layer feeds back.
    """
    shape = node.feature_shape or (node.units,)
    drive = b.read(x)
    if "ih" in node.params:
        product = b.scratch(shape, f"{node.name}.drive")
        _product(b, node, "ih", x, product, "bias_ih")
        drive = b.read(product)
    elif "bias_ih" in node.params:
        drive = f"({drive} + {b.vector(f'{node.name}.bias_ih', node.params['bias_ih'], shape)})"
    if "hh" in node.params:
        rec = b.scratch(shape, f"{node.name}.rec")
        _product(b, node, "hh", state, rec, "bias_hh")
        return f"{drive} + {b.read(rec)}"
    if "hh_diag" in node.params:
        diag = b.vector(f"{node.name}.hh_diag", node.weight("hh_diag"), shape)
        back = f"({b.use(state)}[i] != 0u ? {diag} : 0.0f)" if state.spikes else f"{b.read(state)} * {diag}"
        if "bias_hh" in node.params:
            back = f"({back} + {b.vector(f'{node.name}.bias_hh', node.params['bias_hh'], shape)})"
        return f"{drive} + {back}"
    return drive


def _membrane(b: Builder, node: Recurrent, states: dict[str, Value], current: list[str]) -> None:
    """Decay, integrate, reset, fire, in the order of the interpreter; ``current`` sets the C variable ``in``."""
    shape = node.feature_shape or (node.units,)
    reset, delay = node.options.reset, node.options.delay
    beta = _per_unit(b, node, "beta")
    mem, spk = states["mem"].expr, states["spk"].expr
    body = [
        *current,
        f"const float theta = {_per_unit(b, node, 'threshold')};",
        f"float v = {mem}[i];",
    ]
    if reset is not Reset.NONE:
        body.append("const int due = v > theta;")
    if reset is Reset.ZERO:
        body.append(f"v = due ? in : {beta} * v + in;")
    else:
        body.append(f"v = {beta} * v + in;")
    if reset is Reset.SUBTRACT:
        body.append("v -= due ? theta : 0.0f;")
    elif reset is Reset.ZERO_UPDATE:
        body.append("v = due ? 0.0f : v;")
    body.append(f"{spk}[i] = (uint8_t)(v > theta);")
    if not delay and reset is not Reset.NONE:
        # A membrane that was above already has had its reset; falling below takes that one back, as in the reference.
        body.append(f"const float now = (float)((int){spk}[i] - due);")
        body.append("v -= now * theta;" if reset is Reset.SUBTRACT else "v -= now * v;")
    body.append(f"{mem}[i] = v;")
    b.each(int(np.prod(shape)), *body)


def _lif(b: Builder, node: Recurrent, x: Value, states: dict[str, Value]) -> None:
    _membrane(b, node, states, [f"const float in = {_current(b, node, x, states['spk'])};"])


def _synaptic(b: Builder, node: Recurrent, x: Value, states: dict[str, Value]) -> None:
    syn = states["syn"].expr
    current = _current(b, node, x, states["spk"])
    alpha = _per_unit(b, node, "alpha")
    _membrane(b, node, states, [f"const float in = {alpha} * {syn}[i] + ({current});", f"{syn}[i] = in;"])


def _alif(b: Builder, node: Recurrent, x: Value, states: dict[str, Value]) -> None:
    """As the interpreter; the spikes of the step before are the state ``spk`` until they are replaced."""
    reset, delay, adapted = node.options.reset, node.options.delay, node.options.adapted
    spk, adapt, mem = (states[s].expr for s in ("spk", "adapt", "mem"))
    body = [
        f"const float in = {_current(b, node, x, states['spk'])};",
        f"const float theta = {_per_unit(b, node, 'threshold')}, strength = {_per_unit(b, node, 'strength')};",
        f"const int fired = {spk}[i] != 0u;",
        f"const float old = {adapt}[i];",
        f"const float now = {_per_unit(b, node, 'rho')} * old + (float)fired;",
        "const float level = theta + strength * now;",
        f"float v = {mem}[i];",
    ]
    beta = _per_unit(b, node, "beta")
    if reset is Reset.ZERO and delay:
        body.append("v = fired ? 0.0f : v;")
    body.append(f"v = {beta} * v + in;")
    if delay and reset is Reset.SUBTRACT:
        body.append(f"v -= fired ? theta{' + strength * old' if adapted else ''} : 0.0f;")
    elif delay and reset is Reset.ZERO_UPDATE:
        body.append("v = fired ? 0.0f : v;")
    body.append(f"{spk}[i] = (uint8_t)(v > level);")
    if not delay and reset is Reset.SUBTRACT:
        body.append(f"v -= {spk}[i] != 0u ? {'level' if adapted else 'theta'} : 0.0f;")
    elif not delay and reset is not Reset.NONE:
        body.append(f"v = {spk}[i] != 0u ? 0.0f : v;")
    b.each(int(np.prod(node.feature_shape or (node.units,))), *body, f"{adapt}[i] = now;", f"{mem}[i] = v;")


def _li(b: Builder, node: Recurrent, x: Value, states: dict[str, Value]) -> None:
    mem, beta = states["mem"], _per_unit(b, node, "beta")
    current = _current(b, node, x, mem)
    b.each(mem.size, f"{mem.expr}[i] = {beta} * {mem.expr}[i] + ({current});")


_CELLS: dict[str, Callable[[Builder, Recurrent, Value, dict[str, Value]], None]] = {
    "rnn_tanh": _rnn_tanh,
    "rnn_relu": _rnn_relu,
    "gru": _gru,
    "lstm": _lstm,
    "lif": _lif,
    "synaptic": _synaptic,
    "alif": _alif,
    "li": _li,
}
