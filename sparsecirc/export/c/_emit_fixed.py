"""Fixed-point layers as C statements; `_fixed.py` says what the integers are."""

from __future__ import annotations

import numpy as np

from sparsecirc.cells import Reset
from sparsecirc.export.c._build import Builder, Value
from sparsecirc.export.c._fixed import FixedLayer, fixed_layer
from sparsecirc.ir import Recurrent


def emit_fixed(b: Builder, node: Recurrent, x: Value) -> dict[str, Value]:
    """One step of a layer in integers; spikes are bytes, the other states integers that know what they are worth."""
    layer = fixed_layer(node, b.options)
    states: dict[str, Value] = {}
    shapes = node.states()
    for s in node.cell.states:
        spikes = node.cell.spiking and s == node.cell.feedback
        made = b.member(
            f"{node.name}.{s}", "uint8_t" if spikes else "int32_t", shapes[s], f"state '{s}' of {node.name}"
        )
        grain = f"{node.name}.adapt.grain" if s == "adapt" else f"{node.name}.grain"
        b.grains[grain] = b.grains.get(grain, layer.grain_of(s))
        states[s] = made if spikes else Value(made.expr, made.shape, made.ctype, grain=grain)
    current = _current(b, node, layer, x, states[node.cell.feedback])
    body = [f"int64_t in = {current};"]
    if "alpha" in layer.decays:
        syn = states["syn"].expr
        body += [f"{syn}[i] = {_cut(b)}({_leak(b, node, layer, 'alpha', f'{syn}[i]')} + in);", f"in = {syn}[i];"]
    mem = states["mem"].expr
    beta = _leak(b, node, layer, "beta", "v")
    if node.cell.name == "alif":
        body += _adapt(b, node, layer, states, beta)
    elif node.cell.spiking:
        theta = b.integers(f"{node.name}.threshold", layer.threshold)
        body += [f"const int32_t theta = {theta};", f"int32_t v = {mem}[i];"]
        body += _fire(node, beta, states["spk"].expr)
    else:
        body += [f"const int32_t v = {mem}[i];", f"const int64_t u = {beta} + in;"]
    b.each(node.units, *body, f"{mem}[i] = {_cut(b)}(u);")
    return states


def _cut(b: Builder) -> str:
    return b.helper("cut.c", "cut")


def _leak(b: Builder, node: Recurrent, layer: FixedLayer, name: str, value: str) -> str:
    function = b.helper("leak.c", "leak")
    return f"{function}({value}, {b.integers(f'{node.name}.{name}', layer.decays[name])})"


def _current(b: Builder, node: Recurrent, layer: FixedLayer, x: Value, back: Value) -> str:
    """Expression of all that enters unit ``i``, in membrane units; ``back`` is what the layer feeds back."""
    scale = 1 << layer.bits
    terms: list[str] = []
    sources = [(role, source) for role, source in (("ih", x), ("hh", back)) if role in layer.words]
    if "ih" not in layer.words:
        gain = b.vector(f"{node.name}.gain", layer.gain.astype(np.float64), (node.units,))
        terms.append(f"(int64_t){_to_fixed(b)}({b.read(x)} * {gain})")
    spikes = [(role, source) for role, source in sources if source.spikes]
    if spikes:
        b.sums = max(b.sums, node.units)
        b.emit(f"memset(s->sums, 0, sizeof(int32_t) * {node.units}u);")
        terms.append(f"(int64_t)s->sums[i] * {scale}")
    for role, source in spikes:
        b.words("s->sums", source, f"{node.name}.{role}", layer.words[role], node.patterns.get(role))
    for role, source in sources:
        if not source.spikes:
            real = b.scratch((node.units,), f"{node.name}.{'drive' if role == 'ih' else 'back'}")
            b.clear(real)
            b.words(real.expr, b.as_floats(source), f"{node.name}.{role}", layer.words[role], node.patterns.get(role))
            terms.append(f"(int64_t){_to_fixed(b)}({b.use(real)}[i] * {scale}.0f)")
    if "hh_diag" in layer.words:
        diag = b.integers(f"{node.name}.hh_diag", layer.words["hh_diag"])
        if back.spikes:
            terms.append(f"({back.expr}[i] != 0u ? {diag} * {scale} : 0)")
        else:
            terms.append(f"(int64_t){_to_fixed(b)}({b.read(back)} * (float)({diag}) * {scale}.0f)")
    if layer.bias.any():
        terms.append(b.integers(f"{node.name}.bias", layer.bias))
    return " + ".join(terms)


def _to_fixed(b: Builder) -> str:
    return b.helper("to_fixed.c", "to_fixed")


def _adapt(b: Builder, node: Recurrent, layer: FixedLayer, states: dict[str, Value], beta: str) -> list[str]:
    """One step of adaptive neurons, in the order of the interpreter; sets ``u``, the new membrane."""
    reset, delay, adapted = node.options.reset, node.options.delay, node.options.adapted
    spk, adapt, mem = (states[s].expr for s in ("spk", "adapt", "mem"))
    strength = b.integers(f"{node.name}.strength", layer.strength)
    leak = b.helper("leak.c", "leak")
    rise = f"{leak}(now, strength)"
    body = [
        f"const int32_t theta = {b.integers(f'{node.name}.threshold', layer.threshold)};",
        f"const int32_t strength = {strength};",
        f"const int fired = {spk}[i] != 0u;",
        f"const int32_t old = {adapt}[i];",
        f"const int32_t now = {_cut(b)}({_leak(b, node, layer, 'rho', 'old')} + (fired ? 32768 : 0));",
        f"const int64_t level = theta + {rise};",
        f"{'const ' if reset is not Reset.ZERO or not delay else ''}int32_t v = {mem}[i];",
    ]
    if reset is Reset.ZERO and delay:
        body.append("v = fired ? 0 : v;")
    body.append(f"{'const ' if reset is Reset.NONE else ''}int64_t u = {beta} + in;")
    if delay and reset is Reset.SUBTRACT:
        body.append(f"u -= fired ? theta{f' + {leak}(old, strength)' if adapted else ''} : 0;")
    elif delay and reset is Reset.ZERO_UPDATE:
        body.append("u = fired ? 0 : u;")
    body.append(f"{spk}[i] = (uint8_t)(u > level);")
    if not delay and reset is Reset.SUBTRACT:
        body.append(f"u -= {spk}[i] != 0u ? {'level' if adapted else 'theta'} : 0;")
    elif not delay and reset is not Reset.NONE:
        body.append(f"u = {spk}[i] != 0u ? 0 : u;")
    return [*body, f"{adapt}[i] = now;"]


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
