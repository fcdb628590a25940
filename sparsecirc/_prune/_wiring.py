"""Which layers a weight of a graph joins: whose units are its rows, and where each of its columns comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sparsecirc.ir import Affine, Concat, Elementwise, Graph, Input, Linear, Node, Recurrent, Repeat, TimeReduce

Sources = tuple[tuple[str, int], ...]
PASSING = (Affine, Elementwise, Repeat, TimeReduce)
MIXING = ("softmax", "log_softmax")
"""Nodes whose output k depends on their input k only."""


def graph_wiring(graph: Graph) -> Mapping[str, tuple[str, Sources]]:
    """(target, sources) of each recurrent and linear weight by name.

    A layer is called by its node; the projection of an LSTM is a layer of its own, ``"rnn.l0.hr"``. The units of a
    linear layer that does nothing but drive a spiking layer are that layer's neurons. A node that mixes its inputs (a
    convolution, pooling, a sum) ends the search: its outputs count as inputs of what follows.
    """
    found: dict[str, tuple[str, Sources]] = {}
    for node in graph.nodes:
        if isinstance(node, Recurrent):
            state = f"{node.name}.hr" if "hr" in node.params else node.name
            for role in node.matrix_roles:
                if role == "ih" and role in node.params:
                    found[f"{node.name}.ih"] = (node.name, origin(graph, node.inputs[0]))
                elif role == "hh" and role in node.params:
                    found[f"{node.name}.hh"] = (node.name, ((state, node.width),))
                elif role == "hr" and role in node.params:
                    found[f"{node.name}.hr"] = (state, ((node.name, node.units),))
        elif isinstance(node, Linear):
            found[f"{node.name}.weight"] = (driven_layer(graph, node), origin(graph, node.inputs[0]))
    # A linear layer along the last of several axes reads fewer columns than its input has features.
    widths = {v.name: v.pattern.shape[1] for v in graph.weights()}
    return {n: (t, s) for n, (t, s) in found.items() if sum(width for _, width in s) == widths[n]}


def origin(graph: Graph, value: str) -> Sources:
    """The layers whose units are the features of ``value``, from left to right."""
    node = _node_of(graph, value)
    width = math.prod(graph.specs[value].shape)
    if isinstance(node, Concat):
        return tuple(source for part in node.inputs for source in origin(graph, part))
    if isinstance(node, PASSING) and not (isinstance(node, Elementwise) and node.fn in MIXING):
        return origin(graph, node.inputs[0])
    if isinstance(node, Linear):
        return ((driven_layer(graph, node), width),)
    if isinstance(node, Recurrent):
        return ((f"{node.name}.hr" if "hr" in node.params and value != f"{node.name}.c" else node.name, width),)
    return ((node.name if isinstance(node, Input) else value, width),)


def _node_of(graph: Graph, value: str) -> Node:
    """The node that computes a value; names of nodes and ports both hold dots."""
    for node in graph.nodes:
        if value == node.name or value in {f"{node.name}.{port}" for port in node.ports() if port}:
            return node
    return graph.node(value)


def driven_layer(graph: Graph, node: Linear) -> str:
    """Name of the spiking layer that a linear layer drives one to one, and nothing else; itself where there is none."""
    users = [n for n in graph.nodes if node.name in n.inputs]
    if len(users) == 1 and isinstance(users[0], Recurrent) and "ih" not in users[0].params:
        driven = users[0]
        if driven.cell.n_gates == 1 and driven.units == node.params["weight"].shape[0]:
            return driven.name
    return node.name
