"""Graphs in layers, their statistics, and the Reber strings."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecirc.data import accepts, reber
from sparsecirc.errors import UsageError
from sparsecirc.structures import STATISTICS, barabasi_albert, erdos_renyi, layered, statistics, watts_strogatz


def test_longest_paths_make_the_layers() -> None:
    graph = layered(nx.DiGraph([("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("a", "d"), ("e", "d")]))
    assert graph.layers == (("a", "e"), ("b",), ("c",), ("d",))
    assert set(graph.wiring) == {(0, 1), (1, 2), (0, 2), (2, 3), (0, 3)}
    assert graph.skips == ((0, 2), (0, 3))
    assert graph.wiring[0, 3].mask().tolist() == [[True, True]]
    assert graph.n_edges == 6


def test_links_of_an_undirected_graph_run_from_the_lower_to_the_higher_index() -> None:
    graph = layered(nx.Graph([(0, 1), (2, 1), (2, 0)]))
    assert graph.layers == ((0,), (1,), (2,))
    assert sorted(graph.to_networkx().edges) == [(0, 1), (0, 2), (1, 2)]


@settings(max_examples=60)
@given(n=st.integers(1, 25), p=st.floats(0, 1), seed=st.integers(0, 999))
def test_layers_hold_every_node_and_link_once_and_point_down(n: int, p: float, seed: int) -> None:
    plain = erdos_renyi(n, p, seed=seed)
    graph = layered(plain)
    assert sorted(v for layer in graph.layers for v in layer) == list(range(n))
    assert all(a < b for a, b in graph.wiring)
    back = graph.to_networkx()
    assert {frozenset(e) for e in back.edges} == {frozenset(e) for e in plain.edges}
    depth = dict(back.nodes(data="layer"))
    for node in back:
        before = [depth[u] for u in back.predecessors(node)]
        assert depth[node] == (1 + max(before) if before else 0)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (nx.Graph(), "the graph has no nodes"),
        (nx.MultiGraph([(0, 1), (0, 1)]), "several links between two nodes"),
        (nx.Graph([(0, 0)]), "node '0' is linked to itself"),
        (nx.DiGraph([(0, 1), (1, 2), (2, 0)]), r"the graph has a cycle \(0 -> 1 -> 2"),
        ({0: [1]}, "takes a networkx graph, got dict"),
    ],
)
def test_what_has_no_layers_is_refused(graph: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        layered(graph)


def test_random_graphs_are_those_of_their_seed() -> None:
    for make in (barabasi_albert, watts_strogatz, lambda n, seed: erdos_renyi(n, 0.3, seed=seed)):
        one, same, other = make(30, seed=1), make(30, seed=1), make(30, seed=2)
        assert set(one.edges) == set(same.edges)
        assert set(one.edges) != set(other.edges)
    assert barabasi_albert(50).number_of_edges() == 5 * 45
    assert nx.is_connected(watts_strogatz(30, seed=3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: barabasi_albert(5, 5), "expected 1 <= m < n"),
        (lambda: watts_strogatz(5, 5), "expected 2 <= k < n"),
        (lambda: watts_strogatz(9, 4, 1.5), "expected a probability"),
        (lambda: erdos_renyi(0, 0.5), "expected n >= 1"),
        (lambda: erdos_renyi(3, -0.1), "expected n >= 1 and a probability"),
    ],
)
def test_impossible_random_graphs_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(UsageError, match=message):
        make()


def test_statistics_of_a_path_and_of_single_nodes() -> None:
    path = statistics(layered(nx.path_graph(4)))
    assert tuple(path) == STATISTICS
    assert (path["layers"], path["nodes"], path["edges"]) == (4, 4, 3)
    assert (path["source_nodes"], path["sink_nodes"], path["diameter"]) == (1, 1, 3)
    assert path["average_shortest_path"] == pytest.approx(10 / 6)
    assert path["degree_mean"] == 1.5
    assert path["degree_var"] == 0.25
    assert path["node_betweenness_mean"] == pytest.approx((2 / 3 + 2 / 3) / 4)
    apart = nx.Graph()
    apart.add_nodes_from(range(3))
    lonely = statistics(layered(apart))
    assert (lonely["layers"], lonely["source_nodes"], lonely["sink_nodes"], lonely["diameter"]) == (1, 3, 3, 0)
    assert lonely["edge_betweenness_mean"] == lonely["average_shortest_path"] == 0


def text(row: np.ndarray, length: int) -> str:
    return "".join(chr(int(c)) for c in row[:length, 0])


def test_reber_strings_are_what_their_class_says() -> None:
    data = reber(600, 200, seed=3)
    parts = [(data.x_train, data.y_train, data.lengths_train), (data.x_test, data.y_test, data.lengths_test)]
    seen = set()
    for x, y, lengths in parts:
        assert lengths is not None
        for row, label, n in zip(x, y, lengths, strict=True):
            string = text(row, n)
            assert 11 <= n <= 53
            assert not row[n:].any()
            assert accepts(string) == bool(label)
            seen.add(string)
    assert len(seen) == 800  # none is in both parts, or twice
    assert int(data.y_train.sum() + data.y_test.sum()) == 400
    swapped = [s for s in seen if not accepts(s) and s.startswith(("BT", "BP"))]
    assert len(swapped) == 176
    again = reber(600, 200, seed=3)
    assert np.array_equal(data.x_train, again.x_train)
    assert not np.array_equal(data.x_train, reber(600, 200, seed=4).x_train)


@pytest.mark.parametrize("string", ["", "B", "BTXS", "BTXSEE", "BTSSV", "btxse", "BTXSE\0"])
def test_what_the_grammar_does_not_derive(string: str) -> None:
    assert not accepts(string)
    assert accepts("BTXSE")
    assert accepts("BPVVE")


def test_no_strings_at_all_are_refused() -> None:
    with pytest.raises(UsageError, match="expected at least one string"):
        reber(0, 0)
    assert len(reber(1, 0).y_test) == 0
