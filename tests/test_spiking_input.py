"""Values known to be spikes: declared, found in an example, carried through layers and files, used by compile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from native_support import ISAS, packed_program

import sparsecirc as sc
from sparsecirc import Graph, interpret, load_graph, save_graph
from sparsecirc._bench import example_input
from sparsecirc._compile import problems
from sparsecirc._target import Isa
from sparsecirc.cells import CELLS, LIF, LSTM
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.ir import Add, Affine, Concat, Elementwise, Flatten, Input, Linear, Multiply, Pool, Repeat, TimeReduce
from sparsecirc.ir._io import graph_from_parts, graph_to_parts
from sparsecirc.testing import TOLERANCE, recurrent_graph, relative_difference

RNG = np.random.default_rng(3)


def spikes(*shape: int, rate: float = 0.1) -> np.ndarray:
    return (RNG.random(shape) < rate).astype(np.float32)


def test_what_keeps_spikes_and_what_does_not() -> None:
    s, x = Input("s", shape=(2, 4, 6), spiking=True), Input("x", shape=(2, 4, 6))
    nodes = {
        "max pool": (Pool("a", ("s",), how="max"), True),
        "mean pool": (Pool("a", ("s",), how="mean"), False),
        "flatten": (Flatten("a", ("s",), axes=3), True),
        "flatten of numbers": (Flatten("a", ("x",), axes=3), False),
        "concat": (Concat("a", ("s", "s")), True),
        "concat with numbers": (Concat("a", ("s", "x")), False),
        "sum": (Add("a", ("s", "s")), False),
        "sum with numbers first": (Add("a", ("x", "s")), False),
        "product": (Multiply("a", ("s", "s")), True),
        "product with numbers": (Multiply("a", ("s", "x")), False),
        "identity": (Elementwise("a", ("s",), fn="identity"), True),
        "relu": (Elementwise("a", ("s",), fn="relu"), True),
        "tanh": (Elementwise("a", ("s",), fn="tanh"), False),
        "affine": (Affine("a", ("s",), {"scale": np.ones(1)}), False),
        "linear": (Linear("a", ("s",), {"weight": np.ones((3, 6))}), False),
        **{
            how: (TimeReduce("a", ("s",), how=how, feature_shape=(2, 4, 6)), how in ("last", "first", "max"))
            for how in ("last", "first", "mean", "sum", "max")
        },
    }
    for what, (node, keeps) in nodes.items():
        graph = Graph((s, x, node), {"y": "a", "s": "s", "x": "x"})
        assert graph.specs["a"].spikes == keeps, what
        value = interpret(graph, {"s": spikes(5, 2, 2, 4, 6), "x": RNG.standard_normal((5, 2, 2, 4, 6))}).y
        assert not keeps or set(np.unique(value)) <= {0, 1}
    image = Graph((Input("s", shape=(3,), time=False, spiking=True), Repeat("a", ("s",), steps=2)), {"y": "a"})
    assert image.specs["a"].spikes


@pytest.mark.parametrize("cell", CELLS.values(), ids=lambda c: c.name)
def test_spikes_of_neurons(cell) -> None:
    graph = recurrent_graph(cell, 3, 4, 1.0)
    for state in cell.states:
        assert graph.specs[f"rnn.{state}"].spikes == (state == "spk")


def test_compile_tries_events_on_spikes_only() -> None:
    weight = {"weight": RNG.standard_normal((4, 12)).astype(np.float32)}
    lif = recurrent_graph(LIF, 6, 12, 0.5).recurrent[0]
    nodes = (
        Input("x", shape=(6,), spiking=True), lif, Flatten("flat", ("rnn",), axes=1), Linear("fc", ("flat",), weight),
        Linear("of membranes", ("rnn.mem",), weight),
    )  # fmt: skip
    found = {p.weight: p.spikes for p, _ in problems(Graph(nodes, {"y": "fc", "m": "of membranes"}), Isa.SCALAR, True)}
    assert found == {"rnn.ih": True, "rnn.hh": True, "fc.weight": True, "of membranes.weight": False}
    projected = recurrent_graph(LSTM, 6, 12, 0.5, projection=5, spiking_input=True)
    found = {p.weight: p.spikes for p, _ in problems(projected, Isa.SCALAR, True)}
    assert found == {"rnn.ih": True, "rnn.hh": False, "rnn.hr": False}


def test_events_are_refused_where_nothing_says_spikes() -> None:
    graph = recurrent_graph(CELLS["gru"], 30, 16, 0.3)
    with pytest.raises(UnsupportedError, match="the inputs are not spikes"):
        sc.compile(graph, kernel={"*.ih": "columns"})
    program = sc.compile(graph.with_spiking_input(), kernel={"*.ih": "columns"})
    assert program.choices["rnn.ih"].format == "columns"
    x = spikes(40, 2, 30)
    assert sc.verify(program, x).ok
    assert set(np.unique(example_input(program.graph)["x"])) == {0, 1}


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.value)
@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("cell", [CELLS["gru"], LIF, CELLS["li"]], ids=lambda c: c.name)
def test_a_declared_input_may_be_any_number(cell, batch: int, isa: Isa) -> None:
    """Counts, currents, negative numbers: what is declared decides how fast it is, never what comes out."""
    graph = recurrent_graph(cell, 37, 21, 0.3, spiking_input=True)
    program = packed_program(graph, isa, "columns")
    for x in (3 * spikes(20, batch, 37), RNG.standard_normal((20, batch, 37)), -spikes(20, batch, 37)):
        want = interpret(graph, x.astype(np.float32))
        got = program.run(x)
        for name, value in want.outputs.items():
            assert relative_difference(got.outputs[name], value) <= TOLERANCE.outputs
    x = spikes(20, batch, 37)
    x[7, 0, 5] = np.nan
    assert np.array_equal(np.isnan(program.run(x).outputs[cell.states[-1]]).any(axis=-1),
                          np.isnan(interpret(graph, x).outputs[cell.states[-1]]).any(axis=-1))  # fmt: skip


def test_inputs_by_name() -> None:
    nodes = (Input("a", shape=(3,)), Input("b", shape=(3,)), Add("y", ("a", "b")))
    graph = Graph(nodes, {"y": "y"})
    assert [n.spiking for n in graph.with_spiking_input("b").inputs] == [False, True]
    both = graph.with_spiking_input()
    assert [n.spiking for n in both.inputs] == [True, True]
    assert [n.spiking for n in both.with_spiking_input("a", spiking=False).inputs] == [False, True]
    with pytest.raises(UsageError, match=r"input 'c' is not one of the graph's: \['a', 'b'\]"):
        graph.with_spiking_input("c")


# Files and frontends -------------------------------------------------------------------------------------------------


def test_it_is_kept_in_files_and_older_files_load(tmp_path: Path) -> None:
    graph = recurrent_graph(LIF, 5, 9, 0.5, spiking_input=True)
    save_graph(graph, tmp_path / "g.safetensors")
    assert load_graph(tmp_path / "g.safetensors").inputs[0].spiking
    sc.compile(graph, kernel="csr").save(tmp_path / "p.safetensors")
    assert sc.Program.load(tmp_path / "p.safetensors").graph.inputs[0].spiking
    header, arrays = graph_to_parts(graph)
    assert header["nodes"][0]["attrs"].pop("spiking") is True
    assert not graph_from_parts(header, arrays, "old").inputs[0].spiking
    plain, _ = graph_to_parts(graph.with_spiking_input(spiking=False))
    assert set(plain["nodes"][0]["attrs"]) == {"shape", "time"}  # as earlier versions wrote it


def test_nir_files_carry_it(tmp_path: Path) -> None:
    pytest.importorskip("nir", reason="needs the package nir")
    graph = sc.Graph((Input("x", shape=(5,), spiking=True), recurrent_graph(LIF, 5, 9, 0.5).recurrent[0]), {"y": "rnn"})
    sc.export_nir(graph, tmp_path / "g.nir")
    assert sc.from_nir(tmp_path / "g.nir").inputs[0].spiking
    sc.export_nir(graph.with_spiking_input(spiking=False), tmp_path / "h.nir")
    assert not sc.from_nir(tmp_path / "h.nir").inputs[0].spiking


def test_an_example_of_spikes_says_so() -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    snn = pytest.importorskip("snntorch", reason="needs snntorch")
    net = torch.nn.Sequential(torch.nn.Linear(6, 4), snn.Leaky(beta=0.9, init_hidden=True))
    some = torch.zeros(5, 2, 6)
    some[1, 0, 3] = 1
    assert sc.to_graph(net, example=some).inputs[0].spiking
    for example in (torch.zeros(5, 2, 6), torch.ones(5, 2, 6), 2 * some, torch.rand(5, 2, 6), None):
        assert not sc.to_graph(net, example=example).inputs[0].spiking
    assert not sc.from_snntorch(net, example=some, spiking_input=False).inputs[0].spiking
    assert sc.from_snntorch(net, spiking_input=True).inputs[0].spiking
    gru = torch.nn.GRU(6, 4)
    assert not sc.to_graph(gru, example=some).inputs[0].spiking
    assert sc.to_graph(gru, example=some, spiking_input=True).inputs[0].spiking
