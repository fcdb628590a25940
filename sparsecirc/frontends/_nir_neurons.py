"""Neurons of a NIR graph recognised as layers of ours: which nodes belong together, and their parameters.

With k = dt / tau and g = r k, NIR's v = (1 - k) v + g I is our v = beta v + I with beta = 1 - k, in units of g; so the
threshold is divided by g, and where a membrane itself is read it is multiplied by g. A leak towards v_leak adds
v_leak / r to the input; where spikes set a membrane to v_reset, also where it starts, it is counted from there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.cells import ALIF, LI, LIF, SYNAPTIC, Cell, Options, Reset
from sparsecirc.errors import UnsupportedError
from sparsecirc.export.nir._euler import FlatGraph, kind
from sparsecirc.export.nir._metadata import read_vector, unpack
from sparsecirc.export.nir._neurons import PUSH

Array = NDArray[np.float64]

FIRING = ("LIF", "IF", "CubaLIF")
LEAKY = ("LI", "I", "CubaLI")


@dataclass
class Group:
    """The NIR nodes that are one layer.

    Attributes:
        mem: the node that holds the membrane (also the one that fires, if it is a LIF, IF or CubaLIF).
        syn: a separate node that holds the synapse, or "".
        spike: the node whose output is the spikes, or "".
        rec: the recurrent Linear or Affine, or "".
        adapt: the leak that holds the adaptation of the threshold, or "".
        rise: the connection from ``adapt`` to ``spike``, or "".
        lowered: at-once subtraction: the node that, added to ``mem``, gives the membrane after its reset.
        options: how it resets.
        members: all nodes.
        delayed: the edges in it that act a step later.
    """

    mem: str
    syn: str = ""
    spike: str = ""
    rec: str = ""
    adapt: str = ""
    rise: str = ""
    lowered: str = ""
    options: Options = field(default_factory=lambda: Options(Reset.NONE, delay=False))
    members: set[str] = field(default_factory=set)
    delayed: set[tuple[str, str]] = field(default_factory=set)

    @property
    def entry(self) -> str:
        """The node that takes the input."""
        return self.syn or self.mem

    @property
    def holds_membrane(self) -> bool:
        """Whether ``mem`` puts out membranes, not spikes."""
        return self.mem != self.spike and self.options.reset is not Reset.ZERO_UPDATE

    @property
    def integrates(self) -> bool:
        """Whether it is nothing but leaks: nothing in it fires."""
        return not self.spike


@dataclass(frozen=True)
class Membrane:
    """One leak: v - floor = decay (v - floor) + gain (I + drive), from v = floor on."""

    decay: Array
    gain: Array
    drive: Array
    floor: Array


def membrane(path: str, node: Any, dt: float, which: str = "mem") -> Membrane:
    """What a neuron's membrane does, or with ``which="syn"`` the synapse inside a CubaLI or CubaLIF.

    Raises:
        UnsupportedError: a time constant that does not fit ``dt``, or a gain of 0 or less.
    """
    tau = getattr(node, "tau_syn" if which == "syn" else "tau_mem", getattr(node, "tau", None))
    strength = np.asarray(node.w_in if which == "syn" else node.r, dtype=np.float64)
    rest, floor = (
        np.asarray(0.0 if which == "syn" else getattr(node, name, 0.0), dtype=np.float64)
        for name in ("v_leak", "v_reset")
    )
    if tau is None:
        rate, decay, gain = np.zeros_like(strength), np.ones_like(strength), strength * dt
    else:
        rate = dt / np.asarray(tau, dtype=np.float64)
        if not np.all(np.isfinite(rate)) or np.any(rate <= 0) or np.any(rate > 1 + 1e-6):
            raise UnsupportedError(
                f"NIR node '{path}' ({kind(node)}) has time constants from {np.min(tau):g} to {np.max(tau):g} s, not "
                f"above the step of {dt:g} s: pass the step the file was made for as dt"
            )
        decay, gain = np.maximum(1.0 - rate, 0.0), strength * rate
    if np.any(gain <= 0):
        raise UnsupportedError(f"NIR node '{path}' ({kind(node)}) has a gain <= 0, which no cell here can hold")
    return Membrane(decay, gain, rate * (rest - floor) / gain, floor)


def constant_input(flat: FlatGraph, group: Group, dt: float) -> Array:
    """What leaks towards a ``v_leak`` add to the input of a layer.

    Raises:
        UnsupportedError: such a leak where no constant input gives it.
    """
    name, entry = kind(flat.nodes[group.mem]), flat.nodes[group.entry]
    fused = group.syn or name == "CubaLIF" or (name == "CubaLI" and not group.integrates)
    reasons = {group.mem: "its synapse stands before it"} if fused else {}
    reasons |= {group.adapt: "it is the adaptation of a threshold"} if group.adapt else {}
    for path, why in reasons.items():
        if np.any(membrane(path, flat.nodes[path], dt).drive):
            raise UnsupportedError(
                f"NIR node '{path}' ({kind(flat.nodes[path])}) has a v_leak that no constant input gives: {why}"
            )
    if name == "Threshold" or group.entry in reasons:
        return np.zeros(1)
    drive = membrane(group.entry, entry, dt).drive
    # The synapse of a CubaLI is a layer of its own, in units of its gain.
    return drive / membrane(group.entry, entry, dt, "syn").gain if name == "CubaLI" else drive


def find_groups(flat: FlatGraph, order: list[str], dt: float) -> list[Group]:
    """Every neuron of the graph, as one group each, in order of computation."""
    groups: list[Group] = []
    taken: set[str] = set()
    for path in order:
        if path in taken:
            continue
        name = kind(flat.nodes[path])
        if name in FIRING:
            group = _firing(flat, path, "")
        elif name in LEAKY:
            after = [t for t in flat.targets(path) if _may_follow(flat, path, t)]
            own = [t for t in flat.targets(path) if kind(flat.nodes[t]) == "Threshold" and _loops(flat, t, {path})]
            if name == "CubaLI" or own or _linear_loops(flat, path):
                after = []  # it has a synapse, spikes or a feedback of its own
            fused = _synaptic(flat, after[0], path, dt) if after else None
            group = fused or _leaky(flat, path, "", dt)
        elif name == "Threshold":
            group = Group(path, spike=path)
        else:
            continue
        group.members |= {n for n in (group.mem, group.syn, group.spike, group.rec, group.adapt, group.rise) if n}
        taken |= group.members
        groups.append(group)
    return groups


def _may_follow(flat: FlatGraph, synapse: str, target: str) -> bool:
    """Whether ``target`` is a membrane that only ``synapse`` and resets of its own drive."""
    if kind(flat.nodes[target]) not in ("LIF", "IF", "LI", "I"):
        return False
    loops = {w for t in flat.targets(target) for w in flat.targets(t)} | set(flat.targets(target))
    return set(flat.sources(target)) - {synapse} <= loops


def _loops(flat: FlatGraph, source: str, targets: set[str]) -> list[str]:
    """Linear, Affine and Scale nodes that carry ``source`` back to one of ``targets`` and nowhere else."""
    return [
        w
        for w in flat.targets(source)
        if kind(flat.nodes[w]) in ("Linear", "Affine", "Scale")
        and flat.sources(w) == [source]
        and len(flat.targets(w)) == 1
        and flat.targets(w)[0] in targets
    ]


def _firing(flat: FlatGraph, path: str, syn: str) -> Group:
    group = Group(path, syn, spike=path, options=Options(Reset.ZERO, delay=False))
    if gate := _lost_update(flat, path):
        spike, once, push = gate
        group.spike, group.options = spike, Options(Reset.ZERO_UPDATE, delay=True)
        group.members |= {once, push}
        group.delayed |= {(once, spike), (push, path)}
    loops = [
        w for w in _loops(flat, group.spike, {group.entry}) if kind(flat.nodes[w]) != "Scale" and w not in group.members
    ]
    if loops:
        group.rec = loops[0]
        group.delayed.add((group.rec, group.entry))
    return group


def _lost_update(flat: FlatGraph, mem: str) -> tuple[str, ...]:
    """``spike``, ``once`` and ``push`` of a LIF that drops the update of the step after a spike, or ()."""
    after = flat.targets(mem)
    if len(after) != 1 or kind(flat.nodes[after[0]]) != "Threshold":
        return ()
    spike, node = after[0], flat.nodes[mem]
    half = np.asarray(flat.nodes[spike].threshold)
    firm = PUSH * (1 + np.asarray(node.v_threshold, dtype=np.float64))
    found = {"once": "", "push": ""}
    for name in flat.targets(spike):
        product = _diagonal(flat.nodes[name]) if flat.sources(name) == [spike] else None
        if product is None or len(flat.targets(name)) != 1:
            continue
        if flat.targets(name) == [spike] and np.all(product == -1):
            found["once"] = name
        elif flat.targets(name) == [mem] and np.all(product >= firm):
            found["push"] = name
    whole = all(found.values()) and set(flat.sources(spike)) == {mem, found["once"]}
    return (spike, found["once"], found["push"]) if whole and np.all((half >= 0) & (half < 1)) else ()


def _synaptic(flat: FlatGraph, mem: str, syn: str, dt: float) -> Group | None:
    """A membrane with its synapse; ``None`` where a recurrent connection passes the synapse by."""
    if kind(flat.nodes[mem]) in FIRING:
        return None if _loops(flat, mem, {mem}) else _firing(flat, mem, syn)
    group = _leaky(flat, mem, syn, dt)
    if group.integrates and unpack(flat.nodes[mem]).get("cell") != SYNAPTIC.name:
        return None
    into_mem = _loops(flat, group.spike, {mem}) if group.spike else []
    return group if set(into_mem) <= group.members else None


def _leaky(flat: FlatGraph, mem: str, syn: str, dt: float) -> Group:
    """A group around a membrane without a reset of its own."""
    group = Group(mem, syn)
    thresholds = [t for t in flat.targets(mem) if kind(flat.nodes[t]) == "Threshold"]
    plain = [t for t in thresholds if flat.sources(t) == [mem]]
    held = [t for t in thresholds if t not in plain and _at_once(flat, mem, t)]
    adaptive = [] if syn else [t for t in thresholds if t not in plain and _adaptation(flat, mem, t)]
    looping = [t for t in plain if _loops(flat, t, {mem, group.entry})]
    for spike in (*held, *adaptive, *looping, *plain)[:1]:
        group.spike = spike
        group.members.add(spike)
        if spike in adaptive:
            group.rise, group.adapt = _adaptation(flat, mem, spike)
            group.delayed.add((group.rise, spike))
        if spike in held:
            hold, over, lower = _at_once(flat, mem, spike)
            group.lowered = lower
            group.members |= {hold, over, lower}
            group.delayed.add((hold, spike))
        for loop in _loops(flat, spike, {mem, group.entry}):
            direct = flat.targets(loop) == [mem] and kind(flat.nodes[mem]) != "CubaLI"  # not by way of a synapse
            if direct and (reset := _reset_of(flat, group, loop, dt)) is not None:
                group.options = reset
                group.members.add(loop)
                group.delayed.add((loop, mem))
            elif not group.rec and flat.targets(loop) == [group.entry] and kind(flat.nodes[loop]) != "Scale":
                group.rec = loop
                group.delayed.add((loop, group.entry))
    if not group.spike and not syn:
        for loop in _linear_loops(flat, mem)[:1]:
            group.rec = loop
            group.delayed.add((loop, mem))
    return group


def _linear_loops(flat: FlatGraph, mem: str) -> list[str]:
    """Linear and Affine nodes that feed a leak back to itself; not of a CubaLI, where they end at its synapse."""
    if kind(flat.nodes[mem]) not in ("LI", "I"):
        return []
    return [w for w in _loops(flat, mem, {mem}) if kind(flat.nodes[w]) != "Scale"]


def _adaptation(flat: FlatGraph, mem: str, spike: str) -> tuple[str, ...]:
    """``rise`` and ``adapt`` of a threshold that adapts, or ()."""
    for rise in set(flat.sources(spike)) - {mem}:
        if _diagonal(flat.nodes[rise]) is None or flat.targets(rise) != [spike] or len(flat.sources(rise)) != 1:
            continue
        adapt = flat.sources(rise)[0]
        if (
            kind(flat.nodes[adapt]) in ("LI", "I")
            and set(flat.sources(spike)) == {mem, rise}
            and flat.sources(adapt) == [spike]
            and flat.targets(adapt) == [rise]
        ):
            return rise, adapt
    return ()


def _diagonal(node: Any) -> Array | None:
    """The factor per unit of a Scale, or of a Linear that connects each unit to itself only; else ``None``."""
    if kind(node) == "Scale":
        return np.asarray(node.scale, dtype=np.float64)
    if kind(node) not in ("Linear", "Affine") or np.any(np.asarray(getattr(node, "bias", 0.0)) != 0):
        return None
    weight = np.asarray(node.weight, dtype=np.float64)
    if weight.ndim != 2 or weight.shape[0] != weight.shape[1] or np.any(weight != np.diag(np.diag(weight))):
        return None
    return np.diag(weight)


def _at_once(flat: FlatGraph, mem: str, spike: str) -> tuple[str, ...]:
    """``hold``, ``over`` and ``lower`` of a subtraction that acts at once, or ()."""
    theta = np.asarray(flat.nodes[spike].threshold)
    for hold in set(flat.sources(spike)) - {mem}:
        if kind(flat.nodes[hold]) != "Scale" or flat.targets(hold) != [spike] or len(flat.sources(hold)) != 1:
            continue
        over = flat.sources(hold)[0]
        lower = next((n for n in flat.sources(over) if n != mem), "")
        if (
            kind(flat.nodes[over]) == "Threshold"
            and set(flat.sources(spike)) == {mem, hold}
            and set(flat.sources(over)) == {mem, lower}
            and flat.targets(over) == [hold]
            and kind(flat.nodes[lower]) == "Scale"
            and flat.sources(lower) == [spike]
            and np.array_equal(flat.nodes[over].threshold, theta)
            and all(np.array_equal(-theta, np.asarray(flat.nodes[n].scale)) for n in (hold, lower))
        ):
            return hold, over, lower
    return ()


def _reset_of(flat: FlatGraph, group: Group, loop: str, dt: float) -> Options | None:
    """The reset that a connection from spikes to the membrane makes, or ``None`` if it is not one."""
    product = _diagonal(flat.nodes[loop])
    if group.options.reset is Reset.SUBTRACT or product is None:
        return None
    leak = membrane(group.mem, flat.nodes[group.mem], dt)
    theta = np.asarray(flat.nodes[group.spike].threshold, dtype=np.float64)

    def takes(amount: Array) -> bool:
        return np.allclose(leak.gain * product, -amount, rtol=1e-6, atol=0)

    if not group.adapt:
        amount = theta * leak.decay if group.lowered else theta
        return Options(Reset.SUBTRACT, delay=not group.lowered) if takes(amount) else None
    lowered = _lowered(flat, group, theta)
    if not lowered and takes(theta):
        return Options(Reset.SUBTRACT, delay=True)
    if takes(theta * leak.decay) and (lowered or set(flat.targets(group.mem)) == {group.spike}):
        group.lowered = lowered
        group.members |= {lowered} - {""}
        return Options(Reset.SUBTRACT, delay=False)
    return None


def _lowered(flat: FlatGraph, group: Group, theta: Array) -> str:
    """The node that, added to the membrane wherever that is read, makes it the one after its reset; or ""."""
    readers = set(flat.targets(group.mem)) - {group.spike}
    for node in flat.targets(group.spike):
        product = _diagonal(flat.nodes[node]) if flat.sources(node) == [group.spike] else None
        if readers and set(flat.targets(node)) == readers and product is not None and np.array_equal(product, -theta):
            return node
    return ""


def parameters(
    flat: FlatGraph, group: Group, shape: tuple[int, ...], dt: float
) -> tuple[Cell, dict[str, NDArray[Any]], Options, dict[str, Array]]:
    """Cell, per-unit vectors, options, and the gain of each state that can be read (``mem``, ``syn``)."""
    node = flat.nodes[group.mem]
    info = unpack(node)
    if kind(node) == "Threshold":
        vectors = {"beta": np.zeros(shape), "threshold": np.broadcast_to(node.threshold, shape).astype(np.float64)}
        return LIF, vectors, group.options, {}
    mem = membrane(group.mem, node, dt)
    cell, gains, found = LIF, {"mem": mem.gain}, {"beta": mem.decay}
    inner = kind(node) in ("CubaLI", "CubaLIF")
    if kind(node) == "CubaLI" and group.integrates:
        gains = {"mem": mem.gain * membrane(group.mem, node, dt, "syn").gain}  # its synapse is a layer of its own
    elif inner or group.syn:
        source = group.mem if inner else group.syn
        syn = membrane(source, flat.nodes[source], dt, "syn" if inner else "mem")
        cell, found = SYNAPTIC, {"alpha": syn.decay, **found}
        gains = {"syn": syn.gain, "mem": mem.gain * syn.gain}
    if group.integrates and (cell is LIF and (group.rec or info.get("cell") != LIF.name)):
        vector = read_vector(info.get("beta"), np.ascontiguousarray(np.broadcast_to(mem.decay, shape)))
        return LI, {"beta": vector}, Options(), {"mem": np.broadcast_to(gains["mem"], shape)}
    if group.adapt:
        cell, leak, gain = ALIF, membrane(group.adapt, flat.nodes[group.adapt], dt), _diagonal(flat.nodes[group.rise])
        assert gain is not None
        found |= {"rho": leak.decay, "strength": -gain * leak.gain / mem.gain}
    theta = getattr(node, "v_threshold", getattr(flat.nodes.get(group.spike), "threshold", None))
    # A membrane that nobody compares with a threshold: any will do, 1 is usual.
    over = None if theta is None else np.asarray(theta, dtype=np.float64) - mem.floor
    found["threshold"] = np.ones(shape) if over is None else over / gains["mem"]
    full = {k: np.ascontiguousarray(np.broadcast_to(v, shape)) for k, v in found.items()}
    vectors = {k: read_vector(info.get(k), v) for k, v in full.items()}
    return cell, vectors, _options(group, info), {k: np.broadcast_to(v, shape) for k, v in gains.items()}


def _options(group: Group, info: dict[str, Any]) -> Options:
    """What the file's metadata say of the reset where several give the same spikes, else the plainest."""
    if group.options.reset in (Reset.SUBTRACT, Reset.ZERO_UPDATE):
        return group.options
    try:
        said = Options(Reset(info["reset"]), bool(info["delay"]))
    except (KeyError, ValueError):
        return group.options
    if group.options.reset is Reset.NONE:
        same = said.reset is Reset.NONE
    else:
        same = said.reset is Reset.ZERO or (said.reset is Reset.ZERO_UPDATE and not said.delay)
    return said if same else group.options
