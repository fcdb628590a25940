"""What a host does with the spikes of a chip: the part of a graph behind its last neurons, and the class it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc.errors import UsageError
from sparsecirc.ir import Graph, Input, Node, Recurrent, interpret

Array = NDArray[Any]


def answers(graph: Graph, run: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of a graph from what its neurons did, with the layers behind them in float64.

    Args:
        graph: time first; every output comes from neurons.
        run: ``"NAME.spk"``, ``"NAME.mem"`` and so on, each (T, B, units).

    Raises:
        UsageError: ``run`` lacks a value that an output needs.
    """
    owner = {f"{n.name}.{p}" if p else n.name: n for n in graph.nodes for p in (*n.ports(), "")}
    kept: list[Node] = []
    inputs: dict[str, Array] = {}
    names: dict[str, str] = {}

    def take(value: str) -> str:
        """The name of a value in the host's graph."""
        node = owner[value]
        if isinstance(node, Recurrent | Input):
            full = f"{node.name}.{node.ports()[0]}" if value == node.name and isinstance(node, Recurrent) else value
            if full not in names:
                if full not in run:
                    raise UsageError(f"the run holds no '{full}', which the outputs need: it has {', '.join(run)}")
                names[full] = full.replace(".", "_")
                shape = graph.specs[full].shape
                kept.append(Input(names[full], shape=shape, time=True))
                inputs[names[full]] = np.asarray(run[full], np.float64).reshape(*run[full].shape[:2], *shape)
            return names[full]
        if node.name not in names:
            reads = tuple(take(i) for i in node.inputs)
            names[node.name] = node.name
            kept.append(replace(node, inputs=reads))
        return value

    outputs = {name: take(value) for name, value in graph.outputs.items()}
    return dict(interpret(Graph(tuple(kept), outputs), inputs).outputs)


def classes(outputs: Mapping[str, ArrayLike], time: bool = True) -> Array:
    """The class of each sample: where the first output, summed over the steps, is largest; (B,)."""
    first = np.asarray(next(iter(outputs.values())))
    total = first.sum(axis=0) if time and first.ndim > 2 else first
    return np.asarray(total.reshape(len(total), -1).argmax(axis=1))
