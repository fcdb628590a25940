"""Networks in the integers of Loihi: 8-bit weights with an exponent, 12-bit decays, 24-bit states.

In a step, with q(x, m) = sign(x) floor(|x| m / 4096)::

    u = q(u, 4095 - du) + 64 sum(2^exp w z)      wrapped to 24 bits
    v = q(v, 4096 - dv) + u + bias               clipped to 23 bits and a sign
    z = v > 64 vth;   v = 0 where z

as in Lava's bit-accurate model (lava-nc 0.10.0, proc/lif/models.py). Weights of both signs are even.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.cells import Reset
from sparsecirc.errors import UnsupportedError
from sparsecirc.hardware._integer import IntegerNetwork, Ints
from sparsecirc.hardware._network import SOURCES, Network, Population, Projection, one_threshold, with_ones

LARGEST = 254
STATE = 2**23
INPUT_STATE = 2**21
"""What one step may add to a current: nengo-loihi's emulator has 21 bits and a sign for it (``Q_BITS``)."""
ALIGN = 64
VTH = 2**17 - 1
MANTISSA, EXPONENT = 2**12 - 1, 7


@dataclass(frozen=True)
class LoihiNeurons:
    """Stored numbers of one population.

    Attributes:
        vth: threshold, in weights; `VTH` for neurons that never fire.
        du, dv: decays of current and membrane, one per unit.
        bias_mant, bias_exp: the bias, in 64ths of a weight, is ``bias_mant << bias_exp``.
    """

    vth: Ints
    du: Ints
    dv: Ints
    bias_mant: Ints
    bias_exp: Ints

    @property
    def bias(self) -> Ints:
        """What is added to the membrane in every step."""
        return self.bias_mant * 2**self.bias_exp


@dataclass(frozen=True)
class LoihiNetwork(IntegerNetwork):
    """A network in Loihi's integers.

    Attributes:
        neurons: stored numbers by population.
        exponents: by projection.
    """

    neurons: Mapping[str, LoihiNeurons]
    exponents: Mapping[str, int]

    def start(self, batch: int) -> dict[str, Any]:
        """All states at zero."""
        return {f"{p.name}.{s}": np.zeros((batch, p.units), np.int64) for p in self.net.neurons for s in ("u", "v")}

    def advance(self, name: str, arrivals: Sequence[tuple[str, Ints]], state: dict[str, Any]) -> Ints:
        """One step; see the module."""
        n = self.neurons[name]
        drive = np.zeros_like(state[f"{name}.u"])
        for c, source in arrivals:
            drive += (source @ self.weights[c].T) << self.exponents[c]
        u = _scaled(state[f"{name}.u"], 4095 - n.du) + drive * ALIGN
        u = np.where(u > STATE, u - 2 * STATE, u)
        u = np.where(u <= -STATE, u + 2 * STATE, u)
        v = np.clip(_scaled(state[f"{name}.v"], 4096 - n.dv) + u + n.bias, 1 - STATE, STATE - 1)
        fires = self.net.population(name).spiking
        z = (v > n.vth * ALIGN) & fires
        state[f"{name}.u"], state[f"{name}.v"] = u, np.where(z, 0, v)
        return np.asarray(z, dtype=np.int64)

    def membrane(self, name: str, state: dict[str, Any]) -> NDArray[np.float64]:
        """After the reset."""
        return np.asarray(state[f"{name}.v"] / (ALIGN * self.scales[name]))


def _scaled(x: Ints, factor: Ints) -> Ints:
    return np.asarray(np.sign(x) * ((np.abs(x) * factor) >> 12))


