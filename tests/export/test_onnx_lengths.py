"""Valid steps per sample as an input of the file: the interpreter's results for every cell, form and reduction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from _onnx_graphs import network, sequence

from sparsecirc.cells import CELLS, LIF
from sparsecirc.errors import UsageError
from sparsecirc.ir import Conv, Graph, Input, TimeReduce, interpret
from sparsecirc.testing import recurrent_graph

onnx = pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")

from sparsecirc.export.onnx import check_onnx, export_onnx, metadata, run_onnx  # noqa: E402

HOW = ("last", "first", "mean", "sum", "max")
LENGTHS = ([9, 4, 0], [1, 9, 5], [0, 0, 0], [9, 9, 9])


def same(graph: Graph, path, x, lengths) -> None:
    want = interpret(graph, x, lengths=lengths).outputs
    got = run_onnx(path, x, lengths=lengths)
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name].shape == value.shape, name
        np.testing.assert_allclose(got[name], value, rtol=0, atol=2e-5 * max(1, np.abs(value).max()), err_msg=name)


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS.values(), ids=lambda c: c.name)
def test_every_cell_and_reduction(tmp_path, cell, reverse, opset):
    base = recurrent_graph(cell, 5, 7, 1.0, reverse=reverse, seed=2)
    reductions = [TimeReduce(how, ("rnn",), how=how, feature_shape=(7,)) for how in HOW]
    graph = replace(base, nodes=(*base.nodes, *reductions), outputs={"y": "rnn", **{h: h for h in HOW}})
    done = export_onnx(graph, tmp_path / "net.onnx", lengths=True, opset=opset)
    assert done.form == ("scan" if cell.vectors or cell.name == "rnn_relu" else "op")
    x = sequence(np.random.default_rng(1), 9, 3, 5)
    for lengths in LENGTHS:
        same(graph, done.paths[0], x, lengths)
    np.testing.assert_array_equal(run_onnx(done.paths[0], x)["y"], run_onnx(done.paths[0], x, lengths=[9, 9, 9])["y"])
    assert metadata(done.paths[0])["lengths"] == "lengths"
    assert check_onnx(graph, done, x, lengths=[9, 4, 0]).ok
    if not reverse:
        assert metadata(done.paths[1])["lengths"] is None


@pytest.mark.parametrize("form", ["op", "scan"])
@pytest.mark.parametrize("cell", ["rnn_tanh", "gru", "lstm"])
def test_stacked_bidirectional_networks_batch_first(tmp_path, cell, form):
    rng = np.random.default_rng(3)
    graph = network(rng, cell, layers=2, bidirectional=True, batch_first=True, bias=cell != "gru")
    done = export_onnx(graph, tmp_path / "net.onnx", lengths=True, form=form)
    assert done.form == form
    x = sequence(rng, 9, 3, 5, batch_first=True)
    for lengths in LENGTHS:
        same(graph, done.paths[0], x, lengths)


def test_the_last_cell_state_of_each_sample(tmp_path):
    base = recurrent_graph(CELLS["lstm"], 5, 7, 1.0)
    last = TimeReduce("c_n", ("rnn.c",), how="last", feature_shape=(7,))
    graph = replace(base, nodes=(*base.nodes, last), outputs={"c_n": "c_n", "h": "rnn"})
    done = export_onnx(graph, tmp_path / "net.onnx", lengths=True)
    assert done.form == "op"
    same(graph, done.paths[0], sequence(np.random.default_rng(4), 9, 3, 5), [9, 3, 0])


def test_images_of_neurons_and_a_shorter_time_axis(tmp_path):
    shape = {"input_product": False, "recurrence": False, "bias": False, "feature_shape": (2, 3, 4)}
    base = recurrent_graph(LIF, 24, 24, 1.0, **shape)
    peak = TimeReduce("peak", ("rnn.mem",), how="max", feature_shape=(2, 3, 4))
    graph = replace(base, nodes=(*base.nodes, peak), outputs={"spk": "rnn", "mem": "rnn.mem", "peak": "peak"})
    done = export_onnx(graph, tmp_path / "net.onnx", lengths=True)
    rng = np.random.default_rng(5)
    same(graph, done.paths[0], sequence(rng, 9, 3, 2, 3, 4), [9, 5, 0])
    over = Conv("conv", ("x",), {"weight": rng.normal(0, 0.5, (5, 5, 3))}, over_time=True)
    layer = replace(recurrent_graph(CELLS["gru"], 5, 7, 1.0).recurrent[0], inputs=("conv",))
    mean = TimeReduce("mean", ("rnn",), how="mean", feature_shape=(7,))
    graph = Graph((Input("x", shape=(5,)), over, layer, mean), {"h": "rnn", "mean": "mean"})
    done = export_onnx(graph, tmp_path / "conv.onnx", lengths=True)
    same(graph, done.paths[0], sequence(rng, 9, 3, 5), [7, 3, 0])


def test_what_is_refused(tmp_path):
    graph = recurrent_graph(CELLS["gru"], 5, 7, 1.0)
    x = sequence(np.random.default_rng(6), 9, 3, 5)
    plain = export_onnx(graph, tmp_path / "plain.onnx").paths[0]
    assert metadata(plain)["lengths"] is None
    with pytest.raises(UsageError, match="the file takes no lengths: export it with lengths=True"):
        run_onnx(plain, x, lengths=[9, 4, 0])
    ragged = export_onnx(graph, tmp_path / "ragged.onnx", lengths=True).paths[0]
    for bad in ([9, 4], [10, 4, 0], [-1, 4, 0], [9.0, 4.0, 0.0], 9):
        with pytest.raises(UsageError, match="expected 3 whole numbers from 0 to 9"):
            run_onnx(ragged, x, lengths=bad)
    np.testing.assert_array_equal(
        run_onnx(ragged, {"x": x, "lengths": [9, 4, 0]})["h"], run_onnx(ragged, x, lengths=[9, 4, 0])["h"]
    )
    with pytest.raises(UsageError, match="an input or output called 'lengths' already"):
        export_onnx(replace(graph, outputs={"lengths": "rnn"}), tmp_path / "a.onnx", lengths=True)
    static = Graph((Input("x", shape=(5,), time=False),), {"y": "x"})
    with pytest.raises(UsageError, match="no sequence input whose valid steps could be given"):
        export_onnx(static, tmp_path / "a.onnx", lengths=True)
    assert not (tmp_path / "a.onnx").exists()
