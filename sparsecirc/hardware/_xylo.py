"""Networks in the integers of Xylo: 8-bit weights, decays by shifts, 16-bit states.

In a step, with d(x, k) = max(x >> k, 1 if x > 0), and s(x) the nearest number of 16 bits::

    i = s(i + w z), one source after the other;   i = i - d(i, dash_syn)
    v = s(v + s(s(i - d(v, dash_mem)) + bias))
    n = min(v // threshold, 31) where v >= threshold    (last layer: 1 at most)
    v = v - n threshold

with the weights shifted to the left by one number for all that comes from inputs, one between hidden neurons and one
for the last layer. ``n`` spikes are sent; between neurons they arrive a step later, from inputs at once. Found by
experiments with SynSense's simulator (xylosim 0.1.3, ``v2.XyloLayer``), which gives the same states, bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc.cells import Options, Reset
from sparsecirc.errors import UnsupportedError
from sparsecirc.hardware._integer import IntegerNetwork, Ints, Run
from sparsecirc.hardware._network import SOURCES, Network, Population, Projection

LARGEST, LOW, HIGH = 127, -(2**15), 2**15 - 1
HIDDEN_SPIKES, INPUT_SPIKES = 31, 15
SHIFTS = 15
ROOM = 4
"""How many thresholds a state has to hold."""


@dataclass(frozen=True)
class XyloNeurons:
    """Stored numbers of one population; one entry per unit."""

    threshold: Ints
    dash_syn: Ints
    dash_mem: Ints
    bias: Ints


@dataclass(frozen=True)
class XyloNetwork(IntegerNetwork):
    """A network in Xylo's integers.

    Attributes:
        neurons: stored numbers by population.
        shifts: by projection, equal for all from inputs, all between hidden neurons, and all into the last layer.
    """

    neurons: Mapping[str, XyloNeurons]
    shifts: Mapping[str, int]

    def start(self, batch: int) -> dict[str, Any]:
        """All states at zero."""
        return {f"{p.name}.{s}": np.zeros((batch, p.units), np.int64) for p in self.net.neurons for s in ("i", "v")}

    def advance(self, name: str, arrivals: Sequence[tuple[str, Ints]], state: dict[str, Any]) -> Ints:
        """One step; see the module."""
        n = self.neurons[name]
        i = state[f"{name}.i"]
        for c, source in arrivals:
            for pre in np.flatnonzero(source.any(axis=0)):
                i = np.clip(i + source[:, pre, None] * (self.weights[c][:, pre] << self.shifts[c]), LOW, HIGH)
        i = i - _leak(i, n.dash_syn)
        v = state[f"{name}.v"]
        change = np.clip(np.clip(i - _leak(v, n.dash_mem), LOW, HIGH) + n.bias, LOW, HIGH)
        v = np.clip(v + change, LOW, HIGH)
        most = 1 if name == self.net.neurons[-1].name else HIDDEN_SPIKES
        count = np.where(v >= n.threshold, np.minimum(v // n.threshold, most), 0)
        state[f"{name}.i"], state[f"{name}.v"] = i, v - count * n.threshold
        return np.asarray(count)

    def membrane(self, name: str, state: dict[str, Any]) -> NDArray[np.float64]:
        """After the reset."""
        return np.asarray(state[f"{name}.v"] / self.scales[name])

    def on_chip(self, x: ArrayLike) -> Run:
        """`run` with the chip's own times: what neurons send arrives a step later, so that layers lag."""
        return replace(self, net=_all_late(self.net)).run(np.minimum(np.asarray(x), INPUT_SPIKES))


def _all_late(net: Network) -> Network:
    inner = {p.name for p in net.neurons}
    return replace(net, projections=tuple(replace(c, recurrent=c.recurrent or c.pre in inner) for c in net.projections))


def _leak(x: Ints, dash: Ints) -> Ints:
    step = x >> dash
    return np.where((step == 0) & (x > 0), 1, step)