def to_loihi(net: Network) -> LoihiNetwork:
    """The nearest network that Loihi can store.

    Every population has one scale, for its threshold, its bias and all that leads to it; every projection has an
    exponent of its own, so that each uses its 8 bits.

    Raises:
        UnsupportedError: a cell or a reset that Loihi does not have.
    """
    neurons: dict[str, LoihiNeurons] = {}
    weights: dict[str, Ints] = {}
    exponents: dict[str, int] = {}
    scales: dict[str, float] = {}
    populations: list[Population] = []
    projections: list[Projection] = []
    net = one_threshold(with_ones(net))
    for p in net.populations:
        if p.kind in SOURCES:
            populations.append(p)
            continue
        _refuse(p)
        incoming = net.into(p.name)
        scale = scales[p.name] = _scale(p, incoming)
        for c in incoming:
            top = float(np.abs(c.weight).max(initial=0.0)) * scale
            e = exponents[c.name] = max(0, int(np.ceil(np.log2(max(top / LARGEST, 1e-30)) - 1e-12)))
            w = weights[c.name] = (2 * np.rint(c.weight * (scale / 2**e) / 2)).clip(-LARGEST, LARGEST).astype(np.int64)
            projections.append(replace(c, weight=w * 2.0**e / scale))
        n = neurons[p.name] = _neurons(p, scale)
        vectors = dict(p.vectors) | {"beta": 1 - n.dv / 4096}
        if "threshold" in vectors:
            vectors["threshold"] = n.vth / scale
        if "alpha" in vectors:
            vectors["alpha"] = (4095 - n.du) / 4096
        populations.append(replace(p, vectors=vectors, bias=n.bias / (ALIGN * scale)))
    stored = replace(net, populations=tuple(populations), projections=tuple(projections))
    return LoihiNetwork(stored, weights, scales, neurons, exponents)


def stock_neurons(net: Network) -> None:
    """Refuse layers that Lava's LIF process cannot be: it is set to zero by a spike and has one number for all units.

    Raises:
        UnsupportedError: names the layer and the cure.
    """
    for p in net.neurons:
        _refuse(p)
        for name in ("alpha", "beta"):
            value = p.vectors.get(name, np.zeros(1))
            if np.any(value != value[0]):
                raise UnsupportedError(
                    f"layer '{p.name}' has a {name} per unit, Lava's LIF one for all: train with one"
                )


def _refuse(p: Population) -> None:
    if p.kind == "alif":
        raise UnsupportedError(f"layer '{p.name}' has thresholds that adapt, which Loihi's stock neurons do not")
    reset, delay = p.options.reset, p.options.delay
    alike = reset is Reset.ZERO or (reset is Reset.ZERO_UPDATE and not delay)
    if p.spiking and not alike:
        raise UnsupportedError(
            f"layer '{p.name}' resets by {reset.value}{', delayed' if delay else ''}: Loihi sets a membrane to zero "
            "when it fires; train with reset_mechanism='zero', reset_delay=False"
        )
    if np.any(p.vectors["beta"] < 0) or np.any(p.vectors["beta"] > 1):
        raise UnsupportedError(f"layer '{p.name}' has decays outside 0 to 1, which Loihi cannot hold")


def _scale(p: Population, incoming: tuple[Projection, ...]) -> float:
    """Stored weight per unit: the smallest projection fills its 8 bits, within threshold and state."""
    tops = [t for c in incoming if (t := float(np.abs(c.weight).max(initial=0.0))) > 0]
    best = LARGEST / min(tops) if tops else 1.0
    if p.spiking:
        best = min(best, VTH / max(float(np.abs(p.vectors["threshold"]).max(initial=0.0)), 1e-30))
    bias = float(np.abs(p.bias).max(initial=0.0))
    if bias > 0:
        best = min(best, (MANTISSA << EXPONENT) / (ALIGN * bias))
    most = max((float(np.abs(c.weight).sum(axis=1).max(initial=0.0)) for c in incoming), default=0.0)
    longest = float(np.max(1 / np.maximum(1 - p.vectors["alpha"], 1e-3))) if "alpha" in p.vectors else 1.0
    if most > 0:  # even if every input fires, no current may wrap around
        best = min(best, min(INPUT_STATE, STATE / longest) / (ALIGN * most * 1.05))
    return best


def _neurons(p: Population, scale: float) -> LoihiNeurons:
    vth = np.rint(p.vectors["threshold"] * scale) if p.spiking else np.full(p.units, VTH)
    alpha = p.vectors.get("alpha", np.zeros(p.units))
    bias = np.rint(p.bias * scale * ALIGN)
    exp = np.maximum(0, np.ceil(np.log2(np.maximum(np.abs(bias) / MANTISSA, 1e-30)))).clip(0, EXPONENT)
    mant = np.rint(bias / 2**exp).clip(-MANTISSA, MANTISSA)
    return LoihiNeurons(
        vth.astype(np.int64),
        np.rint((1 - alpha) * 4096 - 1).clip(0, 4095).astype(np.int64),
        np.rint((1 - p.vectors["beta"]) * 4096).clip(0, 4095).astype(np.int64),
        mant.astype(np.int64),
        exp.astype(np.int64),
    )
