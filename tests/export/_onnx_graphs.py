"""Small graphs built by hand, for the ONNX tests."""

from __future__ import annotations

import numpy as np

from sparsecirc import _pattern
from sparsecirc.cells import CELLS, Options
from sparsecirc.ir import Concat, Graph, Input, Linear, Recurrent, TimeReduce


def vectors(rng, cell, shape):
    ranges = {"alpha": (0.6, 0.95), "beta": (0.7, 0.95), "threshold": (0.5, 1.2), "rho": (0.8, 0.95)}
    ranges["strength"] = (0.1, 0.4)
    return {v: rng.uniform(*ranges[v], shape) for v in cell.vectors}


def layer(
    rng, name, source, cell, width, units, *, bias=True, proj=0, recur="hh", reverse=False, options=None, ih=True
):
    """One recurrent layer with random weights of a size that keeps the states moving."""
    rows, fed = cell.n_gates * units, proj or units
    scale = (0.5 if cell.name == "rnn_relu" else 1.0) / np.sqrt(fed)  # relu has nothing else to keep it bounded
    params = {}
    if ih:
        params["ih"] = rng.normal(0, 1.5 / np.sqrt(width), (rows, width))
        if bias:
            params["bias_ih"] = rng.normal(0, 0.3, rows)
    if recur == "hh":
        params["hh"] = rng.normal(0, scale, (rows, fed))
    elif recur == "hh_diag":
        params["hh_diag"] = rng.normal(0, 0.5, rows)
    if bias and recur:
        params["bias_hh"] = rng.normal(0, 0.3, rows)
    if proj:
        params["hr"] = rng.normal(0, 1.0 / np.sqrt(units), (proj, units))
    params.update(vectors(rng, cell, units))
    return Recurrent(
        name, (source,), params, cell=cell, units=units, reverse=reverse, options=options or Options()
    )  # fmt: skip


def network(
    rng,
    cell="gru",
    *,
    width=5,
    units=17,
    layers=1,
    bidirectional=False,
    batch_first=False,
    density=1.0,
    **layer_options,
):
    """Layers, a linear read-out of every step, and the last step of the last layer; outputs ``y`` and ``h_n``."""
    nodes, source, size = [Input("x", shape=(width,))], "x", width
    fed = layer_options.get("proj") or units
    for k in range(layers):
        ends = [("", False), ("_reverse", True)] if bidirectional else [("", False)]
        made = [
            layer(rng, f"rnn.l{k}{s}", source, CELLS[cell], size, units, reverse=r, **layer_options) for s, r in ends
        ]
        nodes += made
        source, size = made[0].name, fed
        if bidirectional:
            nodes.append(Concat(f"both.l{k}", (made[0].name, made[1].name)))
            source, size = f"both.l{k}", 2 * fed
    nodes.append(Linear("fc", (source,), {"weight": rng.normal(0, 0.5, (3, size)), "bias": rng.normal(0, 0.5, 3)}))
    nodes.append(TimeReduce("last", (source,), how="last", feature_shape=(size,)))
    outputs = {"y": "fc", "seq": source, "h_n": "last"}
    graph = Graph(tuple(nodes), outputs, batch_first=batch_first, dt=1e-3 if CELLS[cell].spiking else None)
    return prune(graph, rng, density) if density < 1 else graph


def prune(graph, rng, density):
    """A random pattern on every weight matrix."""
    return graph.with_patterns(
        {v.name: _pattern.Pattern.from_mask(rng.random(v.value.shape) < density) for v in graph.weights()}
    )


def sequence(rng, steps, batch, *features, batch_first=False, scale=1.0):
    x = rng.normal(0, scale, (steps, batch, *features)).astype(np.float32)
    return np.swapaxes(x, 0, 1) if batch_first else x
