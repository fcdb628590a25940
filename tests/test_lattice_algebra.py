"""Order theory: named lattices exactly, random ones against brute force, and no dependence on labels."""

from __future__ import annotations

import itertools
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecirc._lattice import (
    acyclic_order,
    attribute_irreducible,
    betweenness,
    closeness,
    components,
    concept_lattice,
    context_persistence,
    cut,
    degree,
    forward,
    join_irreducible,
    katz,
    meet_irreducible,
    members,
    object_irreducible,
    pack,
    persistence,
    preorder,
    refuse_one_component,
    transpose,
    unpack,
    widest_paths,
)
from sparsecirc.errors import UsageError

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(0, 8)


def relation(n: int, edges) -> np.ndarray:
    """Flags (n, n) of pairs (below, above)."""
    flags = np.zeros((n, n), dtype=bool)
    for low, high in edges:
        flags[high, low] = True
    return flags


def closure(flags: np.ndarray) -> np.ndarray:
    """Reflexive and transitive closure, the slow way."""
    out = flags | np.eye(len(flags), dtype=bool)
    for k in range(len(flags)):
        out |= out[:, k : k + 1] & out[k]
    return out


def random_graph(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random((n, n)) < rng.uniform(0, 2) / max(n, 1)


def random_dag(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    flags = np.tril(rng.random((n, n)) < rng.random(), -1)
    return flags[np.ix_(order, order)]


def irreducible(flags: np.ndarray) -> set[int]:
    return set(np.flatnonzero(meet_irreducible(preorder(pack(flags)))).tolist())


# Named examples ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5, 64, 65, 130])
def test_a_chain_loses_its_top_only(n):
    flags = relation(n, [(k, k + 1) for k in range(n - 1)])
    assert irreducible(flags) == set(range(n - 1))
    assert set(np.flatnonzero(join_irreducible(preorder(pack(flags))))) == set(range(1, n))
    assert preorder(pack(flags)).level.tolist() == list(range(n))


@pytest.mark.parametrize("n", [2, 3, 64, 100])
def test_an_antichain_is_irreducible_all_over(n):
    assert irreducible(relation(n, [])) == set(range(n))


@pytest.mark.parametrize("k", [1, 2, 3, 4, 6])
def test_a_boolean_lattice_has_its_co_atoms(k):
    flags = relation(2**k, [(s, s | 1 << b) for s in range(2**k) for b in range(k) if not s >> b & 1])
    top = 2**k - 1
    assert irreducible(flags) == {top ^ 1 << b for b in range(k)}
    assert set(np.flatnonzero(join_irreducible(preorder(pack(flags))))) == {1 << b for b in range(k)}


def test_m3_has_its_three_middle_elements():
    assert irreducible(relation(5, [(0, m) for m in (1, 2, 3)] + [(m, 4) for m in (1, 2, 3)])) == {1, 2, 3}


def test_n5_has_all_three_inner_elements():
    assert irreducible(relation(5, [(0, 1), (1, 2), (2, 4), (0, 3), (3, 4)])) == {1, 2, 3}


def test_one_component_is_refused():
    ring = preorder(pack(relation(6, [(k, (k + 1) % 6) for k in range(6)])))
    assert ring.m == 1
    with pytest.raises(UsageError, match=r"one component holds 6 of the 6 neurons.*higher threshold.*order='acyclic'"):
        refuse_one_component(ring)
    with pytest.raises(UsageError, match="holds 4 of the 6"):
        refuse_one_component(preorder(pack(relation(6, [(0, 1), (1, 2), (2, 3), (3, 0)]))))


def test_half_of_the_neurons_in_a_component_is_accepted():
    refuse_one_component(preorder(pack(relation(6, [(0, 1), (1, 2), (2, 0)]))))
    refuse_one_component(preorder(pack(relation(1, []))))
    refuse_one_component(preorder(pack(relation(0, []))))


def test_equivalent_elements_share_the_answer():
    order = preorder(pack(relation(4, [(0, 1), (1, 0), (1, 2), (1, 3)])))
    assert order.m == 3
    assert order.component[0] == order.component[1] == 0
    assert meet_irreducible(order).tolist() == [False, False, True, True]  # {0, 1} is the meet of 2 and 3


# Against brute force -------------------------------------------------------------------------------------------------


@settings(max_examples=3000)
@given(sizes, seeds)
def test_posets_agree_with_their_concept_lattice(n, seed):
    flags = random_dag(n, seed)
    order = preorder(pack(flags))
    below = closure(flags)
    assert np.array_equal(order.matrix(), below)
    assert meet_irreducible(order).tolist() == concept_lattice(below).meet_irreducible()
    assert join_irreducible(order).tolist() == concept_lattice(below.T).meet_irreducible()


@settings(max_examples=1000)
@given(sizes, seeds)
def test_preorders_agree_with_their_concept_lattice(n, seed):
    flags = random_graph(n, seed)
    order = preorder(pack(flags))
    below = closure(flags)
    assert np.array_equal(order.matrix(), below)
    assert np.array_equal(order.component[:, None] == order.component, below & below.T)
    assert meet_irreducible(order).tolist() == concept_lattice(below).meet_irreducible()


@settings(max_examples=1000)
@given(st.integers(1, 8), st.integers(1, 8), seeds)
def test_contexts_agree_with_their_concept_lattice(m, n, seed):
    rng = np.random.default_rng(seed)
    flags = rng.random((m, n)) < rng.random()
    assert attribute_irreducible(pack(flags), n).tolist() == concept_lattice(flags).meet_irreducible()
    assert object_irreducible(pack(flags), n).tolist() == concept_lattice(flags.T).meet_irreducible()


@given(sizes, seeds)
def test_covers_are_the_pairs_with_nothing_between(n, seed):
    below = closure(random_dag(n, seed)) & ~np.eye(n, dtype=bool)
    order = preorder(pack(below))
    found = np.zeros((n, n), dtype=bool)
    for i in range(n):
        found[i, np.isin(order.component, members(order.covers[order.component[i]], order.m))] = True
    between = [(i, j) for i, j in np.argwhere(below) if not any(below[i, k] and below[k, j] for k in range(n))]
    assert {tuple(p) for p in np.argwhere(found)} == set(between)


@given(sizes, seeds)
def test_classes_are_numbered_from_below(n, seed):
    order = preorder(pack(random_graph(n, seed)))
    assert not np.triu(unpack(order.under, order.m)).any()


@pytest.mark.parametrize("n", [63, 64, 65, 200])
def test_larger_graphs_agree_with_networkx(n):
    networkx = pytest.importorskip("networkx", reason="networkx is not installed")
    rng = np.random.default_rng(n)
    flags = rng.random((n, n)) < 1.5 / n
    graph = networkx.from_numpy_array(flags.T, create_using=networkx.DiGraph)
    order = preorder(pack(flags))
    assert np.array_equal(
        order.matrix(), networkx.to_numpy_array(networkx.transitive_closure(graph, reflexive=True)).T > 0
    )
    groups = {frozenset(np.flatnonzero(order.component == c).tolist()) for c in range(order.m)}
    assert groups == {frozenset(c) for c in networkx.strongly_connected_components(graph)}
    dag = np.tril(rng.random((n, n)) < 0.1, -1)
    reduced = networkx.transitive_reduction(networkx.from_numpy_array(dag.T, create_using=networkx.DiGraph))
    order = preorder(pack(dag))
    hasse = unpack(order.covers, n)[np.ix_(order.component, order.component)]
    assert np.array_equal(hasse, networkx.to_numpy_array(reduced, nodelist=range(n)).T > 0)


# Labels do not matter ------------------------------------------------------------------------------------------------


@given(st.integers(2, 12), seeds)
def test_relabelling_relabels_the_result(n, seed):
    rng = np.random.default_rng(seed)
    strengths = rng.random((n, n))
    p = rng.permutation(n)
    moved = strengths[np.ix_(p, p)]
    position, other = acyclic_order(strengths), acyclic_order(moved)
    dag = forward(strengths, position)
    assert np.array_equal(forward(moved, other), dag[np.ix_(p, p)])
    for level in (0.0, 0.5, 0.9):
        order, twin = preorder(cut(dag, level)), preorder(cut(forward(moved, other), level))
        assert np.array_equal(meet_irreducible(twin), meet_irreducible(order)[p])
        assert np.array_equal(twin.matrix(), order.matrix()[np.ix_(p, p)])
        assert np.array_equal(
            attribute_irreducible(cut(moved, level), n), attribute_irreducible(cut(strengths, level), n)[p]
        )
    assert np.array_equal(widest_paths(moved), widest_paths(strengths)[np.ix_(p, p)])
    np.testing.assert_allclose(persistence(moved).neuron, persistence(strengths).neuron[p], atol=1e-12)
    for measure in (degree, closeness, betweenness, katz):
        np.testing.assert_allclose(measure(moved), measure(strengths)[p], atol=1e-9)


# Acyclic orientation -------------------------------------------------------------------------------------------------


@given(st.integers(0, 12), seeds)
def test_the_orientation_has_no_cycle_and_keeps_at_least_half_of_the_weight(n, seed):
    rng = np.random.default_rng(seed)
    weights = rng.random((n, n)) * (rng.random((n, n)) < rng.random())
    np.fill_diagonal(weights, 0)
    position = acyclic_order(weights)
    assert sorted(position.tolist()) == list(range(n))
    kept = forward(weights, position)
    assert preorder(pack(kept > 0)).m == n
    assert kept.sum() >= weights.sum() / 2 - 1e-9


@given(st.integers(0, 12), seeds)
def test_a_graph_without_cycles_loses_nothing(n, seed):
    weights = random_dag(n, seed) * np.random.default_rng(seed).random((n, n))
    assert np.array_equal(forward(weights, acyclic_order(weights)), weights)


def test_a_cycle_is_opened_at_its_lightest_edge():
    weights = np.zeros((4, 4))
    for k, w in enumerate((0.9, 0.2, 0.8, 0.7)):
        weights[(k + 1) % 4, k] = w
    lost = weights - forward(weights, acyclic_order(weights))
    assert lost[2, 1] == 0.2
    assert np.count_nonzero(lost) == 1


# Graded orders -------------------------------------------------------------------------------------------------------


def widest_by_hand(strengths: np.ndarray) -> np.ndarray:
    out = strengths.astype(float).copy()
    np.fill_diagonal(out, np.inf)
    for k in range(len(out)):
        out = np.maximum(out, np.minimum(out[:, k : k + 1], out[k]))
    return out


@settings(max_examples=300)
@given(st.integers(0, 12), seeds, st.booleans())
def test_widest_paths_agree_with_floyd_and_warshall(n, seed, coarse):
    rng = np.random.default_rng(seed)
    strengths = rng.random((n, n)) * (rng.random((n, n)) < rng.random())
    if coarse:  # many edges of equal strength
        strengths = np.round(strengths * 3)
    assert np.array_equal(widest_paths(strengths), widest_by_hand(strengths))


def test_widest_paths_of_many_words():
    strengths = np.random.default_rng(0).random((150, 150))
    assert np.array_equal(widest_paths(strengths), widest_by_hand(strengths))


@settings(max_examples=300)
@given(st.integers(1, 9), seeds)
def test_persistence_is_the_measure_of_the_cuts(n, seed):
    rng = np.random.default_rng(seed)
    strengths = np.round(rng.random((n, n)) * 8) / 8
    np.fill_diagonal(strengths, 0)
    top = strengths.max() or 1.0
    steps = np.unique(strengths[strengths > 0]) / top
    weights = np.diff(np.concatenate([[0.0], steps]))
    neuron, joins, edge = np.zeros(n), np.zeros(n), np.zeros((n, n))
    if not len(steps):
        steps, weights = np.array([1.0]), np.array([1.0])
    for level, share in zip(steps, weights, strict=True):
        flags = strengths / top >= level
        below = closure(flags)
        order = preorder(pack(flags))
        neuron += share * np.array(concept_lattice(below).meet_irreducible())
        joins += share * np.array(concept_lattice(below.T).meet_irreducible())
        covers = unpack(order.covers, order.m)[np.ix_(order.component, order.component)]
        edge += share * (flags & (covers | (order.component[:, None] == order.component)))
    found = persistence(strengths, edges=True)
    assert found.exact
    np.testing.assert_allclose(found.neuron, neuron, atol=1e-12)
    np.testing.assert_allclose(persistence(strengths, meet=False).neuron, joins, atol=1e-12)
    np.testing.assert_allclose(found.edge, edge, atol=1e-12)


@given(st.integers(1, 8), seeds)
def test_persistence_of_one_step_is_the_measure_of_its_contexts(n, seed):
    strengths = np.round(np.random.default_rng(seed).random((n, n)) * 4) / 4
    np.fill_diagonal(strengths, 0)
    top = strengths.max() or 1.0
    expected, dual, last = np.zeros(n), np.zeros(n), 0.0
    for level in np.unique(strengths[strengths > 0]) if strengths.any() else [1.0]:
        expected += (level - last) / top * np.array(concept_lattice(strengths >= level).meet_irreducible())
        dual += (level - last) / top * np.array(concept_lattice((strengths >= level).T).meet_irreducible())
        last = level
    np.testing.assert_allclose(context_persistence(strengths).neuron, expected, atol=1e-12)
    np.testing.assert_allclose(context_persistence(strengths, meet=False).neuron, dual, atol=1e-12)


@given(st.integers(1, 10), seeds)
def test_persistence_of_a_binary_relation_is_the_binary_test(n, seed):
    flags = random_graph(n, seed)
    np.fill_diagonal(flags, False)
    expected = meet_irreducible(preorder(pack(flags)))
    assert np.array_equal(persistence(flags.astype(float)).neuron, expected)


@given(st.integers(2, 10), seeds)
def test_an_edge_of_a_dag_persists_by_its_margin_over_the_widest_detour(n, seed):
    strengths = random_dag(n, seed) * np.random.default_rng(seed + 1).random((n, n))
    closed = widest_paths(strengths)
    expected = np.zeros((n, n))
    for i, j in itertools.product(range(n), repeat=2):
        detours = [min(closed[i, k], closed[k, j]) for k in range(n) if k not in (i, j)]
        expected[i, j] = max(0.0, strengths[i, j] - max(detours, default=0.0))
    top = strengths.max() or 1.0
    np.testing.assert_allclose(persistence(strengths, edges=True).edge, expected / top, atol=1e-12)


def test_fewer_cuts_come_close():
    strengths = np.random.default_rng(3).random((60, 60))
    dag = forward(strengths, acyclic_order(strengths))
    exact, coarse = persistence(dag), persistence(dag, cuts=64)
    assert exact.exact
    assert not coarse.exact
    assert coarse.cuts == 64 < exact.cuts
    assert np.abs(coarse.neuron - exact.neuron).max() < 0.05


@pytest.mark.parametrize("bad", [np.full((2, 2), -1.0), np.full((2, 2), np.nan), np.full((2, 2), np.inf), np.ones(3)])
def test_bad_strengths_are_refused(bad):
    with pytest.raises(UsageError, match="strengths"):
        widest_paths(bad)


def test_bad_cuts_are_refused():
    with pytest.raises(UsageError, match="cuts is 0"):
        persistence(np.ones((2, 2)), cuts=0)


def test_a_large_context_is_not_listed():
    with pytest.raises(UsageError, match="at most 20"):
        concept_lattice(np.ones((21, 3)))


# Bits and centralities -----------------------------------------------------------------------------------------------


@given(st.integers(0, 140), st.integers(0, 140), seeds)
def test_bits_round_trip(m, n, seed):
    flags = np.random.default_rng(seed).random((m, n)) < 0.3
    words = pack(flags)
    assert words.shape == (m, -(-n // 64))
    assert np.array_equal(unpack(words, n), flags)
    assert np.array_equal(unpack(transpose(words, n), m), flags.T)
    assert all(np.array_equal(members(words[i], n), np.flatnonzero(flags[i])) for i in range(m))
    values = np.where(flags, 2.0, 1.0)
    assert np.array_equal(cut(values, 1.0), words)
    assert np.array_equal(cut(values, 2.0, at_least=True), words)


def test_centralities_agree_with_networkx():
    networkx = pytest.importorskip("networkx", reason="networkx is not installed")
    rng = np.random.default_rng(5)
    strengths = rng.random((40, 40)) * (rng.random((40, 40)) < 0.08)
    np.fill_diagonal(strengths, 0)
    graph = networkx.from_numpy_array(strengths.T, create_using=networkx.DiGraph)
    for ours, theirs in (
        (betweenness, networkx.betweenness_centrality(graph)),
        (closeness, networkx.harmonic_centrality(graph)),
    ):
        expected = np.array([theirs[k] for k in range(40)])
        np.testing.assert_allclose(ours(strengths), expected / expected.max(), atol=1e-12)
    assert degree(np.zeros((3, 3))).tolist() == katz(np.zeros((3, 3))).tolist() == [0, 0, 0]


def test_katz_counts_what_an_element_reaches():
    chain = np.zeros((4, 4))
    chain[[1, 2, 3], [0, 1, 2]] = 1.0
    value = katz(chain)
    assert np.all(np.diff(value) < 0)
    assert value[0] == 1


# Cost ----------------------------------------------------------------------------------------------------------------


def test_a_thousand_neurons_take_little_time_and_memory():
    n = 1024
    strengths = np.abs(np.random.default_rng(0).standard_normal((n, n), dtype=np.float32))
    start = time.process_time()
    dag = forward(strengths, acyclic_order(strengths))
    relation = cut(dag, 1.0)
    tracemalloc.start()
    order = preorder(relation)
    found = meet_irreducible(order)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - start < 2
    assert peak < 16 * n * n / 8  # a few bit matrices, never a dense one of floats
    assert 0 < found.sum() < n


def test_components_of_a_dense_graph():
    assert components(pack(np.ones((300, 300), dtype=bool))).max() == 0
    assert components(pack(np.zeros((0, 0), dtype=bool))).tolist() == []


@pytest.mark.slow
def test_four_thousand_neurons_take_less_than_a_minute():
    n = 4096
    strengths = np.abs(np.random.default_rng(0).standard_normal((n, n), dtype=np.float32))
    start = time.process_time()
    dag = forward(strengths, acyclic_order(strengths))
    found = meet_irreducible(preorder(cut(dag, 1.0)))
    loose = attribute_irreducible(cut(strengths, 2.5), n)
    widest = widest_paths(dag)
    assert time.process_time() - start < 60
    assert 0 < found.sum() < n
    assert loose.shape == (n,)
    assert np.array_equal(widest > 0, preorder(cut(dag, 0.0)).matrix())
