"""Types and networks shared by the tests of the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsecirc.cells import GRU, LIF
from sparsecirc.ir import Graph, Input, Linear, Recurrent, TimeReduce


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def line(self) -> str:
        """The one line of an error; fails where there are more."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        return lines[0]


Cli = Callable[..., Ran]


def gru_graph(units: int = 16, inputs: int = 8, classes: int = 4) -> Graph:
    rng = np.random.default_rng(3)

    def array(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    rnn = Recurrent(
        "rnn.l0",
        ("x",),
        {"ih": array(3 * units, inputs), "hh": array(3 * units, units), "bias_ih": array(3 * units)},
        cell=GRU,
        units=units,
    )
    last = TimeReduce("last", ("rnn.l0",), feature_shape=(units,))
    head = Linear("fc", ("last",), {"weight": array(classes, units), "bias": array(classes)})
    return Graph((Input("x", shape=(inputs,)), rnn, last, head), {"y": "fc"}, batch_first=True)


def lif_graph(units: int = 12, inputs: int = 6) -> Graph:
    rng = np.random.default_rng(4)

    def array(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.7).astype(np.float32)

    first = Linear("fc1", ("x",), {"weight": array(units, inputs)})
    vectors = {"beta": np.full(units, 0.9, np.float32), "threshold": np.ones(units, np.float32)}
    lif = Recurrent("lif1", ("fc1",), {"hh": array(units, units), **vectors}, cell=LIF, units=units)
    second = Linear("fc2", ("lif1",), {"weight": array(3, units)})
    return Graph((Input("x", shape=(inputs,)), first, lif, second), {"spk": "lif1", "y": "fc2"}, dt=1e-3)
