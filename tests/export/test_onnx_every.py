"""Every cell in every form, opset and layout: at lengths no exporter saw, at one step, at several samples, streamed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from _onnx_graphs import network, sequence

from sparsecirc.cells import CELLS
from sparsecirc.errors import UnsupportedError
from sparsecirc.ir import Conv, Elementwise, Embedding, Flatten, Graph, Input, Linear, TimeReduce, interpret
from sparsecirc.testing import recurrent_graph

onnx = pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")

from sparsecirc.export.onnx import Form, export_onnx, metadata, run_onnx, stream_onnx  # noqa: E402

SHAPES = ((1, 1), (1, 4), (2, 1), (23, 3))
CASES = [(c, f) for c in CELLS for f in Form if f is not Form.OP or not CELLS[c].vectors]


def same(graph, found, want):
    assert list(found)[: len(want)] == list(want)
    for name, value in want.items():
        assert found[name].shape == value.shape, name
        if graph.specs[graph.outputs[name]].spikes:
            np.testing.assert_array_equal(found[name], value, err_msg=name)
        np.testing.assert_allclose(found[name], value, rtol=0, atol=2e-5 * max(1, np.abs(value).max()), err_msg=name)


def symbols(path):
    """Dimensions of inputs and outputs, by name."""
    graph = onnx.load(path).graph
    return {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*graph.input, *graph.output)
    }


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize(("cell", "form"), CASES)
def test_every_cell_in_every_form(tmp_path, cell, form, opset, lengths):
    rng = np.random.default_rng(opset)
    graph = network(rng, cell, units=24, layers=2, density=0.15, batch_first=lengths)
    done = export_onnx(graph, tmp_path / "net.onnx", form=form, opset=opset, lengths=lengths)
    for path in done.paths:
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert {o.domain: o.version for o in model.opset_import}[""] == opset
    dims = symbols(done.paths[0])
    free = ["B", "T"] if lengths else ["T", "B"]
    assert [dims["x"], dims["y"], dims["h_n"]] == [[*free, 5], [*free, 3], ["B", 24]]
    assert symbols(done.paths[1])["y"] == ["B", 3]
    for steps, batch in SHAPES:
        x = sequence(rng, steps, batch, 5, batch_first=lengths)
        valid = rng.integers(0, steps + 1, batch) if lengths else None
        same(graph, run_onnx(done.paths[0], x, lengths=valid), interpret(graph, x, lengths=valid).outputs)
        streamed = stream_onnx(done.paths[1], x, batch_first=lengths)
        want = interpret(graph, x).outputs
        same(graph, {"y": streamed["y"], "seq": streamed["seq"]}, {"y": want["y"], "seq": want["seq"]})
    assert metadata(done.paths[1])["form"] == "step"


@pytest.mark.parametrize("form", [f for f in Form if f is not Form.OP])
@pytest.mark.parametrize("opset", [17, 20])
def test_projected_lstms_in_both_directions(tmp_path, form, opset):
    rng = np.random.default_rng(1)
    graph = network(rng, "lstm", units=24, layers=2, bidirectional=True, proj=9, density=0.15)
    done = export_onnx(graph, tmp_path / "net.onnx", form=form, opset=opset)
    assert len(done.paths) == 1  # it needs the whole sequence
    for steps, batch in SHAPES:
        x = sequence(rng, steps, batch, 5)
        same(graph, run_onnx(done.paths[0], x), interpret(graph, x).outputs)


@pytest.mark.parametrize("form", [f for f in Form if f is not Form.OP])
@pytest.mark.parametrize("cell", ["gru", "lif"])
def test_front_ends(tmp_path, cell, form):
    rng = np.random.default_rng(2)
    recurrent = replace(recurrent_graph(CELLS[cell], 24, 30, 0.15).recurrent[0], inputs=("flat",))
    images = Graph(
        (
            Input("x", shape=(1, 6, 6)),
            Conv(
                "conv",
                ("x",),
                {"weight": rng.normal(0, 0.5, (6, 1, 3, 3))},
                stride=(2, 2),
                padding=(0, 0),
                dilation=(1, 1),
            ),
            Elementwise("act", ("conv",), fn="relu"),
            Flatten("flat", ("act",), axes=3),
            recurrent,
            TimeReduce("sum", ("rnn",), how="sum", feature_shape=(30,)),
        ),
        {"y": "sum", "seq": "rnn"},
        dt=1e-3 if cell == "lif" else None,
    )
    words = Graph(
        (
            Input("x", shape=()),
            Embedding("flat", ("x",), {"weight": rng.normal(0, 1, (40, 24)) * (rng.random((40, 24)) < 0.1)}),
            recurrent,
            Linear("fc", ("rnn",), {"weight": rng.normal(0, 1, (5, 30)) * (rng.random((5, 30)) < 0.1)}),
        ),
        {"y": "fc"},
        dt=1e-3 if cell == "lif" else None,
    )
    for graph in (images, words):
        done = export_onnx(graph, tmp_path / "net.onnx", form=form)
        for steps, batch in SHAPES:
            x = rng.integers(0, 40, (steps, batch)) if graph is words else sequence(rng, steps, batch, 1, 6, 6)
            want = interpret(graph, x).outputs
            same(graph, run_onnx(done.paths[0], x), want)
            streamed = stream_onnx(done.paths[1], x)
            last = streamed["y"] if graph is words else streamed["y"][-1]
            np.testing.assert_allclose(last, want["y"], rtol=0, atol=2e-5 * max(1, np.abs(want["y"]).max()))


@pytest.mark.parametrize("cell", [c for c in CELLS if CELLS[c].vectors])
def test_neurons_are_refused_as_operators(tmp_path, cell):
    with pytest.raises(UnsupportedError, match="use form 'auto' or 'scan'"):
        export_onnx(recurrent_graph(CELLS[cell], 5, 7, 1.0), tmp_path / "net.onnx", form=Form.OP)
    assert list(tmp_path.iterdir()) == []
