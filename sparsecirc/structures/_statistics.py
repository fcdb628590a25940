"""Numbers that describe a layered graph, to correlate with what its network learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import networkx as nx
import numpy as np

from sparsecirc.structures._layered import LayeredGraph

Spread = Callable[[nx.DiGraph, nx.Graph], Iterable[float]]

SPREADS: Mapping[str, Spread] = {
    "degree": lambda _d, g: (float(k) for _, k in g.degree),
    "eccentricity": lambda _d, g: (float(e) for part in _parts(g) for e in nx.eccentricity(part).values()),
    "closeness": lambda _d, g: nx.closeness_centrality(g).values(),
    "node_betweenness": lambda _d, g: nx.betweenness_centrality(g).values(),
    "edge_betweenness": lambda _d, g: nx.edge_betweenness_centrality(g).values(),
}

STATISTICS = (
    *("layers", "nodes", "edges", "source_nodes", "sink_nodes", "density", "diameter", "average_shortest_path"),
    *(f"{name}_{what}" for name in SPREADS for what in ("mean", "var")),
)
"""Names of all statistics."""


def statistics(graph: LayeredGraph) -> dict[str, float]:
    """Every one of `STATISTICS`.

    Source and sink nodes are those without predecessors and without successors. Paths and centralities are those of
    the undirected graph; in one that falls apart the diameter is the largest of its parts, and the average shortest
    path runs over the pairs that are joined. Means and variances are over nodes, or over links for
    ``edge_betweenness``; of nothing they are 0.
    """
    directed = graph.to_networkx()
    plain = directed.to_undirected()
    parts = _parts(plain)
    found = {
        "layers": len(graph.layers),
        "nodes": directed.number_of_nodes(),
        "edges": directed.number_of_edges(),
        "source_nodes": sum(k == 0 for _, k in directed.in_degree),
        "sink_nodes": sum(k == 0 for _, k in directed.out_degree),
        "density": nx.density(plain),
        "diameter": max(nx.diameter(part) for part in parts),
        "average_shortest_path": _average_path(parts),
    }
    for name, values in SPREADS.items():
        array = np.fromiter(values(directed, plain), np.float64)
        found[f"{name}_mean"] = array.mean() if array.size else 0.0
        found[f"{name}_var"] = array.var() if array.size else 0.0
    return {name: float(found[name]) for name in STATISTICS}


def _parts(graph: nx.Graph) -> list[nx.Graph]:
    return [graph.subgraph(nodes) for nodes in nx.connected_components(graph)]


def _average_path(parts: list[nx.Graph]) -> float:
    pairs = sum(len(p) * (len(p) - 1) for p in parts)
    total = sum(nx.average_shortest_path_length(p) * len(p) * (len(p) - 1) for p in parts if len(p) > 1)
    return total / pairs if pairs else 0.0
