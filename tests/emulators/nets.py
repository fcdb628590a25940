"""Small spiking networks and inputs for other simulators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sparsecirc._pattern import Pattern
from sparsecirc.cells import LI, LIF, Cell, Options
from sparsecirc.ir import Graph, Linear, Recurrent
from sparsecirc.testing import recurrent_graph

INPUTS, UNITS, CLASSES = 8, 17, 4


def net(cell: Cell, options: Options, seed: int, *, readout: bool = False, **more: Any) -> Graph:
    """8 inputs, 17 recurrent units of ``cell`` at 40 %, 4 units that fire (or integrate) behind a sparse matrix."""
    base = recurrent_graph(cell, INPUTS, UNITS, 0.4, options=options, seed=seed, **more)
    rng = np.random.default_rng([seed, 1])
    weight = rng.standard_normal((CLASSES, UNITS)).astype(np.float32)
    live = Pattern.from_mask(rng.random(weight.shape) < 0.6)
    fc = Linear("fc", ("rnn",), {"weight": weight, "bias": np.full(CLASSES, 0.1, np.float32)}, {"weight": live})
    params = {"beta": np.full(CLASSES, 0.9, np.float32), "threshold": np.full(CLASSES, 0.6, np.float32)}
    params = {k: v for k, v in params.items() if k in (LI if readout else LIF).vectors}
    out = Recurrent("out", ("fc",), params, cell=LI if readout else LIF, units=CLASSES, options=options)
    return replace(base, nodes=(*base.nodes, fc, out), outputs={"y": "out"})


def side_by_side(parts: Sequence[Graph]) -> Graph:
    """Networks on one input ``x``, their nodes named ``"<k>.<name>"``."""
    nodes: list[Any] = [parts[0].inputs[0]]
    for k, part in enumerate(parts):
        rename = {value: f"{k}.{value}" for value in part.specs if value != "x"}
        nodes += [
            replace(n, name=rename[n.name], inputs=tuple(rename.get(i, i) for i in n.inputs))
            for n in part.nodes
            if n.name != "x"
        ]
    return replace(parts[0], nodes=tuple(nodes), outputs={f"y{k}": f"{k}.out" for k in range(len(parts))})


def spikes(steps: int, seed: int, rate: float = 0.5) -> np.ndarray[Any, Any]:
    """(T, 1, 8) of 0 and 1."""
    return (np.random.default_rng(seed).random((steps, 1, INPUTS)) < rate).astype(np.float64)


def currents(steps: int, seed: int) -> np.ndarray[Any, Any]:
    """(T, 1, 8) of real numbers."""
    return 1.5 * np.random.default_rng(seed).standard_normal((steps, 1, INPUTS))


def with_vectors(graph: Graph, cell: Cell, seed: int, **vectors: Any) -> Graph:
    """Every layer a ``cell`` of these decays and thresholds; a callable draws one per unit."""
    rng = np.random.default_rng(seed)
    nodes: list[Any] = []
    for node in graph.nodes:
        if isinstance(node, Recurrent):
            params = {k: v for k, v in node.params.items() if k not in node.cell.vectors}
            for name in cell.vectors:
                value = vectors[name]
                drawn = value(rng, node.units) if callable(value) else np.full(node.units, value)
                params[name] = np.asarray(drawn, np.float32)
            node = replace(node, params=params, cell=cell)
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))
