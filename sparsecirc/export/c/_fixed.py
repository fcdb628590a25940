"""Spiking layers in fixed point: what their integers are, and the graph that computes with them as the C code does.

One word is the same number in every weight of a row, so that spikes from several matrices add up as integers, and a
membrane counts 1 / 2^bits of it:

    sum = W_ih z_in + W_hh z                                  (int32)
    v = trunc(beta v / 2^15) + 2^bits sum + bias - reset      (int64, then cut to +-2^30)
    z = v > theta

A leak is rounded towards zero, so a membrane left alone gets to rest. A real input, the fed-back membranes of a leaky
integrator among them, is multiplied in single precision, in ascending order, and rounded once; every machine gives the
same integers. Neurons without weights of their own, behind a convolution say, take what it gives, in single precision,
rounded to whole counts of the membrane; their threshold is 2^14 of these, where no recurrent weight says what a word
is worth. The adaptation of an adaptive neuron counts 2^-15 of a spike; it raises the threshold by

    strength a / 2^15                                         (int64, towards zero)
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.cells import Reset
from sparsecirc.errors import UnsupportedError
from sparsecirc.export.c._options import Arithmetic, COptions, Weights
from sparsecirc.ir import Context, Graph, Linear, Recurrent, State, Values

Array = NDArray[Any]
Integers = NDArray[np.int64]
BITS = {Weights.INT8: 8, Weights.INT16: 2}
"""Binary digits of a membrane below one word."""
DECAY = 1 << 15
LEVEL = 14
"""Binary digits of a threshold, where no weight says what a word is worth."""
LIMIT = 1 << 30
"""Where a membrane is cut off; far above any threshold."""
_CELLS = ("lif", "synaptic", "alif", "li")
_WEIGHTS = ("ih", "hh", "hh_diag")


@dataclass(frozen=True, eq=False)
class FixedLayer:
    """Integers of one layer.

    Attributes:
        words: (units, in) by role; of ``hh_diag`` (units,).
        unit: what one word is worth, float32 (units,).
        bits: membranes count ``unit / 2**bits``.
        bias: what enters at every step, in membrane units.
        threshold: of the membrane.
        decays: ``beta``, ``alpha`` and ``rho`` times 2^15, by name.
        strength: by how much one spike of adaptation raises the threshold, in membrane units; of other cells 0.
    """

    words: dict[str, Integers]
    unit: NDArray[np.float32]
    bits: int
    bias: Integers
    threshold: Integers
    decays: dict[str, Integers]
    strength: Integers

    @property
    def gain(self) -> NDArray[np.float32]:
        """Counts of the membrane for a real input of 1, (units,)."""
        return (1 / self.grain.astype(np.float64)).astype(np.float32)

    @property
    def grain(self) -> NDArray[np.float32]:
        """What one count of the membrane is worth, (units,)."""
        return np.ldexp(self.unit, -self.bits).astype(np.float32)

    def grain_of(self, state: str) -> NDArray[np.float32]:
        """What one count of a state is worth, (units,)."""
        return np.full_like(self.unit, 1 / DECAY) if state == "adapt" else self.grain


def is_fixed(node: Any, options: COptions) -> bool:
    """Whether a layer is computed in fixed point: neurons, and leaky integrators that have a weight."""
    return (
        options.fixed
        and isinstance(node, Recurrent)
        and node.cell.name in _CELLS
        and (node.cell.spiking or bool(set(_WEIGHTS) & set(node.params)))
    )


def fixed_layer(node: Recurrent, options: COptions) -> FixedLayer:
    """The integers of ``node``."""
    top, bits = options.weights.top, BITS[options.weights]
    weights = {r: node.weight(r).astype(np.float64) for r in _WEIGHTS if r in node.params}
    vectors = {k: _flat(node, v) for k, v in node.vectors().items()}
    if weights:
        largest = np.max([np.abs(w.reshape(node.units, -1)).max(axis=1, initial=0.0) for w in weights.values()], axis=0)
        unit = np.where(largest > 0, largest / top, 1.0).astype(np.float32)
    else:
        level = np.abs(vectors["threshold"])
        unit = np.ldexp(np.where(level > 0, level, 1.0), bits - LEVEL).astype(np.float32)
    unit = np.maximum(unit, np.finfo(np.float32).tiny)
    exact, grain = unit.astype(np.float64), np.ldexp(unit.astype(np.float64), -bits)
    words = {
        r: np.clip(np.rint(w / (exact[:, None] if r in ("ih", "hh") else exact)), -top, top).astype(np.int64)
        for r, w in ((r, w.ravel() if r == "hh_diag" else w) for r, w in weights.items())
    }

    def whole(value: Array) -> Integers:
        return np.clip(np.rint(value / grain), -LIMIT, LIMIT).astype(np.int64)

    biases = [_flat(node, node.params[r].astype(np.float64)) for r in ("bias_ih", "bias_hh") if r in node.params]
    return FixedLayer(
        words,
        unit,
        bits,
        whole(np.sum(biases, axis=0) if biases else np.zeros(node.units)),
        whole(vectors.get("threshold", np.zeros(node.units))),
        {k: np.rint(vectors[k] * DECAY).astype(np.int64) for k in ("beta", "alpha", "rho") if k in vectors},
        whole(vectors.get("strength", np.zeros(node.units))),
    )


def _flat(node: Recurrent, value: Array) -> Array:
    """A parameter of the units, one entry each, in the order of their features."""
    shape = node.feature_shape or (node.units,)
    wide = value.reshape(shape) if value.size == node.units else value
    return np.broadcast_to(wide, shape).reshape(node.units)


def merge_linear(graph: Graph) -> Graph:
    """The same network with each linear layer that only drives neurons made their own input weight."""
    used: dict[str, int] = {}
    for value in [*graph.outputs.values(), *(i for n in graph.nodes for i in n.inputs)]:
        used[value] = used.get(value, 0) + 1
    linear = {n.name: n for n in graph.nodes if isinstance(n, Linear) and used.get(n.name) == 1}
    nodes, gone = [], set()
    for node in graph.nodes:
        source = linear.get(node.inputs[0]) if isinstance(node, Recurrent) else None
        if (
            isinstance(node, Recurrent)
            and source is not None
            and node.cell.name in _CELLS
            and not {"ih", "bias_ih"} & set(node.params)
            and not node.feature_shape
        ):
            params = {"ih": source.params["weight"], **node.params}
            if "bias" in source.params:
                params["bias_ih"] = source.params["bias"]
            patterns: dict[str, Pattern] = {**node.patterns}
            if "weight" in source.patterns:
                patterns["ih"] = source.patterns["weight"]
            node = replace(node, inputs=source.inputs, params=params, patterns=patterns)
            gone.add(source.name)
        nodes.append(node)
    return replace(graph, nodes=tuple(n for n in nodes if n.name not in gone)) if gone else graph


def fixed_node(node: Recurrent, options: COptions) -> Recurrent:
    """``node`` with the weights and parameters that its integers stand for; its ``compute`` is that of the C code."""
    layer = fixed_layer(node, options)
    unit = layer.unit.astype(np.float64)
    shape = node.feature_shape or (node.units,)
    stood: dict[str, Array] = {r: w * (unit if w.ndim == 1 else unit[:, None]) for r, w in layer.words.items()}
    stood |= {k: (v / DECAY).reshape(shape) for k, v in layer.decays.items()}
    levels = {"threshold": layer.threshold, "strength": layer.strength}
    stood |= {k: (v * layer.grain.astype(np.float64)).reshape(shape) for k, v in levels.items() if k in node.params}
    known = {f.name: getattr(node, f.name) for f in fields(node)}
    return _FixedRecurrent(**{**known, "params": {**node.params, **stood}}, layer=layer, export=options)


@dataclass(frozen=True)
class _FixedRecurrent(Recurrent):
    layer: FixedLayer = None  # type: ignore[assignment]
    export: COptions = None  # type: ignore[assignment]

    def compute(self, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Array], State]:
        if ctx.lengths is not None:
            raise UnsupportedError("fixed-point layers know no valid steps: run samples of different length one by one")
        layer, shape = self.layer, self.feature_shape or (self.units,)
        steps, batch, *features = inputs[0].shape
        x = inputs[0].reshape(steps, batch, int(np.prod(features)))
        grain = {s: 1 if s == "spk" else layer.grain_of(s).astype(np.float64) for s in self.cell.states}
        if "ih" in layer.words:
            drive = _real_drive(x, layer.words["ih"], layer.bits, self.export)
        else:
            drive = _whole(x.astype(np.float32) * layer.gain)
        first = {
            s: np.asarray(state.get(s, np.zeros(batch * self.units))).reshape(batch, self.units)
            for s in self.cell.states
        }
        now = {s: np.rint(v / grain[s]).astype(np.int64) for s, v in first.items()}
        out = {s: np.zeros((steps, batch, self.units), ctx.dtype) for s in self.cell.states}
        step = self._adaptive_step if self.cell.name == "alif" else self._step
        for t in range(steps):
            now = step(drive[t] + layer.bias + self._feedback(now), now)
            for s, value in now.items():
                out[s][t] = value * grain[s]
        wide = {s: v.reshape(steps, batch, *shape) for s, v in out.items()}
        return wide, {s: v[-1] if steps else np.asarray(state.get(s, v.sum(axis=0))) for s, v in wide.items()}

    def _feedback(self, now: dict[str, Integers]) -> Integers | int:
        """What the layer feeds back, in membrane units."""
        words, bits = self.layer.words, self.layer.bits
        if self.cell.spiking:
            if "hh" in words:
                return np.asarray(now["spk"] @ words["hh"].T << bits)
            return np.asarray(now["spk"] * words["hh_diag"] << bits) if "hh_diag" in words else 0
        if "hh" not in words and "hh_diag" not in words:
            return 0
        level = now["mem"].astype(np.float32) * self.layer.grain
        if "hh" in words:
            return _real_drive(level, words["hh"], bits, self.export)
        return _whole(level * words["hh_diag"].astype(np.float32) * np.float32(1 << bits))

    def _adaptive_step(self, current: Integers, now: dict[str, Integers]) -> dict[str, Integers]:
        layer, reset, delay = self.layer, self.options.reset, self.options.delay
        fired, theta = now["spk"], layer.threshold
        adapt = _cut(_leak(layer.decays["rho"], now["adapt"]) + fired * DECAY)
        level = theta + _leak(layer.strength, adapt)
        late: Integers = fired if delay else np.zeros_like(fired)
        start: Integers = np.where(late, 0, now["mem"]) if reset is Reset.ZERO else now["mem"]
        v = _leak(layer.decays["beta"], start) + current
        if reset is Reset.SUBTRACT:
            raised = theta + _leak(layer.strength, now["adapt"]) if self.options.adapted else theta
            v = v - late * raised
        elif reset is Reset.ZERO_UPDATE:
            v = np.where(late, 0, v).astype(np.int64)
        spk: Integers = (v > level).astype(np.int64)
        if not delay and reset is Reset.SUBTRACT:
            v = v - spk * (level if self.options.adapted else theta)
        elif not delay and reset is not Reset.NONE:
            v = np.where(spk, 0, v).astype(np.int64)
        return {"spk": spk, "adapt": adapt, "mem": _cut(v)}

    def _step(self, current: Integers, now: dict[str, Integers]) -> dict[str, Integers]:
        layer, reset = self.layer, self.options.reset
        new: dict[str, Integers] = {}
        if "alpha" in layer.decays:
            new["syn"] = current = _cut(_leak(layer.decays["alpha"], now["syn"]) + current)
        v, theta = now["mem"], layer.threshold
        if not self.cell.spiking:
            return {"mem": _cut(_leak(layer.decays["beta"], v) + current)}
        due = v > theta if reset is not Reset.NONE else np.zeros_like(v, dtype=bool)
        start: Integers = np.where(due, 0, v) if reset is Reset.ZERO else v
        v = _leak(layer.decays["beta"], start) + current
        if reset is Reset.SUBTRACT:
            v = v - due * theta
        elif reset is Reset.ZERO_UPDATE:
            v = np.where(due, 0, v).astype(np.int64)
        spk = v > theta
        if not self.options.delay and reset is not Reset.NONE:
            late: Integers = spk.astype(np.int64) - due
            amount: Integers = theta if reset is Reset.SUBTRACT else v
            v = v - late * amount
        return {"spk": spk.astype(np.int64), **new, "mem": _cut(v)}


def _leak(decay: Integers, v: Integers) -> Integers:
    product = decay * v
    return np.asarray(np.sign(product) * (np.abs(product) // DECAY))


def _cut(v: Integers) -> Integers:
    return np.clip(v, -LIMIT, LIMIT)


def _real_drive(x: Array, words: Integers, bits: int, options: COptions) -> Integers:
    """Product with real numbers in membrane units, as single precision gives it; spikes come out exactly."""
    single = x.astype(np.float32)
    unit = np.ones((1,), np.float32)
    if options.arithmetic is Arithmetic.INT8:
        top = np.abs(single).max(axis=-1, keepdims=True, initial=0.0)
        heard = top > 2.0**-100
        scaled = np.clip(single * (np.float32(127) / np.where(heard, top, 1)), -127, 127)
        single = np.where(heard, np.floor(scaled + np.float32(127.5)) - 127, 0).astype(np.float32)
        unit = np.where(heard, top * np.float32(1 / 127), 0).astype(np.float32)
    total = np.zeros((*single.shape[:-1], len(words)), np.float32)
    if options.arithmetic is Arithmetic.INT8:
        total = (single.astype(np.float64) @ words.T).astype(np.float32)
    else:
        for j in range(words.shape[1]):
            total = total + single[..., j, None] * words[:, j].astype(np.float32)
    return _whole(unit * total * np.float32(1 << bits))


def _whole(counts: NDArray[np.float32]) -> Integers:
    cut = np.clip(counts, -LIMIT, LIMIT)
    return np.asarray(np.trunc(cut + np.copysign(np.float32(0.5), cut)).astype(np.int64))
