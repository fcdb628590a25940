"""Units leave a network for good: rows, columns, biases and whatever else belongs to them, through the whole graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc._pattern import Pattern
from sparsecirc._prune import MIXING, driven_layer
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.ir import (
    Add,
    Affine,
    Concat,
    Elementwise,
    Flatten,
    Graph,
    Linear,
    Node,
    Recurrent,
    Repeat,
    TimeReduce,
)

Flags = NDArray[np.bool_]


def layers(graph: Graph) -> dict[str, int]:
    """Layers whose units can be removed, with their number of units.

    Recurrent and spiking layers and linear layers by the name of their node; the projection of an LSTM as
    ``"<node>.hr"``. The units of a linear layer that only drives a spiking layer are that layer's.
    """
    found: dict[str, int] = {}
    for node in graph.nodes:
        if isinstance(node, Recurrent) and len(node.feature_shape) <= 1:
            found[node.name] = node.units
            if "hr" in node.params:
                found[f"{node.name}.hr"] = node.width
        elif isinstance(node, Linear) and driven_layer(graph, node) == node.name:
            found[node.name] = node.params["weight"].shape[0]
    return found


def remove_units(graph: Graph, keep: Mapping[str, ArrayLike]) -> Graph:
    """The graph without some units of some layers.

    Rows of each gate, biases, recurrent columns and per-unit vectors of the layer go, and so do the columns of all that
    reads it. What remains computes with the same numbers; the outputs are the same where the removed units were dead
    (see :func:`shrink`), and otherwise those of a network pruned by whole neurons.

    Args:
        graph: stays as it is.
        keep: by layer (see :func:`layers`), flags of shape (units,) or the numbers of the units that stay.

    Raises:
        UsageError: no such layer, flags of another shape, or a layer that would have no unit left.
        UnsupportedError: something else than weights and pointwise functions reads the units (a convolution, a sum with
            other units, an output of the network).
    """
    known = layers(graph)
    chosen = {name: _flags(graph, known, name, value) for name, value in keep.items()}
    features: dict[str, Flags] = {}
    nodes = []
    for node in graph.nodes:
        inputs = [features.get(i, np.ones(width_of(graph, i), dtype=bool)) for i in node.inputs]
        new, out = _smaller(graph, node, inputs, chosen)
        nodes.append(new)
        for port in node.ports():
            features[f"{node.name}.{port}" if port else node.name] = out.get(port, out[node.ports()[0]])
        features[node.name] = out[node.ports()[0]]
    for name, value in graph.outputs.items():
        if not features[value].all():
            raise UnsupportedError(
                f"units that output '{name}' of the network reads cannot be removed: keep every unit of the last layer"
            )
    return replace(graph, nodes=tuple(nodes))


def _flags(graph: Graph, known: Mapping[str, int], name: str, value: ArrayLike) -> Flags:
    if name not in known:
        raise UsageError(f"the graph has no layer '{name}' to remove units from: it has {', '.join(known) or 'none'}")
    array = np.asarray(value)
    flags = np.zeros(known[name], dtype=bool)
    if array.dtype == bool:
        if array.shape != flags.shape:
            raise UsageError(f"flags of layer '{name}' have shape {array.shape}: expected ({known[name]},)")
        flags = array.copy()
    else:
        numbers = array.astype(np.intp)
        if numbers.size and (numbers.min() < 0 or numbers.max() >= known[name]):
            raise UsageError(f"layer '{name}' has units 0 to {known[name] - 1}: got {numbers.min()} to {numbers.max()}")
        flags[numbers] = True
    if not flags.any():
        raise UsageError(f"layer '{name}' would have no unit left: keep one of {known[name]} at least")
    return flags


def width_of(graph: Graph, value: str) -> int:
    """Number of features of a value, all axes together."""
    return int(np.prod(graph.specs[value].shape))


def _smaller(
    graph: Graph, node: Node, inputs: list[Flags], chosen: Mapping[str, Flags]
) -> tuple[Node, dict[str, Flags]]:
    """The node for what is left of its inputs, and what is left of its outputs by port."""
    if isinstance(node, Recurrent):
        return _smaller_recurrent(graph, node, inputs[0], chosen)
    first = node.ports()[0]
    if isinstance(node, Linear):
        rows = chosen.get(driven_layer(graph, node), np.ones(node.params["weight"].shape[0], dtype=bool))
        if inputs[0].all() and rows.all():
            return node, {first: rows}
        if len(graph.specs[node.inputs[0]].shape) != 1:
            raise UnsupportedError(f"linear layer '{node.name}' reads units along several axes, none can be removed")
        return _sliced(node, {"weight": (rows, inputs[0]), "bias": (rows,)}), {first: rows}
    if isinstance(node, Concat):
        return node, {first: np.concatenate(inputs)}
    if all(flags.all() for flags in inputs):
        return node, {first: np.ones(width_of(graph, node.name), dtype=bool)}
    if isinstance(node, Affine):
        return _sliced(node, {r: (inputs[0],) for r, v in node.params.items() if v.size > 1}), {first: inputs[0]}
    if isinstance(node, Elementwise) and node.fn not in MIXING:
        return node, {first: inputs[0]}
    if isinstance(node, TimeReduce) and len(node.feature_shape) == 1:
        return replace(node, feature_shape=(int(inputs[0].sum()),)), {first: inputs[0]}
    if isinstance(node, Repeat) or (isinstance(node, Flatten) and node.axes == 1):
        return node, {first: inputs[0]}
    if isinstance(node, Add) and all(np.array_equal(flags, inputs[0]) for flags in inputs):
        return node, {first: inputs[0]}
    raise UnsupportedError(
        f"'{node.name}' ({node.kind}) mixes units that are to be removed with others: keep all units of what it reads"
    )


def _smaller_recurrent(
    graph: Graph, node: Recurrent, drive: Flags, chosen: Mapping[str, Flags]
) -> tuple[Node, dict[str, Flags]]:
    units = chosen.get(node.name, np.ones(node.units, dtype=bool))
    state = chosen.get(f"{node.name}.hr", np.ones(node.width, dtype=bool)) if "hr" in node.params else units
    out = {s: state if s == node.cell.feedback else units for s in node.cell.states}
    if units.all() and state.all() and drive.all():
        return node, out
    if "ih" not in node.params and not np.array_equal(drive, np.tile(units, node.cell.n_gates)):
        raise UnsupportedError(
            f"layer '{node.name}' is driven one to one by '{node.inputs[0]}', which loses other units than it: only a "
            "linear layer that drives nothing else can follow"
        )
    rows = np.tile(units, node.cell.n_gates)
    axes: dict[str, tuple[Flags, ...]] = {
        "ih": (rows, drive),
        "bias_ih": (rows,),
        "hh": (rows, state),
        "bias_hh": (rows,),
        "hh_diag": (units,),
        "hr": (state, units),
        **{v: (units,) for v in node.cell.vectors if node.params[v].size > 1 or node.units == 1},
    }
    small = _sliced(node, {r: a for r, a in axes.items() if r in node.params}, units=int(units.sum()))
    if node.feature_shape:
        small = replace(small, feature_shape=(int(units.sum()),))
    return small, out


def _sliced(node: Any, axes: Mapping[str, tuple[Flags, ...]], **fields: Any) -> Any:
    """The node with parameters and patterns cut to the flags of each axis."""
    params, patterns = dict(node.params), dict(node.patterns)
    for role, flags in axes.items():
        if role not in params:
            continue
        if params[role].ndim != len(flags) or params[role].shape != tuple(len(f) for f in flags):
            raise UnsupportedError(
                f"parameter '{node.name}.{role}' has shape {params[role].shape}: expected one entry per unit"
            )
        params[role] = np.ascontiguousarray(params[role][np.ix_(*flags)])
        if role in patterns:
            mask = patterns[role].mask()
            cut = mask[np.ix_(*flags)] if len(flags) == 2 else mask[:, flags[0]]
            patterns[role] = Pattern.from_mask(cut, patterns[role].origin)
    return replace(node, params=params, patterns=patterns, **fields)
