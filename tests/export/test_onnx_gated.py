from __future__ import annotations

import itertools

import numpy as np
import pytest
from _onnx_graphs import layer, network, sequence

from sparsecirc.cells import LSTM
from sparsecirc.errors import UnsupportedError
from sparsecirc.ir import Graph, Input, TimeReduce, interpret

onnx = pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")

from sparsecirc.export.onnx import Form, check_onnx, export_onnx, metadata, run_onnx, stream_onnx  # noqa: E402

GATED = ("rnn_tanh", "rnn_relu", "gru", "lstm")
TOLERANCE = 2e-5  # float32 against float64 over a dozen steps


def compare(graph, path, x, tolerance=TOLERANCE):
    want, got = interpret(graph, x).outputs, run_onnx(path, x)
    assert list(got) == list(want)
    for name, value in want.items():
        assert got[name].dtype == np.float32
        np.testing.assert_allclose(got[name], value, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("form", ["op", "scan"])
@pytest.mark.parametrize("cell", GATED)
def test_every_layout_agrees_with_the_interpreter(tmp_path, cell, form):
    cases = itertools.product((1, 17), (1, 2), (False, True), (False, True), (False, True))
    for seed, (units, layers, bidirectional, batch_first, bias) in enumerate(cases):
        rng = np.random.default_rng(seed)
        graph = network(
            rng, cell, units=units, layers=layers, bidirectional=bidirectional, batch_first=batch_first, bias=bias
        )
        path = tmp_path / f"{seed}.onnx"
        done = export_onnx(graph, path, form=form, step=False)
        assert done.form == form
        for steps, batch in ((1, 1), (13, 3), (7, 1)):
            compare(graph, path, sequence(rng, steps, batch, 5, batch_first=batch_first))


@pytest.mark.parametrize("cell", GATED)
@pytest.mark.parametrize("batch_first", [False, True])
def test_step_file_repeats_the_whole_sequence(tmp_path, cell, batch_first):
    rng = np.random.default_rng(3)
    graph = network(rng, cell, layers=2, batch_first=batch_first)
    done = export_onnx(graph, tmp_path / "net.onnx")
    whole, step = done.paths
    assert [p.name for p in done.paths] == ["net.onnx", "net_step.onnx"]
    x = sequence(rng, 11, 3, 5, batch_first=batch_first)
    want = interpret(graph, x)
    got = stream_onnx(step, x, batch_first=batch_first)
    for name in ("y", "seq"):
        np.testing.assert_allclose(got[name], want.outputs[name], rtol=0, atol=TOLERANCE)
    final = got["h_n"][:, -1] if batch_first else got["h_n"][-1]
    np.testing.assert_allclose(final, want.outputs["h_n"], rtol=0, atol=TOLERANCE)
    compare(graph, whole, x)


def test_step_file_takes_the_interpreters_state(tmp_path):
    rng = np.random.default_rng(4)
    graph = network(rng, "lstm")
    step = export_onnx(graph, tmp_path / "net.onnx").paths[1]
    x = sequence(rng, 6, 2, 5)
    before, after = interpret(graph, x[:5]), interpret(graph, x)
    state = {k: before.state[k] for k in ("rnn.l0.h", "rnn.l0.c")}
    got = run_onnx(step, x[5], state)
    np.testing.assert_allclose(got["y"], after.outputs["y"][5], rtol=0, atol=TOLERANCE)
    for key in state:
        np.testing.assert_allclose(got[f"{key}.next"], after.state[key], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("reverse", [False, True])
def test_projected_lstm_falls_back_to_a_scan(tmp_path, reverse):
    rng = np.random.default_rng(5)
    graph = network(rng, "lstm", proj=7, layers=2, bidirectional=reverse)
    done = export_onnx(graph, tmp_path / "net.onnx")
    assert done.form == "scan"
    for steps, batch in ((1, 1), (9, 3)):
        compare(graph, done.paths[0], sequence(rng, steps, batch, 5))
    with pytest.raises(UnsupportedError, match=r"layer 'rnn\.l0'.*no projection; use form 'auto'"):
        export_onnx(graph, tmp_path / "other.onnx", form=Form.OP)
    assert not (tmp_path / "other.onnx").exists()


def cell_state_graph(rng, output, how, reverse):
    node = layer(rng, "rnn.l0", "x", LSTM, 5, 9, reverse=reverse)
    nodes = [Input("x", shape=(5,)), node, TimeReduce("c_n", ("rnn.l0.c",), how=how, feature_shape=(9,))]
    return Graph(tuple(nodes), {"h": "rnn.l0", "c": output})


@pytest.mark.parametrize(
    ("output", "how", "reverse", "form"),
    [
        ("c_n", "last", False, "op"),
        ("c_n", "first", True, "op"),
        ("c_n", "first", False, "scan"),
        ("c_n", "last", True, "scan"),
        ("rnn.l0.c", "last", False, "scan"),
    ],
)
def test_cell_state_uses_the_operator_only_where_it_gives_it(tmp_path, output, how, reverse, form):
    rng = np.random.default_rng(6)
    graph = cell_state_graph(rng, output, how, reverse)
    done = export_onnx(graph, tmp_path / "net.onnx")
    assert done.form == form
    compare(graph, done.paths[0], sequence(rng, 8, 3, 5))


def test_layers_of_both_forms_in_one_file(tmp_path):
    rng = np.random.default_rng(7)
    first = layer(rng, "a", "x", LSTM, 5, 8)
    second = layer(rng, "b", "a", LSTM, 8, 6, proj=4)
    graph = Graph((Input("x", shape=(5,)), first, second), {"y": "b"})
    done = export_onnx(graph, tmp_path / "net.onnx")
    assert done.form == "op+scan"
    assert metadata(done.paths[0])["form"] == "op+scan"
    compare(graph, done.paths[0], sequence(rng, 8, 3, 5))


@pytest.mark.parametrize("recur", ["hh_diag", ""])
def test_elman_without_a_recurrent_matrix(tmp_path, recur):
    rng = np.random.default_rng(8)
    graph = network(rng, "rnn_tanh", recur=recur)
    done = export_onnx(graph, tmp_path / "net.onnx")
    assert done.form == "scan"
    x = sequence(rng, 8, 3, 5)
    compare(graph, done.paths[0], x)
    np.testing.assert_allclose(stream_onnx(done.paths[1], x)["y"], interpret(graph, x).y, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("form", ["op", "scan"])
@pytest.mark.parametrize("opset", [17, 18, 19, 20])
def test_every_opset(tmp_path, form, opset):
    rng = np.random.default_rng(9)
    graph = network(rng, "gru", layers=2)
    done = export_onnx(graph, tmp_path / "net.onnx", form=form, opset=opset)
    model = onnx.load(done.paths[0])
    assert model.opset_import[0].version == opset
    assert model.ir_version == (8 if opset == 17 else 9)
    x = sequence(rng, 8, 3, 5)
    compare(graph, done.paths[0], x)
    assert stream_onnx(done.paths[1], x)["y"].shape == (8, 3, 3)


@pytest.mark.parametrize(("cell", "form"), [("gru", "op"), ("lstm", "op"), ("gru", "scan"), ("rnn_relu", "scan")])
def test_the_reference_evaluator_agrees(tmp_path, cell, form):
    from onnx.reference import ReferenceEvaluator

    rng = np.random.default_rng(10)
    graph = network(rng, cell, batch_first=True)
    done = export_onnx(graph, tmp_path / "net.onnx", form=form)
    x = sequence(rng, 4, 2, 5, batch_first=True)
    got = ReferenceEvaluator(str(done.paths[0])).run(None, {"x": x})
    for value, want in zip(got, interpret(graph, x).outputs.values(), strict=True):
        np.testing.assert_allclose(value, want, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("form", ["op", "scan"])
def test_dead_connections_are_exact_zeros_in_the_file(tmp_path, form):
    rng = np.random.default_rng(11)
    graph = network(rng, "gru", units=64, density=0.1)
    done = export_onnx(graph, tmp_path / "net.onnx", form=form)
    for path in done.paths:
        model = onnx.load(path)
        bodies = [a.g for n in model.graph.node for a in n.attribute if a.type == onnx.AttributeProto.GRAPH]
        constants = [c for g in (model.graph, *bodies) for c in g.initializer]
        arrays = {c.name: onnx.numpy_helper.to_array(c) for c in constants if not c.name.endswith("bias")}
        weights = sorted((m.size, int(np.count_nonzero(m))) for m in arrays.values() if m.ndim > 1)
        assert weights == sorted((v.value.size, v.pattern.nnz) for v in graph.weights())
    assert done.bytes == done.paths[0].stat().st_size == done.bytes_dense
    assert done.bytes_gzip < 0.35 * done.bytes
    assert any("multiply the zeros" in note for note in done.notes)
    x = sequence(rng, 8, 3, 5)
    compare(graph, done.paths[0], x)
    check = check_onnx(graph, done, x)
    assert check.ok
    assert check.spike_mismatches == {}
    assert max(check.max_abs_diff.values()) <= TOLERANCE


def test_the_check_fails_on_another_network(tmp_path):
    graph = network(np.random.default_rng(12), "gru")
    other = network(np.random.default_rng(13), "gru")
    done = export_onnx(graph, tmp_path / "net.onnx")
    x = sequence(np.random.default_rng(14), 8, 3, 5)
    check = check_onnx(other, done.paths[0], x)
    assert not check.ok
    assert not check.to_json()["ok"]
    assert "largest difference" in str(check)
