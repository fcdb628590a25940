"""Recurrent products of neurons by the columns of those that fired: the same spikes at any activity."""

from __future__ import annotations

import numpy as np
import pytest
from _onnx_graphs import network, sequence

from sparsecirc.cells import CELLS, Options, Reset
from sparsecirc.errors import UnsupportedError
from sparsecirc.ir import interpret
from sparsecirc.testing import recurrent_graph

onnx = pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")

from sparsecirc.export.onnx import export_onnx, run_onnx, stream_onnx  # noqa: E402

SPIKING = [c for c in CELLS if CELLS[c].spiking]


def same(graph, found, x, lengths=None):
    for name, value in interpret(graph, x, lengths=lengths).outputs.items():
        if graph.specs[graph.outputs[name]].spikes:
            np.testing.assert_array_equal(found[name], value)
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5 * max(1, np.abs(value).max()))


def ops(graph):
    """Names of operators in a graph and in all its bodies."""
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from ops(attribute.g)


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("scale", [0.0, 0.4, 1.0, 8.0])  # nobody fires, few do, many do, nearly all do
@pytest.mark.parametrize("cell", SPIKING)
def test_any_activity(tmp_path, cell, scale, opset):
    options = Options(Reset.ZERO_UPDATE if cell == "synaptic" else Reset.SUBTRACT)
    graph = recurrent_graph(CELLS[cell], 12, 64, 0.1, options=options, bias=scale > 0)
    done = export_onnx(graph, tmp_path / "net.onnx", form="events", opset=opset)
    assert done.form == "scan+events+packed"
    assert any("gather the weights of those that fired" in n for n in done.notes)
    model = onnx.load(done.paths[0])
    onnx.checker.check_model(model, full_check=True)
    assert {"If", "NonZero", "Gather"} <= set(ops(model.graph))
    rates = []
    for steps, batch in ((1, 1), (23, 1), (9, 4)):
        x = sequence(np.random.default_rng(steps), steps, batch, 12, scale=scale)
        same(graph, run_onnx(done.paths[0], x), x)
        rates.append(interpret(graph, x).outputs["spk"].mean())
    assert (max(rates) > 0.125) == (scale >= 1) or scale == 0.4
    same(graph, stream_onnx(done.paths[1], x), x)


def test_both_branches_run(tmp_path):
    graph = recurrent_graph(CELLS["lif"], 12, 64, 0.1)
    x = np.concatenate([sequence(np.random.default_rng(k), 12, 1, 12, scale=s) for k, s in enumerate((0.0, 9.0, 0.0))])
    fired = interpret(graph, x).outputs["spk"].sum(axis=(1, 2))
    assert np.any(fired < 8)
    assert np.any(fired > 8)
    same(graph, run_onnx(export_onnx(graph, tmp_path / "net.onnx", form="events").paths[0], x), x)


def test_stacks_with_lengths(tmp_path):
    rng = np.random.default_rng(3)
    graph = network(rng, "lif", units=48, layers=2, density=0.2, batch_first=True)
    done = export_onnx(graph, tmp_path / "net.onnx", form="events", lengths=True)
    x, valid = sequence(rng, 9, 3, 5, batch_first=True), [9, 0, 4]
    same(graph, run_onnx(done.paths[0], x, lengths=valid), x, valid)


def test_the_reference_evaluator_reads_them(tmp_path):
    from onnx.reference import ReferenceEvaluator

    graph = recurrent_graph(CELLS["lif"], 12, 64, 0.1)
    done = export_onnx(graph, tmp_path / "net.onnx", form="events")
    x = sequence(np.random.default_rng(4), 15, 2, 12)
    same(graph, dict(zip(graph.outputs, ReferenceEvaluator(str(done.paths[0])).run(None, {"x": x}), strict=True)), x)


def test_gated_layers_are_packed(tmp_path):
    graph = recurrent_graph(CELLS["gru"], 12, 40, 0.1)
    done = export_onnx(graph, tmp_path / "net.onnx", form="events", step=False)
    packed = export_onnx(graph, tmp_path / "packed.onnx", form="packed", step=False)
    assert done.form == "op+packed"
    assert done.paths[0].read_bytes() == packed.paths[0].read_bytes()
    with pytest.raises(UnsupportedError, match="form 'events': openvino refuses packed weights"):
        export_onnx(graph, tmp_path / "net.onnx", form="events", consumer="openvino")
