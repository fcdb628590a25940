"""Layers around the spiking ones: what NIR holds, what is left to the reader, and what is refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsecirc.cells import GRU, LIF, LSTM, Options, Reset
from sparsecirc.errors import UnsupportedError
from sparsecirc.ir import (
    Add,
    Affine,
    Concat,
    Conv,
    Elementwise,
    Flatten,
    Graph,
    Input,
    Linear,
    Node,
    Pool,
    Recurrent,
    Repeat,
    TimeReduce,
    interpret,
)

nir = pytest.importorskip("nir", reason="the package 'nir' is not installed")

from sparsecirc.export.nir import euler, export_nir  # noqa: E402
from sparsecirc.frontends._nir import from_nir  # noqa: E402

RNG = np.random.default_rng(0)
X = np.concatenate([RNG.random((40, 2, 4)) < 0.4, RNG.standard_normal((40, 2, 4))], axis=1).astype(float)


def network(*nodes: Node, shape: tuple[int, ...] = (4,)) -> Graph:
    return Graph((Input("x", shape=shape), *nodes), {"y": nodes[-1].name})


def neuron(name: str, source: str, shape: tuple[int, ...]) -> Recurrent:
    params = {"beta": np.full(shape, 0.5, np.float32), "threshold": np.full(shape, 0.5, np.float32)}
    inner = () if len(shape) == 1 else shape
    size = int(np.prod(shape))
    return Recurrent(name, (source,), params, cell=LIF, units=size, options=Options(Reset.ZERO), feature_shape=inner)


def test_a_convolutional_network(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    f = lambda *s: rng.standard_normal(s).astype(np.float32)  # noqa: E731
    conv = Conv("conv", ("x",), {"weight": f(4, 1, 3, 3)}, stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=2)
    norm = Affine("bn", ("conv",), {"scale": f(4, 1, 1), "shift": f(4, 1, 1)})
    graph = network(
        conv,
        norm,
        neuron("lif1", "bn", (4, 6, 6)),
        Pool("pool", ("lif1",), how="avg", kernel=(2, 2), stride=(2, 2)),
        Flatten("flat", ("pool",), axes=3),
        Linear("fc", ("flat",), {"weight": f(5, 36), "bias": f(5)}),
        neuron("lif2", "fc", (5,)),
        shape=(2, 6, 6),
    )
    made = export_nir(graph, tmp_path / "a.nir")
    assert made.form == "dialect"
    assert any("flatten starts at axis 0" in n for n in made.notes)
    read = nir.read(tmp_path / "a.nir")  # with nir's own check of shapes
    x = rng.standard_normal((20, 2, 2, 6, 6))
    want = interpret(graph, x, keep_values=True)
    assert want.values["lif1"].sum() > 500
    assert want.y.sum() > 20
    np.testing.assert_array_equal(next(iter(euler(read, x).outputs.values())), want.y)
    np.testing.assert_array_equal(interpret(from_nir(read), x).y, want.y)


def test_scale_shift_sum_and_identity(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    f = lambda *s: rng.standard_normal(s).astype(np.float32)  # noqa: E731
    graph = network(
        Affine("norm", ("x",), {"scale": f(4), "shift": f(1)}),
        Elementwise("drop", ("norm",), fn="identity"),
        Linear("fc", ("drop",), {"weight": f(4, 4)}),
        Add("add", ("fc", "drop")),
        neuron("lif", "add", (4,)),
    )
    export_nir(graph, tmp_path / "a.nir")
    want = interpret(graph, X).y
    np.testing.assert_array_equal(interpret(from_nir(tmp_path / "a.nir"), X).y, want)
    names = list(nir.read(tmp_path / "a.nir").nodes)
    assert names == sorted(names)


def test_direct_coding_is_left_to_the_reader(tmp_path: Path) -> None:
    image = Input("img", shape=(4,), time=False)
    graph = Graph((image, Repeat("rep", ("img",), steps=9), neuron("l", "rep", (4,))), {"y": "l"})
    made = export_nir(graph, tmp_path / "a.nir")
    assert any("at each of 9 steps" in n for n in made.notes)
    x = RNG.standard_normal((3, 4))
    got = interpret(from_nir(tmp_path / "a.nir"), np.broadcast_to(x, (9, 3, 4))).y
    np.testing.assert_array_equal(got, interpret(graph, x).y)


def recurrent(cell: Any, gates: int, **more: Any) -> Recurrent:
    weights = {"ih": np.zeros((4 * gates, 4), np.float32), "hh": np.zeros((4 * gates, 4), np.float32)}
    return Recurrent("rnn.l0", ("x",), weights, cell=cell, units=4, **more)


BAD_BETA = neuron("lif", "x", (4,))


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (network(recurrent(GRU, 3)), r"layer 'rnn.l0' is a gru.*ONNX or C"),
        (network(recurrent(LSTM, 4)), r"layer 'rnn.l0' is a lstm.*ONNX or C"),
        (network(replace(BAD_BETA, reverse=True)), r"'lif' runs backwards"),
        (network(BAD_BETA.with_params(threshold=np.full(4, -1.0))), r"'lif' has a negative threshold"),
        (network(BAD_BETA.with_params(beta=np.full(4, 1.5))), r"'lif' has beta from 1.5 to 1.5"),
        (network(BAD_BETA.with_params(beta=np.array([1, 0.5, 1, 1]))), r"'lif' has beta = 1 in some units"),
        (network(Elementwise("act", ("x",), fn="relu")), r"'act' \(relu\) has no primitive"),
        (network(Concat("cat", ("x", "x"))), r"'cat' \(concat\) has no primitive"),
        (network(Add("sum", ("x", "x"))), r"adds .* to itself"),
        (network(Pool("p", ("x",), how="max"), shape=(1, 4, 4)), r"'p' is a max"),
        (network(Pool("p", ("x",), how="avg", kernel=(2,), stride=(2,)), shape=(1, 4)), r"'p' is a avg over 1 axes"),
        (network(Linear("fc", ("x",), {"weight": np.eye(4)}), shape=(2, 4)), r"'fc' works along the last of 2 axes"),
        (network(Conv("c", ("x",), {"weight": np.ones((2, 4, 3))}, over_time=True)), r"'c' runs over time"),
        (
            network(
                Conv("c", ("x",), {"weight": np.ones((2, 1, 3, 2))}, stride=(1, 1), padding=(0, 0), dilation=(1, 1)),
                shape=(1, 6, 6),
            ),
            r"'c' has the kernel \(3, 2\)",
        ),
        (network(Affine("n", ("x",), {"shift": np.ones((2, 4))}), shape=(2, 4)), r"'n' shifts features"),
        (
            network(
                TimeReduce("top", ("x",), how="max", feature_shape=(4,)), Linear("fc", ("top",), {"weight": np.eye(4)})
            ),
            r"'fc' \(linear\) works once per sequence",
        ),
        (
            Graph((Input("x", shape=(4,)), Input("u", shape=(4,)), Add("s", ("x", "u"))), {"y": "s"}),
            r"has 2 inputs \(x, u\)",
        ),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_nir_cannot_say_is_refused_by_name(graph: Graph, words: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=words) as caught:
        export_nir(graph, tmp_path / "a.nir", allow_approximate=True)
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("delay", [True, False])
def test_images_are_reset_by_subtraction_too(delay: bool, tmp_path: Path) -> None:
    node = replace(neuron("lif", "x", (1, 4, 4)), options=Options(Reset.SUBTRACT, delay))
    graph = network(node, shape=(1, 4, 4))
    assert export_nir(graph, tmp_path / "a.nir").form == "subtract"
    x = RNG.standard_normal((40, 2, 1, 4, 4))
    want = interpret(graph, x).y
    assert want.sum() > 100
    back = from_nir(tmp_path / "a.nir")
    assert back.recurrent[0].options == node.options
    np.testing.assert_array_equal(interpret(back, x).y, want)


def test_recurrent_images_are_refused(tmp_path: Path) -> None:
    node = neuron("lif", "x", (1, 4, 4)).with_params(hh_diag=np.ones(16, np.float32))
    with pytest.raises(UnsupportedError, match=r"'lif' of shape \(1, 4, 4\) has a recurrent weight"):
        export_nir(network(node, shape=(1, 4, 4)), tmp_path / "a.nir")


@pytest.mark.parametrize("how", ["last", "first", "mean"])
@pytest.mark.parametrize("chain", [1, 2])
def test_sums_behind_a_reduction_go_before_it(how: str, chain: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sums = [
        Linear(
            "fc", ("r",), {"weight": rng.standard_normal((3, 4)).astype(np.float32), "bias": np.ones(3, np.float32)}
        ),
        Affine("scale", ("fc",), {"scale": np.array([2, -1, 0.5]), "shift": np.ones(3)}),
    ][:chain]
    graph = network(TimeReduce("r", ("x",), how=how, feature_shape=(4,)), *sums)
    made = export_nir(graph, tmp_path / "net.nir")
    assert any("is written before" in note for note in made.notes)
    x = rng.standard_normal((7, 3, 4)).astype(np.float32)
    (each,) = interpret(from_nir(tmp_path / "net.nir"), x).outputs.values()
    (want,) = interpret(graph, x).outputs.values()
    got = {"last": each[-1], "first": each[0], "mean": each.mean(axis=0)}[how]
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_a_reduction_that_others_read_stays(tmp_path: Path) -> None:
    fc = Linear("fc", ("r",), {"weight": np.eye(4, dtype=np.float32)})
    graph = network(TimeReduce("r", ("x",), how="last", feature_shape=(4,)), fc)
    both = replace(graph, outputs={"y": "fc", "last": "r"})
    with pytest.raises(UnsupportedError, match=r"'fc' \(linear\) works once per sequence"):
        export_nir(both, tmp_path / "net.nir")
