"""Spiking layers as NIR nodes.

With dt the step that readers assume, a decay beta is written as tau = dt / (1 - beta), and beta = 1 as IF or I.

Dialect::

    LIF      r = 1, v_threshold = theta dt / tau                    (snntorch, norse and spikingjelly scale alike)
    CubaLIF  r = tau_mem / dt, w_in = tau_syn / dt, v_threshold = theta
    recurrent: one inner graph   input -> lif -> output,  lif -> w_rec -> lif

In float32 the threshold is rounded up, to the next number above the exact product: with weights on a grid the membrane
often equals the threshold, where NIR says no spike, but some readers compare with ``>=``.

``SUBTRACT`` profile, all gains 1, in float64 (-x-> is a connection of weight x; one that closes a cycle acts a step
later)::

    delayed:      I -> LI (mem) -> Threshold (spike),   spike -(-theta)-> mem,   spike -w_rec-> mem
    at once:      spike -(-beta theta)-> mem, and, because a membrane above theta even after its reset is lowered before
                  it may fire again:   mem -> over,  spike -(-theta)-> over,  over -(-theta)-> spike
    no reset:     without the -theta connection
    synaptic:     I -> LI (syn) -> mem, and w_rec leads to syn
    adaptive:     spike -> LI (adapt) -(-strength)-> spike, a step later; at once without the nodes over and hold
    integrator:   I -> LI, and where it is recurrent  LI -w_rec-> LI
    lost update:  I -> LIF (mem) -> Threshold 1/2 (spike),   spike -(-1)-> spike,   spike -PUSH-> mem

The last is the delayed reset that drops the whole update of the step after a spike. The push makes the LIF fire in that
step whatever its input, and firing clears it; the feedback of -1 takes that second spike away again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.cells import SYNAPTIC, Reset
from sparsecirc.errors import UnsupportedError
from sparsecirc.export.nir._emit import Builder, Sources, _sparse
from sparsecirc.export.nir._euler import NIR_DT
from sparsecirc.export.nir._metadata import pack, vector_info
from sparsecirc.export.nir._profile import integrates
from sparsecirc.ir import Recurrent

Array = NDArray[Any]
PUSH = 2.0**40
"""What a spike adds to a membrane so that it fires in the next step too, in units of 1 + theta: more than any input."""


@dataclass(frozen=True)
class _Layer:
    """One layer with its parameters in float64 and in full shape."""

    node: Recurrent
    builder: Builder
    ports: frozenset[str]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.node.feature_shape or (self.node.units,)

    def vector(self, name: str) -> Array:
        value = np.asarray(self.node.params[name], dtype=np.float64)
        if value.size == np.prod(self.shape):
            return value.reshape(self.shape)
        return np.broadcast_to(value, self.shape)

    def info(self, **more: Any) -> dict[str, str]:
        options = self.node.options
        told = {name: vector_info(self.node.params[name]) for name in self.node.cell.vectors}
        return pack(
            {"name": self.node.name, "cell": self.node.cell.name, "reset": options.reset.value}
            | {"delay": options.delay, **told, **more}
        )

    def tau(self, name: str) -> Array:
        return self.builder.real(NIR_DT / (1.0 - self.vector(name)))

    def zeros(self) -> Array:
        return self.builder.real(np.zeros(self.shape))

    def recurrent(self) -> Any:
        """The recurrent weight as a ``nir.Linear``, or ``None``."""
        for role in ("hh", "hh_diag"):
            if role not in self.node.params:
                continue
            if len(self.shape) != 1:
                raise UnsupportedError(
                    f"layer '{self.node.name}' of shape {self.shape} has a recurrent weight, NIR's works on vectors: "
                    "flatten before it"
                )
            weight = self.node.weight(role).reshape(self.node.units, -1) if role == "hh" else self.node.weight(role)
            info = {"name": self.node.name, "role": role, **_sparse(self.node.patterns, role)}
            dense = weight if role == "hh" else np.diag(weight.reshape(-1))
            return self.builder.nir.Linear(weight=self.builder.weight(dense), metadata=pack(info))
        return None


def unit_resistance(tau: Array) -> Array:
    """Resistance r with r (dt / tau) = 1, exactly where a float64 number does that."""
    rate = NIR_DT / np.asarray(tau, dtype=np.float64)
    r = 1.0 / rate
    above = np.nextafter(r, np.inf)
    return np.where((r * rate != 1.0) & (above * rate == 1.0), above, r)


def _above(value: Array) -> Array:
    """The smallest float32 number above ``value``; zero stays zero."""
    near = value.astype(np.float32)
    up = np.where(near.astype(np.float64) <= value, np.nextafter(near, np.float32(np.inf)), near)
    return np.where(value == 0, np.float32(0), up).astype(np.float32)


def _f64(value: Array) -> Array:
    return np.asarray(value, dtype=np.float64)


def emit_zero(builder: Builder, node: Recurrent, ports: frozenset[str], sources: Sources) -> tuple[str, ...]:
    """A layer as LIF, CubaLIF or IF; returns notes for the user."""
    layer = _Layer(node, builder, ports)
    if node.cell is SYNAPTIC and ("syn" in ports or integrates(node, "alpha") or integrates(node, "beta")):
        _synapse_and_zero(layer, sources)
        return ()
    neuron, notes = _cuba_lif(layer) if node.cell is SYNAPTIC else _lif(layer)
    weight = layer.recurrent()
    if weight is None:
        name = builder.add(node.name, neuron, sources)
        builder.spikes[node.name] = name
    else:
        shape = np.array(layer.shape)
        inner = builder.nir.NIRGraph(
            nodes={
                "input": builder.nir.Input(input_type=shape),
                "lif": neuron,
                "output": builder.nir.Output(output_type=shape),
                "w_rec": weight,
            },
            # norse's reader walks edges in this order and returns what it met last: that must be the output.
            edges=[("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")],
            metadata=pack({"name": node.name}),
        )
        name = builder.add(node.name, inner, sources)
        builder.spikes[node.name] = f"{name}/lif"
    builder.values |= {node.name: (name,), f"{node.name}.spk": (name,)}
    return notes


def _lif(layer: _Layer) -> tuple[Any, tuple[str, ...]]:
    nir, single = layer.builder.nir, layer.builder.single
    theta = layer.vector("threshold")
    common = {"v_reset": layer.zeros(), "metadata": layer.info()}
    if integrates(layer.node, "beta"):
        r = layer.builder.real(np.full(layer.shape, 1.0 / NIR_DT))
        threshold = _above(theta * _f64(r) * NIR_DT) if single else theta
        return nir.IF(r=r, v_threshold=layer.builder.real(threshold), **common), (_integrator(layer),)
    tau = layer.tau("beta")
    uniform = bool(np.all(tau == tau.flat[0]))
    if not single:
        r, threshold = unit_resistance(tau), theta
    elif uniform:
        r, threshold = np.ones_like(tau), _above(theta * (NIR_DT / _f64(tau)))
    else:
        r, threshold = layer.builder.real(unit_resistance(tau)), _above(theta)
    made = nir.LIF(tau=tau, r=r, v_leak=layer.zeros(), v_threshold=layer.builder.real(threshold), **common)
    return made, () if uniform else (_mixed_tau(layer),)


def _cuba_lif(layer: _Layer) -> tuple[Any, tuple[str, ...]]:
    tau_syn, tau_mem = layer.tau("alpha"), layer.tau("beta")
    r, w_in = layer.builder.real(unit_resistance(tau_mem)), layer.builder.real(unit_resistance(tau_syn))
    uniform = all(bool(np.all(t == t.flat[0])) for t in (tau_syn, tau_mem))
    threshold = layer.vector("threshold")
    if layer.builder.single:
        gain = _f64(r) * (NIR_DT / _f64(tau_mem)) * _f64(w_in) * (NIR_DT / _f64(tau_syn))
        threshold = _above(threshold * gain if uniform else threshold)
    made = layer.builder.nir.CubaLIF(
        tau_syn=tau_syn,
        tau_mem=tau_mem,
        r=r,
        v_leak=layer.zeros(),
        v_reset=layer.zeros(),
        v_threshold=layer.builder.real(threshold),
        w_in=w_in,
        metadata=layer.info(),
    )
    return made, () if uniform else (_mixed_tau(layer),)


def _integrator(layer: _Layer) -> str:
    return (
        f"layer '{layer.node.name}' does not leak: IF with r = 1 / dt, which norse and spikingjelly read and snntorch "
        "refuses"
    )


def _mixed_tau(layer: _Layer) -> str:
    return (
        f"layer '{layer.node.name}' has a time constant per unit: r is written as tau / dt, which snntorch reads, "
        "norse ignores and spikingjelly refuses"
    )


def _leak(layer: _Layer, name: str, metadata: dict[str, str]) -> Any:
    """LI of unit gain, or I where the decay is 1."""
    nir = layer.builder.nir
    if integrates(layer.node, name):
        return nir.I(r=layer.builder.real(np.full(layer.shape, 1.0 / NIR_DT)), metadata=metadata)
    tau = layer.tau(name)
    return nir.LI(tau=tau, r=layer.builder.real(unit_resistance(tau)), v_leak=layer.zeros(), metadata=metadata)


def _part(layer: _Layer, part: str) -> dict[str, str]:
    return pack({"name": layer.node.name, "part": part})


def _synapse_and_zero(layer: _Layer, sources: Sources) -> None:
    """A synaptic layer that resets to zero, its synapse as a node of its own."""
    builder, name = layer.builder, layer.node.name
    syn = builder.add(f"{name}_syn", _leak(layer, "alpha", _part(layer, "syn")), sources)
    spike = builder.add(name, _lif(layer)[0], (syn,))
    weight = layer.recurrent()
    if weight is not None:
        builder.connect(builder.add(f"{name}_rec", weight, (spike,)), syn)
    builder.spikes[name] = spike
    builder.values |= {name: (spike,), f"{name}.spk": (spike,), f"{name}.syn": (syn,)}


def emit_lost_update(builder: Builder, node: Recurrent, sources: Sources) -> None:
    """A layer whose membrane drops the whole update of the step after a spike, of LIF, Threshold and Scale nodes."""
    layer, name = _Layer(node, builder, frozenset()), node.name
    nir = builder.nir
    entry = ""
    if node.cell is SYNAPTIC:
        entry = builder.add(f"{name}_syn", _leak(layer, "alpha", _part(layer, "syn")), sources)
        builder.values[f"{name}.syn"] = (entry,)
    mem = builder.add(f"{name}_mem", _lif(layer)[0], (entry,) if entry else sources)
    half = nir.Threshold(threshold=builder.real(np.full(layer.shape, 0.5)), metadata=_part(layer, "spike"))
    spike = builder.add(f"{name}_spike", half, (mem,))
    builder.spikes[name] = spike
    builder.values |= {name: (spike,), f"{name}.spk": (spike,)}
    once = nir.Scale(scale=builder.real(-np.ones(layer.shape)), metadata=_part(layer, "once"))
    builder.connect(builder.add(f"{name}_once", once, (spike,)), spike)
    push = nir.Scale(scale=builder.real(PUSH * (1 + layer.vector("threshold"))), metadata=_part(layer, "push"))
    builder.connect(builder.add(f"{name}_push", push, (spike,)), mem)
    weight = layer.recurrent()
    if weight is not None:
        builder.connect(builder.add(f"{name}_rec", weight, (spike,)), entry or mem)


def emit_subtract(builder: Builder, node: Recurrent, ports: frozenset[str], sources: Sources) -> None:
    """A layer that resets by subtraction or not at all, of LI, Threshold and Linear nodes."""
    layer, name = _Layer(node, builder, ports), node.name
    nir, options = builder.nir, node.options
    theta = layer.vector("threshold")
    entry = ""
    if node.cell is SYNAPTIC:
        entry = builder.add(f"{name}_syn", _leak(layer, "alpha", _part(layer, "syn")), sources)
        builder.values[f"{name}.syn"] = (entry,)
    mem = builder.add(f"{name}_mem", _leak(layer, "beta", layer.info()), (entry,) if entry else sources)
    builder.values[f"{name}.mem"] = (mem,)
    weight = layer.recurrent()
    if options.reset is Reset.NONE and weight is None and "spk" not in ports:
        return  # a readout of membranes
    spike = builder.add(
        f"{name}_spike", nir.Threshold(threshold=builder.real(theta), metadata=_part(layer, "spike")), (mem,)
    )
    builder.spikes[name] = spike
    builder.values |= {name: (spike,), f"{name}.spk": (spike,)}
    if options.reset is Reset.SUBTRACT:
        if not options.delay:
            _at_once(layer, mem, spike, theta)
        _subtract(layer, mem, spike, theta)
    if weight is not None:
        builder.connect(builder.add(f"{name}_rec", weight, (spike,)), entry or mem)


def emit_adaptive(builder: Builder, node: Recurrent, ports: frozenset[str], sources: Sources) -> None:
    """A layer whose threshold adapts: the adaptation, a LI driven by the spikes, is taken off what the spikes see."""
    layer, name = _Layer(node, builder, ports), node.name
    theta = layer.vector("threshold")
    mem = builder.add(f"{name}_mem", _leak(layer, "beta", layer.info()), sources)
    threshold = builder.nir.Threshold(threshold=builder.real(theta), metadata=_part(layer, "spike"))
    spike = builder.add(f"{name}_spike", threshold, (mem,))
    adapt = builder.add(f"{name}_adapt", _leak(layer, "rho", _part(layer, "adapt")), (spike,))
    rise = builder.add(
        f"{name}_rise", builder.diagonal(-layer.vector("strength"), {"name": name, "part": "rise"}), (adapt,)
    )
    builder.connect(rise, spike)
    builder.spikes[name] = spike
    builder.values |= {name: (spike,), f"{name}.spk": (spike,), f"{name}.mem": (mem,)}
    if node.options.reset is Reset.SUBTRACT:
        if not node.options.delay and "mem" in ports:
            lower = builder.nir.Scale(scale=builder.real(-theta), metadata=_part(layer, "lower"))
            builder.values[f"{name}.mem"] = (mem, builder.add(f"{name}_lower", lower, (spike,)))
        _subtract(layer, mem, spike, theta)
    weight = layer.recurrent()
    if weight is not None:
        builder.connect(builder.add(f"{name}_rec", weight, (spike,)), mem)


def emit_integrator(builder: Builder, node: Recurrent, ports: frozenset[str], sources: Sources) -> None:
    """A leaky integrator."""
    layer, name = _Layer(node, builder, ports), node.name
    mem = builder.add(name, _leak(layer, "beta", layer.info()), sources)
    builder.values |= {name: (mem,), f"{name}.mem": (mem,)}
    weight = layer.recurrent()
    if weight is not None:
        builder.connect(builder.add(f"{name}_rec", weight, (mem,)), mem)


def _subtract(layer: _Layer, mem: str, spike: str, theta: Array) -> None:
    """The connection by which a spike lowers the membrane of the next step."""
    builder, name = layer.builder, layer.node.name
    amount = theta if layer.node.options.delay else layer.vector("beta") * theta
    reset = builder.add(f"{name}_reset", builder.diagonal(-amount, {"name": name, "part": "reset"}), (spike,))
    builder.connect(reset, mem)


def _at_once(layer: _Layer, mem: str, spike: str, theta: Array) -> None:
    builder, name = layer.builder, layer.node.name
    nir = builder.nir
    lower = nir.Scale(scale=builder.real(-theta), metadata=_part(layer, "lower"))
    lowered = builder.add(f"{name}_lower", lower, (spike,))
    above = nir.Threshold(threshold=builder.real(theta), metadata=_part(layer, "over"))
    over = builder.add(f"{name}_over", above, (mem, lowered))
    hold = builder.add(f"{name}_hold", nir.Scale(scale=builder.real(-theta), metadata=_part(layer, "hold")), (over,))
    builder.connect(hold, spike)
    builder.values[f"{name}.mem"] = (mem, lowered)  # [batch, units]: the membrane after its reset
