"""A graph cut into layers: what feeds what, layer by layer, with the links that skip layers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UsageError


@dataclass(frozen=True)
class LayeredGraph:
    """A directed acyclic graph in layers of longest paths.

    A node without predecessors is in layer 0; any other one layer below the lowest of its predecessors:
    layer(v) = 1 + max over u -> v of layer(u).

    Attributes:
        layers: nodes of each layer.
        wiring: by (from layer, to layer), the live connections: rows are the nodes of the later layer, columns those of
            the earlier one. Pairs without a link are absent.
    """

    layers: tuple[tuple[Hashable, ...], ...]
    wiring: Mapping[tuple[int, int], Pattern]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Nodes per layer."""
        return tuple(len(layer) for layer in self.layers)

    @property
    def skips(self) -> tuple[tuple[int, int], ...]:
        """Pairs of layers that are linked over others."""
        return tuple(pair for pair in self.wiring if pair[1] - pair[0] > 1)

    @property
    def n_edges(self) -> int:
        """Links in all."""
        return sum(p.nnz for p in self.wiring.values())

    def to_networkx(self) -> nx.DiGraph:
        """The directed graph, each node with its ``layer``."""
        graph = nx.DiGraph()
        for k, layer in enumerate(self.layers):
            graph.add_nodes_from(layer, layer=k)
        for (a, b), pattern in self.wiring.items():
            rows, cols = pattern.rows.tolist(), pattern.indices.tolist()
            graph.add_edges_from((self.layers[a][c], self.layers[b][r]) for r, c in zip(rows, cols, strict=True))
        return graph


def layered(graph: Any) -> LayeredGraph:
    """Cut a graph into layers.

    Args:
        graph: a networkx graph. The links of an undirected one are oriented from the earlier to the later node in the
            order of its nodes (the lower to the higher index of a random graph); a directed one is taken as it is.

    Raises:
        UsageError: no nodes, more than one link between two nodes, a loop, or a directed graph with a cycle.
    """
    if not isinstance(graph, nx.Graph):
        raise UsageError(f"layered() takes a networkx graph, got {type(graph).__name__}")
    if graph.number_of_nodes() == 0:
        raise UsageError("the graph has no nodes: a network needs at least one")
    if graph.is_multigraph():
        raise UsageError("the graph has several links between two nodes: merge them, e.g. networkx.DiGraph(graph)")
    loops = sorted(map(str, nx.nodes_with_selfloops(graph)))
    if loops:
        raise UsageError(f"node '{loops[0]}' is linked to itself: recurrence is a matter of the cell, remove the loop")
    place = {node: k for k, node in enumerate(graph)}
    if graph.is_directed():
        directed = graph
    else:
        directed = nx.DiGraph()
        directed.add_nodes_from(graph)
        directed.add_edges_from((u, v) if place[u] < place[v] else (v, u) for u, v in graph.edges)
    if not nx.is_directed_acyclic_graph(directed):
        cycle = " -> ".join(str(u) for u, _ in nx.find_cycle(directed))
        raise UsageError(f"the graph has a cycle ({cycle}): layers need an order; break it or give an undirected graph")
    level: dict[Hashable, int] = {}
    for node in nx.lexicographical_topological_sort(directed, key=place.__getitem__):
        level[node] = 1 + max((level[u] for u in directed.predecessors(node)), default=-1)
    layers: list[list[Hashable]] = [[] for _ in range(1 + max(level.values()))]
    for node in graph:
        layers[level[node]].append(node)
    within = {node: k for layer in layers for k, node in enumerate(layer)}
    masks: dict[tuple[int, int], np.ndarray] = {}
    for u, v in directed.edges:
        pair = (level[u], level[v])
        shape = (len(layers[pair[1]]), len(layers[pair[0]]))
        masks.setdefault(pair, np.zeros(shape, bool))[within[v], within[u]] = True
    wiring = {pair: Pattern.from_mask(masks[pair], "graph") for pair in sorted(masks)}
    return LayeredGraph(tuple(map(tuple, layers)), wiring)
