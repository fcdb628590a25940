"""Removing units: the matrices shrink everywhere, and where the units were dead the network stays the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecirc import Graph, Pattern, interpret, prune
from sparsecirc._prune import named, plan
from sparsecirc._shrink import _dead, layers, live_units, remove_units, shrink
from sparsecirc.cells import CELLS, GRU, LIF, LSTM, RNN_RELU, RNN_TANH, Cell
from sparsecirc.errors import MismatchError, UnsupportedError, UsageError
from sparsecirc.ir import (
    Add,
    Affine,
    Concat,
    Elementwise,
    Flatten,
    Input,
    Linear,
    Node,
    Recurrent,
    Repeat,
    TimeReduce,
)
from sparsecirc.patterns import lattice
from sparsecirc.scores import random

seeds = st.integers(0, 10_000)


def arrays(rng, **shapes):
    return {k: rng.standard_normal(s).astype(np.float32) for k, s in shapes.items()}


def recurrent(rng, name, source, cell: Cell, width: int, units: int, **more) -> Recurrent:
    rows = cell.n_gates * units
    params = arrays(rng, ih=(rows, width), hh=(rows, units), bias_ih=(rows,), bias_hh=(rows,))
    return Recurrent(name, (source,), params, cell=cell, units=units, **more)


def linear(rng, name, source, width: int, out: int) -> Linear:
    return Linear(name, (source,), arrays(rng, weight=(out, width), bias=(out,)))


def gated(rng, cell=LSTM) -> Graph:
    """Two stacked layers, both directions in the first, everything pointwise in between, a read-out."""
    nodes: tuple[Node, ...] = (
        Input("x", shape=(3,)),
        recurrent(rng, "low", "x", cell, 3, 7),
        recurrent(rng, "back", "x", cell, 3, 6, reverse=True),
        Concat("both", ("low", "back")),
        Affine("norm", ("both",), arrays(rng, scale=(13,), shift=(13,))),
        Elementwise("act", ("norm",), fn="tanh"),
        recurrent(rng, "high", "act", cell, 13, 8),
        TimeReduce("last", ("high",), how="last", feature_shape=(8,)),
        linear(rng, "hidden", "last", 8, 5),
        Elementwise("relu", ("hidden",), fn="relu"),
        linear(rng, "fc", "relu", 5, 2),
    )
    return Graph(nodes, {"y": "fc"})


def projected(rng) -> Graph:
    params = arrays(rng, ih=(40, 3), hh=(40, 4), hr=(4, 10), bias_ih=(40,))
    nodes = (
        Input("x", shape=(3,)),
        Recurrent("rnn", ("x",), params, cell=LSTM, units=10),
        linear(rng, "fc", "rnn", 4, 2),
    )
    return Graph(nodes, {"y": "fc"})


def spiking(rng) -> Graph:
    def lif(name, source, units, **params):
        fixed = {"beta": np.full(units, 0.9, np.float32), "threshold": np.ones(units, np.float32)}
        return Recurrent(name, (source,), {**params, **fixed}, cell=LIF, units=units)

    nodes = (
        Input("x", shape=(4,)),
        linear(rng, "fc1", "x", 4, 9),
        lif("lif", "fc1", 9, **arrays(rng, hh=(9, 9), bias_hh=(9,))),
        linear(rng, "fc2", "lif", 9, 3),
        lif("out", "fc2", 3),
    )
    return Graph(nodes, {"y": "out.mem"}, dt=1e-3)


GRAPHS = {
    "lstm": lambda rng: gated(rng, LSTM),
    "gru": lambda rng: gated(rng, GRU),
    "tanh": lambda rng: gated(rng, RNN_TANH),
    "relu": lambda rng: gated(rng, RNN_RELU),
    "projected": projected,
    "spiking": spiking,
}


def run(graph: Graph, seed=0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((6, 2, *graph.inputs[0].shape))
    return interpret(graph, x).y


def kill(graph: Graph, rng, share: float) -> Graph:
    """Random weights and biases to zero, some by pattern and some by value."""
    nodes = []
    for node in graph.nodes:
        params, patterns = dict(node.params), {}
        for role, value in node.params.items():
            if role in node.matrix_roles:
                mask = rng.random(value.shape) > share
                if rng.random() < 0.5:
                    patterns[role] = Pattern.from_mask(mask)
                else:
                    params[role] = value * mask
            elif role.startswith("bias") or role == "shift":
                params[role] = value * (rng.random(value.shape) > share)
        nodes.append(replace(node, params=params, patterns=patterns))
    return replace(graph, nodes=tuple(nodes))


@settings(max_examples=60)
@given(st.sampled_from(sorted(GRAPHS)), seeds, st.floats(0.5, 1.0))
def test_a_shrunk_network_computes_the_same(name, seed, share):
    rng = np.random.default_rng(seed)
    graph = kill(GRAPHS[name](rng), rng, share)
    found = shrink(graph)
    np.testing.assert_allclose(run(found.graph), run(graph), atol=1e-12)
    assert all(flags.all() for flags in live_units(found.graph).values())
    sizes = layers(found.graph)
    assert {n: sizes[n] + found.removed.get(n, 0) for n in sizes} == layers(graph)


@pytest.mark.parametrize("name", sorted(GRAPHS))
def test_a_dense_network_keeps_everything(name):
    graph = GRAPHS[name](np.random.default_rng(0))
    found = shrink(graph)
    assert found.kept == {}
    assert layers(found.graph) == layers(graph)


@pytest.mark.parametrize("name", sorted(GRAPHS))
def test_units_that_nobody_reads_leave_every_matrix(name):
    rng = np.random.default_rng(1)
    graph = GRAPHS[name](rng)
    layer = {"projected": "rnn", "spiking": "lif"}.get(name, "high")
    gone = [1, 3]
    nodes = []
    for node in graph.nodes:
        params = dict(node.params)
        if node.name == layer and layer != "rnn":
            params["hh"][:, gone] = 0
        if node.name == "rnn":
            params["hr"][:, gone] = 0
        if node.name in ("hidden", "fc2"):
            params["weight"][:, gone] = 0
        nodes.append(replace(node, params=params))
    found = shrink(replace(graph, nodes=tuple(nodes)))
    assert found.removed == {layer: 2}
    assert np.flatnonzero(~found.kept[layer]).tolist() == gone
    small = found.graph.node(layer)
    assert isinstance(small, Recurrent)
    assert small.units == layers(graph)[layer] - 2
    assert found.max_diff < 1e-12
    if name == "spiking":
        assert found.graph.node("fc1").params["weight"].shape == (7, 4)


@pytest.mark.parametrize("cell", ["rnn_tanh", "rnn_relu", "gru", "lstm"])
def test_units_at_rest_leave_only_while_nothing_makes_something_of_zero(cell):
    rng = np.random.default_rng(2)
    layer = recurrent(rng, "rnn", "x", CELLS[cell], 3, 5)
    rows = np.arange(CELLS[cell].n_gates) * 5 + 2
    for role in ("ih", "hh", "bias_ih", "bias_hh"):
        layer.params[role][rows] = 0
    for fn, shift, expected in (("tanh", 0.0, 1), ("sigmoid", 0.0, 0), ("tanh", 1.0, 0)):
        nodes = (
            Input("x", shape=(3,)), layer, Affine("norm", ("rnn",), {"shift": np.full(5, shift, np.float32)}),
            Elementwise("act", ("norm",), fn=fn), linear(rng, "fc", "act", 5, 2),
        )  # fmt: skip
        found = shrink(Graph(nodes, {"y": "fc"}))
        assert found.removed.get("rnn", 0) == expected


def test_a_layer_that_is_dead_altogether_keeps_one_unit():
    rng = np.random.default_rng(0)
    graph = gated(rng)
    graph = graph.replace_nodes(replace(graph.node("hidden"), params={**graph.node("hidden").params,
                                "weight": np.zeros((5, 8), np.float32)}))  # fmt: skip
    found = shrink(graph)
    assert layers(found.graph) | {"hidden": 0, "fc": 0} == {
        "low": 1, "back": 1, "high": 1, "hidden": 0, "fc": 0
    }  # fmt: skip
    np.testing.assert_allclose(run(found.graph), run(graph), atol=1e-12)


def test_any_units_can_be_removed_by_number_or_flag():
    graph = gated(np.random.default_rng(0))
    small = remove_units(graph, {"low": [0, 2], "high": np.arange(8) < 5, "hidden": [4]})
    assert layers(small) == {"low": 2, "back": 6, "high": 5, "hidden": 1, "fc": 2}
    big, little = graph.node("high").params["ih"], small.node("high").params["ih"]
    assert little.shape == (20, 8)
    columns = [0, 2, *range(7, 13)]
    assert np.array_equal(little[5:10], big[8:13][:, columns])
    assert np.isfinite(run(small)).all()


def test_patterns_follow():
    graph = prune(gated(np.random.default_rng(0)), 0.5, score=random(3))
    small = remove_units(graph, {"high": [1, 2, 6]})
    before, after = graph.node("high").patterns["hh"].mask(), small.node("high").patterns["hh"].mask()
    rows = [8 * g + k for g in range(4) for k in (1, 2, 6)]
    assert np.array_equal(after, before[np.ix_(rows, [1, 2, 6])])


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"none": [0]}, "no layer 'none'.*it has low, back, high, hidden, fc"),
        ({"low": [7]}, "units 0 to 6: got 7 to 7"),
        ({"low": np.ones(3, bool)}, r"shape \(3,\): expected \(7,\)"),
        ({"low": []}, "no unit left"),
    ],
)
def test_bad_choices_are_refused(keep, message):
    with pytest.raises(UsageError, match=message):
        remove_units(gated(np.random.default_rng(0)), keep)


def test_units_that_cannot_go_are_refused_with_the_reason():
    rng = np.random.default_rng(0)
    graph = gated(rng)
    with pytest.raises(UnsupportedError, match="output 'y' of the network"):
        remove_units(graph, {"fc": [0]})
    two = (Input("x", shape=(3,)), recurrent(rng, "a", "x", GRU, 3, 4), recurrent(rng, "b", "x", GRU, 3, 4),
           Add("sum", ("a", "b")), linear(rng, "fc", "sum", 4, 2))  # fmt: skip
    with pytest.raises(UnsupportedError, match=r"'sum' \(add\) mixes"):
        remove_units(Graph(two, {"y": "fc"}), {"a": [0, 1]})
    both = remove_units(Graph(two, {"y": "fc"}), {"a": [0, 1], "b": [0, 1]})
    assert both.node("fc").params["weight"].shape == (2, 2)
    soft = (*two[:2], Elementwise("soft", ("a",), fn="softmax"), linear(rng, "fc", "soft", 4, 2))
    with pytest.raises(UnsupportedError, match="soft"):
        remove_units(Graph(soft, {"y": "fc"}), {"a": [0, 1]})
    pruned = Graph(soft, {"y": "fc"})
    pruned.node("fc").params["weight"][:, 0] = 0
    assert shrink(pruned).kept == {}


def test_units_behind_a_sum_stay():
    rng = np.random.default_rng(0)
    graph = Graph((Input("x", shape=(3,)), recurrent(rng, "a", "x", GRU, 3, 4), recurrent(rng, "b", "x", GRU, 3, 4),
                   Add("sum", ("a", "b")), linear(rng, "fc", "sum", 4, 2)), {"y": "fc"})  # fmt: skip
    for name in ("a", "b"):
        for value in graph.node(name).params.values():
            value[:] = 0
    assert shrink(graph).kept == {}


def test_a_spiking_layer_with_two_readers_of_its_drive_stays_whole():
    rng = np.random.default_rng(0)
    graph = spiking(rng)
    graph.node("fc2").params["weight"][:] = 0
    nodes = (*graph.nodes, linear(rng, "probe", "fc1", 9, 2))
    found = shrink(replace(graph, nodes=nodes, outputs={"y": "out.mem", "probe": "probe"}))
    assert found.removed.get("lif", 0) == 0


def test_static_inputs_and_repeats_are_followed():
    rng = np.random.default_rng(0)
    nodes = (
        Input("x", shape=(4,), time=False), linear(rng, "fc1", "x", 4, 6), Flatten("flat", ("fc1",)),
        Repeat("steps", ("flat",), steps=3), recurrent(rng, "rnn", "steps", GRU, 6, 5), linear(rng, "fc", "rnn", 5, 2),
    )  # fmt: skip
    graph = Graph(nodes, {"y": "fc"})
    graph.node("rnn").params["ih"][:, [0, 5]] = 0
    found = shrink(graph)
    assert found.removed == {"fc1": 2}


def test_a_wrong_network_would_not_pass(monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.setattr(_dead, "live_units", lambda graph: {"low": np.arange(layers(graph)["low"]) < 3})
    with pytest.raises(MismatchError, match="differs by"):
        shrink(gated(rng))


def test_reducible_neurons_of_a_lattice_leave_the_network():
    graph = gated(np.random.default_rng(0))
    report = plan(graph, None, pattern=lattice(keep="both", quantile=0.8), select=named("high.hh"))
    units = report.explanations[0].critical()
    assert set(units) == {"high"}
    small = remove_units(graph, units)
    assert layers(small)["high"] == units["high"].sum() < 8
    hh = report.patterns["high.hh"].mask()[:8]
    assert np.array_equal(hh.any(axis=1), units["high"])
