"""Networks as populations and connections, and the files that other simulators read."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sparsecirc._pattern import Pattern
from sparsecirc.cells import GRU, LI, LIF, Options, Reset
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.hardware import check_simulator, export_brian2, export_pynn, network, run_simulator
from sparsecirc.ir import Add, Affine, Conv, Elementwise, Flatten, Graph, Input, Linear, Pool, Recurrent, interpret
from sparsecirc.testing import classifier_graph, recurrent_graph

RNG = np.random.default_rng(0)


def lif(name: str, source: str, units: int, **more: object) -> Recurrent:
    params = {"beta": np.full(units, 0.9, np.float32), "threshold": np.ones(units, np.float32)}
    return Recurrent(name, (source,), params, cell=LIF, units=units, options=Options(Reset.ZERO), **more)  # type: ignore[arg-type]


def dense(name: str, source: str, out: int, wide: int) -> Linear:
    weight = RNG.standard_normal((out, wide)).astype(np.float32)
    pattern = Pattern.from_mask(RNG.random(weight.shape) < 0.5)
    return Linear(name, (source,), {"weight": weight, "bias": np.full(out, 0.3, np.float32)}, {"weight": pattern})


def replay(graph: Graph, x: np.ndarray) -> dict[str, np.ndarray]:
    """The network run from its populations and projections alone, by a loop of its own; LIF with a reset to zero."""
    net = network(graph)
    found: dict[str, list[np.ndarray]] = {p.name: [] for p in net.populations}
    mem = {p.name: np.zeros(p.units) for p in net.neurons}
    for t in range(len(x)):
        for p in net.populations:
            if p.kind == "input":
                found[p.name].append(x[t, 0].reshape(-1))
                continue
            drive = p.bias.copy()
            for c in net.into(p.name):
                pre, post, weight = c.connections
                source = found[c.pre][t - 1] if c.recurrent and t else np.zeros(p.units)
                source = source if c.recurrent else found[c.pre][t]
                np.add.at(drive, post, weight * source[pre])
            v = p.vectors["beta"] * mem[p.name] + drive
            z = v > p.vectors["threshold"]
            mem[p.name] = np.where(z, 0, v)
            found[p.name].append(z.astype(float))
    return {k: np.asarray(v) for k, v in found.items()}


def same(graph: Graph, x: np.ndarray) -> None:
    values, found = interpret(graph, x, keep_values=True).values, replay(graph, x)
    for layer in graph.recurrent:
        want = values[f"{layer.name}.spk"][:, 0].reshape(len(x), -1)
        assert want.sum() > 5
        np.testing.assert_array_equal(found[layer.name], want)


def test_sums_scalings_and_skips_become_connections() -> None:
    nodes = (
        Input("x", shape=(6,)), dense("a", "x", 9, 6), lif("one", "a", 9), dense("b", "one", 5, 9),
        dense("c", "x", 5, 6),
        Affine("scaled", ("c",), {"scale": np.full(5, 0.5, np.float32), "shift": np.full(5, 0.1, np.float32)}),
        Add("sum", ("b", "scaled")), lif("two", "sum", 5),
    )  # fmt: skip
    graph = Graph(nodes, {"y": "two"}, dt=1e-3)
    net = network(graph)
    assert [(c.name, c.pre, c.post, net.delay(c)) for c in net.projections] == [
        ("a.weight", "x", "one", 1), ("b.weight", "one", "two", 1), ("c.weight", "x", "two", 2),
    ]  # fmt: skip
    assert net.depths == {"x": 0, "one": 1, "two": 2}
    same(graph, RNG.standard_normal((40, 1, 6)))


def test_convolutions_and_pools_are_unrolled() -> None:
    weight = RNG.standard_normal((3, 2, 3, 3)).astype(np.float32)
    nodes = (
        Input("x", shape=(2, 6, 6)),
        Conv("conv", ("x",), {"weight": weight, "bias": np.full(3, 0.2, np.float32)}, stride=(1, 1), padding=(1, 1),
             dilation=(1, 1), groups=1),
        lif("one", "conv", 108, feature_shape=(3, 6, 6)),
        Pool("pool", ("one",), how="avg", kernel=(2, 2), stride=(2, 2)),
        Flatten("flat", ("pool",), axes=3), dense("fc", "flat", 4, 27), lif("two", "fc", 4),
    )  # fmt: skip
    graph = Graph(nodes, {"y": "two"}, dt=1e-3)
    net = network(graph)
    assert net.projections[0].weight.shape == (108, 72)
    assert net.projections[0].fan_in().max() == 18
    assert net.projections[1].name == "pool * fc.weight"
    same(graph, RNG.standard_normal((30, 1, 2, 6, 6)))


def test_what_comes_after_the_neurons_is_left_to_the_host() -> None:
    net = network(classifier_graph(LIF, 5, 9, 3, 0.5))
    assert net.outputs == {"y": ("rnn", "spk")}
    assert net.notes == ("output 'y': reduce, then fc is left to the host",)


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (classifier_graph(GRU, 3, 4, 2, 0.5), "no spiking layer"),
        (recurrent_graph(LIF, 3, 4, 0.5, reverse=True), "backwards in time"),
    ],
)
def test_what_no_chip_can_hold_is_refused(graph: Graph, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        network(graph)


def test_membranes_between_layers_and_fed_back_are_refused() -> None:
    base = (Input("x", shape=(6,)), dense("a", "x", 9, 6), lif("one", "a", 9))
    with pytest.raises(UnsupportedError, match="layer 'two' reads membranes"):
        network(Graph((*base, dense("b", "one.mem", 5, 9), lif("two", "b", 5)), {"y": "two"}))
    with pytest.raises(UnsupportedError, match=r"node 'bend' \(tanh\) before layer 'two' is no weighted sum"):
        network(Graph((*base, Elementwise("bend", ("one",), fn="tanh"), lif("two", "bend", 9)), {"y": "two"}))
    loop = Recurrent(
        "li", ("one2",), {"beta": np.full(5, 0.9, np.float32), "hh": np.eye(5, dtype=np.float32)}, cell=LI, units=5
    )
    with pytest.raises(UnsupportedError, match="feeds its membranes back"):
        network(Graph((*base, dense("one2", "one", 5, 9), loop), {"y": "li"}))


def test_pynn_lists_hold_every_connection_once(tmp_path: Path) -> None:
    graph = recurrent_graph(LIF, 6, 11, 0.3, seed=4)
    made = export_pynn(graph, tmp_path / "lists")
    told = json.loads((tmp_path / "lists" / "populations.json").read_text())
    assert [p["file"] for p in told["projections"]] == ["connections_0.txt", "connections_1.txt"]
    assert made.paths[0].name == "populations.json"
    for listed, weight in zip(told["projections"], ("ih", "hh"), strict=True):
        text = (tmp_path / "lists" / listed["file"]).read_text()
        assert text.startswith('# columns = ["i", "j", "weight", "delay"]\n')
        rows = np.loadtxt(text.splitlines())
        want = graph.recurrent[0].weight(weight)
        got = np.zeros_like(want)
        got[rows[:, 1].astype(int), rows[:, 0].astype(int)] = rows[:, 2]
        np.testing.assert_array_equal(got, want)
        assert len(rows) == listed["connections"] == np.count_nonzero(want)
        np.testing.assert_allclose(rows[:, 3], 1.0)
    neurons = told["populations"][1]
    np.testing.assert_allclose(neurons["threshold"], graph.recurrent[0].params["threshold"])
    with pytest.raises(UsageError, match="has no dt"):
        export_pynn(replace(graph, dt=None), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_runner_that_fails_says_so(tmp_path: Path) -> None:
    graph = recurrent_graph(LIF, 6, 11, 0.3)
    made = export_brian2(graph, tmp_path / "b")
    x = np.zeros((5, 1, 6))
    with pytest.raises(UsageError, match=r"run_brian2.py ended with code 1: ModuleNotFoundError.*brian2"):
        run_simulator(made, x, python=sys.executable)
    with pytest.raises(UsageError, match="nowhere is not a file"):
        run_simulator(made, x, python=tmp_path / "nowhere")
    with pytest.raises(UsageError, match="one sample"):
        run_simulator(made, np.zeros((5, 2, 6)))
    with pytest.raises(UsageError, match="has no runner"):
        run_simulator(export_pynn(graph, tmp_path / "p"), x)
    with pytest.raises(UsageError, match="gave no spikes of layer 'rnn'"):
        check_simulator(graph, x, {})


def test_the_comparison_can_fail() -> None:
    graph = recurrent_graph(LIF, 6, 11, 0.3, seed=1)
    x = RNG.random((40, 1, 6)) * 3
    spikes = interpret(graph, x, keep_values=True).values["rnn.spk"][:, 0].copy()
    assert check_simulator(graph, x, {"rnn.spk": spikes}).ok
    spikes[20, 3] = 1 - spikes[20, 3]
    assert check_simulator(graph, x, {"rnn.spk": spikes}).spike_mismatches == 1