def to_xylo(net: Network) -> XyloNetwork:
    """The nearest network that Xylo can store.

    A synapse with decay alpha is ``alpha`` times as strong there as here, which the weights make up for. A bias goes
    past the synapse there: it is written as what the synapse makes of it after a while.

    Raises:
        UnsupportedError: a layer without synapses, another reset than by subtraction, or connections that skip a layer.
    """
    skipping = next((c for c in net.projections if net.delay(c) > 1), None)
    if skipping is not None:
        raise UnsupportedError(
            f"weight '{skipping.name}' skips a layer, but on Xylo every connection takes one step: put neurons between"
        )
    for p in net.neurons:
        _refuse(p)
    groups = {c.name: _group(net, c) for c in net.projections}
    wanted = {p.name: _scale(p, net.into(p.name)) for p in net.neurons}
    shift: dict[str, int] = {}
    for c in net.projections:
        if c.nnz:
            fits = max(wanted[c.post] * _top(net, c) / LARGEST, 1.0)
            shift[groups[c.name]] = min(shift.get(groups[c.name], SHIFTS), int(np.floor(np.log2(fits))))
    shift = {g: shift.get(g, 0) for g in set(groups.values())}
    scales: dict[str, float] = {}
    for p in net.neurons:
        limits = [LARGEST * 2.0 ** shift[groups[c.name]] / t for c in net.into(p.name) if (t := _top(net, c)) > 0]
        scales[p.name] = min([wanted[p.name], *limits])
    weights: dict[str, Ints] = {}
    projections: list[Projection] = []
    for c in net.projections:
        alpha = net.population(c.post).vectors["alpha"][:, None]
        step = 2.0 ** shift[groups[c.name]] / scales[c.post]
        stored = np.rint(c.weight / alpha / step).clip(-128, LARGEST)
        weights[c.name] = stored.astype(np.int64)
        projections.append(replace(c, weight=stored * step * _grid(alpha)))
    neurons = {p.name: _neurons(p, scales[p.name]) for p in net.neurons}
    populations = tuple(
        p if p.kind in SOURCES else _stored(p, neurons[p.name], scales[p.name]) for p in net.populations
    )
    stored_net = replace(net, populations=populations, projections=tuple(projections))
    return XyloNetwork(stored_net, weights, scales, neurons, {n: shift[g] for n, g in groups.items()})


def _group(net: Network, c: Projection) -> str:
    if c.post == net.neurons[-1].name:
        return "out"
    return "in" if net.population(c.pre).kind in SOURCES else "rec"


def _top(net: Network, c: Projection) -> float:
    """Largest magnitude of a weight as it is stored, in the units of the original."""
    return float((np.abs(c.weight) / net.population(c.post).vectors["alpha"][:, None]).max(initial=0.0))


def _refuse(p: Population) -> None:
    if p.kind != "synaptic":
        raise UnsupportedError(
            f"layer '{p.name}' is a {p.kind}: every neuron of Xylo has a synapse with a decay; train with "
            "snntorch.Synaptic or RSynaptic and an alpha from 0.5"
        )
    if p.options.reset is not Reset.SUBTRACT:
        raise UnsupportedError(
            f"layer '{p.name}' resets by {p.options.reset.value}: Xylo subtracts the threshold, train with "
            "reset_mechanism='subtract' and reset_delay=False"
        )
    if np.any(p.vectors["threshold"] <= 0):
        raise UnsupportedError(f"layer '{p.name}' has thresholds that are not above 0, which Xylo cannot hold")


def _scale(p: Population, incoming: tuple[Projection, ...]) -> float:
    """State per unit of the original: `ROOM` thresholds, and all that can come in at once, have 16 bits."""
    most = ROOM * float(p.vectors["threshold"].max())
    for c in incoming:
        most = max(most, float((np.abs(c.weight).sum(axis=1) / p.vectors["alpha"]).max(initial=0.0)))
    return HIGH / most


def _dash(decay: NDArray[np.float64]) -> Ints:
    """The shift whose 1 - 2^-k is nearest to a decay; from 1, as 0 would clear the state before it acts."""
    grid = 1 - 2.0 ** -np.arange(1, SHIFTS + 1)
    return np.asarray(np.argmin(np.abs(decay[:, None] - grid), axis=1) + 1)


def _grid(decay: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 - 2.0 ** -_dash(decay.reshape(-1)).reshape(decay.shape))


def _neurons(p: Population, scale: float) -> XyloNeurons:
    threshold = np.rint(p.vectors["threshold"] * scale).clip(1, HIGH).astype(np.int64)
    bias = np.rint(p.bias / (1 - _grid(p.vectors["alpha"])) * scale).clip(LOW, HIGH).astype(np.int64)
    return XyloNeurons(threshold, _dash(p.vectors["alpha"]), _dash(p.vectors["beta"]), bias)


def _stored(p: Population, n: XyloNeurons, scale: float) -> Population:
    vectors: dict[str, NDArray[np.float64]] = {
        "alpha": np.asarray(1 - 2.0**-n.dash_syn),
        "beta": np.asarray(1 - 2.0**-n.dash_mem),
        "threshold": np.asarray(n.threshold / scale),
    }
    return replace(
        p, vectors=vectors, bias=n.bias / scale * (1 - vectors["alpha"]), options=Options(Reset.SUBTRACT, delay=False)
    )
