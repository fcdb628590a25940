"""Which cell a step computes: guessed from its activations, proved on random numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from sparsecirc.frontends._onnx._expressions import Act, Expression, Leaf, Product, Sum, activations, evaluate, sigmoid
from sparsecirc.frontends._onnx._values import Array

SAME = 1e-9
"""Largest difference in float64 between a step and the cell that it is taken for."""


@dataclass(frozen=True)
class Found:
    """A cell in the terms of ONNX's operators.

    Attributes:
        kind: RNN, GRU or LSTM.
        weights: "ih" (gates units, in), "hh" (gates units, units), "bias_ih" and "bias_hh", gates in ONNX's order.
        activation: of an RNN.
        reset_first: of a GRU: r multiplies the state before its product.
        ports: "h" or "c" for each of the states, in the order of the loop.
    """

    kind: str
    weights: Mapping[str, Array]
    activation: str = ""
    reset_first: bool = False
    ports: tuple[str, ...] = ("h",)

    def step(self, x: Array, states: Mapping[str, Array]) -> dict[str, Array]:
        """The states after a step, in float64."""
        w = {role: np.asarray(v, np.float64) for role, v in self.weights.items()}
        h, n = states["h"], states["h"].shape[1]
        drive = x @ w["ih"].T + w["bias_ih"]
        rec = h @ w["hh"].T + w["bias_hh"]
        if self.kind == "RNN":
            both = drive + rec
            return {"h": np.tanh(both) if self.activation == "Tanh" else np.maximum(both, 0)}
        if self.kind == "GRU":
            z, r = sigmoid(drive[:, :n] + rec[:, :n]), sigmoid(drive[:, n : 2 * n] + rec[:, n : 2 * n])
            last = (r * h) @ w["hh"][2 * n :].T + w["bias_hh"][2 * n :] if self.reset_first else r * rec[:, 2 * n :]
            return {"h": z * h + (1 - z) * np.tanh(drive[:, 2 * n :] + last)}
        i, o, f, g = np.split(drive + rec, 4, axis=1)
        c = sigmoid(f) * states["c"] + sigmoid(i) * np.tanh(g)
        return {"h": sigmoid(o) * np.tanh(c), "c": c}


@dataclass(frozen=True)
class _Gate:
    """A sum of products with the input and the state, and its constant."""

    ih: Array
    hh: Array
    bias: Array

    def negative(self) -> _Gate:
        return _Gate(-self.ih, -self.hh, -self.bias)


def recognise(x: Leaf, states: Sequence[Leaf], after: Sequence[Expression], seed: int = 0) -> Found | None:
    """The cell whose states after a step are ``after``, or ``None``.

    Args:
        x: input of the step.
        states: before it; one (RNN, GRU) or two (LSTM) of one size.
        after: after it, in the same order.
        seed: of the numbers that the guess is proved on.
    """
    if len({s.size for s in states}) != 1 or any(e.size != states[0].size for e in after):
        return None
    rng = np.random.default_rng(seed)
    at = {leaf.name: rng.standard_normal((5, leaf.size)) for leaf in (x, *states)}
    truth = [evaluate(e, at) for e in after]
    for found in _candidates(x, states, after):
        got = found.step(at[x.name], {p: at[s.name] for p, s in zip(found.ports, states, strict=True)})
        if all(np.allclose(got[p], t, rtol=SAME, atol=SAME) for p, t in zip(found.ports, truth, strict=True)):
            return found
    return None


def _candidates(x: Leaf, states: Sequence[Leaf], after: Sequence[Expression]) -> Iterator[Found]:
    inside = list({id(a): a for e in after for a in activations(e)}.values())
    if len(states) == 1:
        h = states[0]
        if isinstance(after[0], Act) and after[0].kind in ("Tanh", "Relu"):
            gate = _gate(after[0].of, x, h)
            if gate is not None:
                yield Found("RNN", _stacked([gate]), after[0].kind)
        yield from _grus(x, h, inside)
    elif len(states) == 2:
        for h, ports in ((states[0], ("h", "c")), (states[1], ("c", "h"))):
            yield from _lstms(x, h, inside, ports)


def _gate(e: Expression, x: Leaf, h: Leaf) -> _Gate | None:
    """A sum over the input and one state alone."""
    terms = e.terms if isinstance(e, Sum) else {e: None}
    if not set(terms) <= {x, h}:
        return None
    return _Gate(
        _matrix(terms, x, e.size), _matrix(terms, h, e.size), e.bias if isinstance(e, Sum) else np.zeros(e.size)
    )


def _matrix(terms: Mapping[Leaf | Act | Product, Array | None], leaf: Leaf, size: int) -> Array:
    if leaf not in terms:
        return np.zeros((size, leaf.size))
    found = terms[leaf]
    return np.eye(size) if found is None else found


def _stacked(gates: Sequence[_Gate], bias_hh: Array | None = None) -> dict[str, Array]:
    bias = np.concatenate([g.bias for g in gates])
    return {
        "ih": np.concatenate([g.ih for g in gates]), "hh": np.concatenate([g.hh for g in gates]),
        "bias_ih": bias, "bias_hh": np.zeros_like(bias) if bias_hh is None else bias_hh,
    }  # fmt: skip


def _distinct(inside: Sequence[Act], kind: str, x: Leaf, h: Leaf) -> list[_Gate]:
    """Gates of one activation; equal ones once."""
    gates: list[_Gate] = []
    for act in inside:
        gate = _gate(act.of, x, h) if act.kind == kind and act.size == h.size else None
        if gate is not None and not any(
            np.array_equal(gate.ih, g.ih) and np.array_equal(gate.hh, g.hh) and np.array_equal(gate.bias, g.bias)
            for g in gates
        ):
            gates.append(gate)
    return gates


def _grus(x: Leaf, h: Leaf, inside: Sequence[Act]) -> Iterator[Found]:
    for act in inside:
        if act.kind != "Tanh" or not isinstance(act.of, Sum) or act.size != h.size:
            continue
        resets = [t for t in act.of.terms if isinstance(t, Product)]
        if len(resets) != 1 or not set(act.of.terms) <= {x, resets[0]}:
            continue
        ih, matrix = _matrix(act.of.terms, x, h.size), act.of.terms[resets[0]]
        for r, rest in ((resets[0].a, resets[0].b), (resets[0].b, resets[0].a)):
            reset = _gate(r.of, x, h) if isinstance(r, Act) and r.kind == "Sigmoid" else None
            inner = _gate(rest, x, h)
            if reset is None or inner is None or np.any(inner.ih):
                continue
            first = rest is h
            hh = (np.eye(h.size) if matrix is None else matrix) if first else inner.hh
            if not first and matrix is not None:
                continue
            tail = np.zeros(h.size) if first else inner.bias
            bias_hh = np.concatenate([np.zeros(2 * h.size), tail])
            candidate = _Gate(ih, hh, act.of.bias)
            for z in _distinct(inside, "Sigmoid", x, h):
                for update in (z, z.negative()):
                    yield Found("GRU", _stacked([update, reset, candidate], bias_hh), reset_first=first)


def _lstms(x: Leaf, h: Leaf, inside: Sequence[Act], ports: tuple[str, ...]) -> Iterator[Found]:
    gates, inputs = _distinct(inside, "Sigmoid", x, h), _distinct(inside, "Tanh", x, h)
    if len(gates) > 4:
        return
    for g in inputs:
        for i, o, f in product(gates, repeat=3):
            yield Found("LSTM", _stacked([i, o, f, g]), ports=ports)
