"""Fixed-point layers as C statements; `_fixed.py` says what the integers are."""

from __future__ import annotations

from sparsecirc.cells import Reset
from sparsecirc.export.c._build import Builder, Value
from sparsecirc.export.c._fixed import FixedLayer, fixed_layer
from sparsecirc.ir import Recurrent


def emit_fixed(b: Builder, node: Recurrent, x: Value) -> dict[str, Value]:
    """One step of a layer in integers; spikes are bytes, the other states integers that know what they are worth."""
    layer = fixed_layer(node, b.options)
    grain = f"{node.name}.grain"
    b.grains[grain] = layer.grain
    states: dict[str, Value] = {}
    for s in node.cell.states:
        spikes = node.cell.spiking and s == node.cell.feedback
        made = b.member(
            f"{node.name}.{s}", "uint8_t" if spikes else "int32_t", (node.units,), f"state '{s}' of {node.name}"
        )
        states[s] = made if spikes else Value(made.expr, made.shape, made.ctype, grain=grain)
    current = _current(b, node, layer, x, states.get("spk"))
    cut = b.helper("cut.c", "cut")
    beta = _leak(b, node, layer, "beta", "v")
    body = [f"int64_t in = {current};"]
    if "alpha" in layer.decays:
        syn = states["syn"].expr
        body += [f"{syn}[i] = {cut}({_leak(b, node, layer, 'alpha', f'{syn}[i]')} + in);", f"in = {syn}[i];"]
    mem = states["mem"].expr
    if node.cell.spiking:
        theta = b.integers(f"{node.name}.threshold", layer.threshold)
        body += [f"const int32_t theta = {theta};", f"int32_t v = {mem}[i];"]
        body += _fire(node, beta, states["spk"].expr)
    else:
        body += [f"const int32_t v = {mem}[i];", f"const int64_t u = {beta} + in;"]
    b.each(node.units, *body, f"{mem}[i] = {cut}(u);")
    return states


def _leak(b: Builder, node: Recurrent, layer: FixedLayer, name: str, value: str) -> str:
    function = b.helper("leak.c", "leak")
    return f"{function}({value}, {b.integers(f'{node.name}.{name}', layer.decays[name])})"


def _current(b: Builder, node: Recurrent, layer: FixedLayer, x: Value, spk: Value | None) -> str:
    """Expression of all that enters unit ``i``, in membrane units."""
    scale = 1 << layer.bits
    terms: list[str] = []
    spikes = [("ih", x)] if x.spikes else []
    spikes += [("hh", spk)] if "hh" in layer.words and spk is not None else []
    if spikes:
        b.sums = max(b.sums, node.units)
        b.emit(f"memset(s->sums, 0, sizeof(int32_t) * {node.units}u);")
        terms.append(f"(int64_t)s->sums[i] * {scale}")
    for role, source in spikes:
        b.words("s->sums", source, f"{node.name}.{role}", layer.words[role], node.patterns.get(role))
    if not x.spikes:
        drive = b.scratch((node.units,), f"{node.name}.drive")
        b.clear(drive)
        b.words(drive.expr, b.as_floats(x), f"{node.name}.ih", layer.words["ih"], node.patterns.get("ih"))
        terms.append(f"{b.helper('to_fixed.c', 'to_fixed')}({drive.expr}[i] * {scale}.0f)")
    if "hh_diag" in layer.words and spk is not None:
        diag = b.integers(f"{node.name}.hh_diag", layer.words["hh_diag"])
        terms.append(f"({spk.expr}[i] != 0u ? {diag} * {scale} : 0)")
    if layer.bias.any():
        terms.append(b.integers(f"{node.name}.bias", layer.bias))
    return " + ".join(terms)


def _fire(node: Recurrent, beta: str, spk: str) -> list[str]:
    """Decay, integrate, reset, fire, in the order of the interpreter; sets ``u``, the new membrane."""
    reset, delay = node.options.reset, node.options.delay
    body = [] if reset is Reset.NONE else ["const int due = v > theta;"]
    if reset is Reset.ZERO:
        body.append("v = due ? 0 : v;")
    body.append(f"int64_t u = {beta} + in;")
    if reset is Reset.SUBTRACT:
        body.append("u -= due ? theta : 0;")
    elif reset is Reset.ZERO_UPDATE:
        body.append("u = due ? 0 : u;")
    body.append(f"{spk}[i] = (uint8_t)(u > theta);")
    if not delay and reset is not Reset.NONE:
        body.append(f"const int now = (int){spk}[i] - due;")
        body.append(f"u -= now * {'(int64_t)theta' if reset is Reset.SUBTRACT else 'u'};")
    return body
