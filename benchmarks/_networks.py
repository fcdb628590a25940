"""The networks that are measured: seeded weights, the same on every machine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc import Graph, Pattern, interpret
from sparsecirc.cells import GRU, LIF, LSTM, RNN_TANH, Cell, Options
from sparsecirc.data import wavernn_768
from sparsecirc.ir import Input, Recurrent
from sparsecirc.patterns import PatternMaker, unstructured

CELLS = {"gru": GRU, "lstm": LSTM, "rnn": RNN_TANH}
FEATURES = 64
RATE = 0.05
"""Share of spiking neurons and of spiking inputs per step."""
Array = NDArray[Any]


def random_pattern(rng: np.random.Generator, shape: tuple[int, int], density: float, maker: PatternMaker) -> Pattern:
    """A pattern of random scores: scattered, or in the tiles of the maker."""
    return maker(rng.random(shape), 1 - density)


def gated(cell: Cell, n: int, density: float, maker: PatternMaker = unstructured, seed: int = 0) -> Graph:
    """One layer of ``n`` units on 64 features: dense input weights, pruned recurrent weights of gain 0.7 a gate."""
    rng = np.random.default_rng(seed)
    rows = cell.n_gates * n
    pattern = random_pattern(rng, (rows, n), density, maker)
    scale = 0.7 / np.sqrt(density * n)
    params = {
        "ih": _normal(rng, (rows, FEATURES), 0.5 / np.sqrt(FEATURES)),
        "hh": pattern.apply(_normal(rng, (rows, n), scale)),
        "bias_ih": _normal(rng, (rows,), 0.1),
        "bias_hh": _normal(rng, (rows,), 0.1),
    }
    layer = Recurrent("rnn", ("x",), params, {"hh": pattern}, cell=cell, units=n)
    return Graph((Input("x", shape=(FEATURES,)), layer), {"y": "rnn"})


def gated_input(steps: int, batch: int, features: int = FEATURES, seed: int = 1) -> Array:
    """Normal input (T, B, features)."""
    return np.random.default_rng(seed).standard_normal((steps, batch, features), dtype=np.float32)


def spiking(n: int, density: float, steps: int, batch: int, seed: int = 0, rate: float = RATE) -> tuple[Graph, Array]:
    """A recurrent LIF layer whose input (n spikes) and recurrence are pruned alike, and its input.

    ``rate`` of the inputs spike per step, and the bias is raised until as many of the neurons do. A spike takes the
    threshold off its membrane at once; the inputs are weak enough that none is above its threshold after that, where
    simulators disagree.
    """
    rng = np.random.default_rng(seed)
    beta, patterns = 0.9, {role: random_pattern(rng, (n, n), density, unstructured) for role in ("ih", "hh")}
    spread = 0.1 / np.sqrt(density * n * rate)
    params = {role: p.apply(_normal(rng, (n, n), spread)) for role, p in patterns.items()}
    params |= {"beta": np.full(n, beta, np.float32), "threshold": np.ones(n, np.float32)}
    x = (rng.random((steps, batch, n)) < rate).astype(np.float32)

    def graph(level: float) -> Graph:
        bias = {"bias_ih": np.full(n, level * (1 - beta), np.float32)}
        layer = Recurrent("lif", ("x",), params | bias, patterns, cell=LIF, units=n, options=Options(delay=False))
        return Graph((Input("x", shape=(n,), spiking=True), layer), {"y": "lif.spk"}, dt=1e-3)

    low, high = -4.0, 12.0
    for _ in range(12):  # bisection: the rate grows with the level at which a membrane would settle
        middle = (low + high) / 2
        fired = float(interpret(graph(middle), x[:, :1], dtype=np.float32).y.mean())
        low, high = (middle, high) if fired < rate else (low, middle)
    return graph((low + high) / 2), x


def grown(n: int, fan_in: int, seed: int = 0) -> Graph:
    """A tanh layer on `FEATURES` features whose units have ``fan_in`` live recurrent connections each."""
    rng = np.random.default_rng(seed)
    cols = np.stack([rng.choice(n, fan_in, replace=False) for _ in range(n)])
    hh = np.zeros((n, n), np.float32)
    np.put_along_axis(hh, cols, _normal(rng, (n, fan_in), 0.7 / np.sqrt(fan_in)), axis=1)
    params = {"ih": _normal(rng, (n, FEATURES), 0.5 / np.sqrt(FEATURES)), "hh": hh}
    layer = Recurrent("rnn", ("x",), params, {"hh": Pattern.from_mask(hh != 0)}, cell=RNN_TANH, units=n)
    return Graph((Input("x", shape=(FEATURES,)), layer), {"y": "rnn"})


def wavernn(steps: int) -> tuple[Graph, Array]:
    """The trained, 95 % sparse GRU of a WaveRNN with its own input weights, and samples for it.

    Raises:
        UsageError, FileFormatError: the weights cannot be had; see `sparsecirc.data.wavernn_768`.
    """
    weights = wavernn_768()
    pattern = Pattern.from_mask(weights["wavernn_gru_mask"], "google/lyra")
    params = {
        "ih": weights["QRhat_weights"],
        "hh": weights["wavernn_gru_weights"],
        "bias_hh": weights["wavernn_gru_bias"],
    }
    layer = Recurrent("rnn", ("x",), params, {"hh": pattern}, cell=GRU, units=1024)
    x = np.random.default_rng(0).uniform(-1, 1, (steps, 1, 2)).astype(np.float32)
    return Graph((Input("x", shape=(2,)), layer), {"y": "rnn"}), x


def _normal(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> Array:
    return (scale * rng.standard_normal(shape)).astype(np.float32)
