"""What form ``auto`` chooses for whom, that the notes say why, and that all of it computes the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from _onnx_graphs import network, sequence

from sparsecirc.cells import CELLS
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.ir import Graph, Input, ResetFirstGru, interpret
from sparsecirc.testing import recurrent_graph

onnx = pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")

from sparsecirc.export.onnx import Consumer, Form, export_onnx, metadata, run_onnx, stream_onnx  # noqa: E402
from sparsecirc.export.onnx._form import CUSTOM_UP_TO  # noqa: E402


def layer(cell, density, seed=0):
    return recurrent_graph(CELLS[cell], 12, 40, density, seed=seed)


@pytest.mark.parametrize("consumer", Consumer)
@pytest.mark.parametrize("cell", CELLS)
def test_every_choice_computes_the_network(tmp_path, cell, consumer):
    graph = layer(cell, 0.1)
    done = export_onnx(graph, tmp_path / "net.onnx", consumer=consumer)
    onnx.checker.check_model(onnx.load(done.paths[0]), full_check=True)
    x = sequence(np.random.default_rng(1), 11, 3, 12)
    want = interpret(graph, x).outputs
    for found in (run_onnx(done.paths[0], x), stream_onnx(done.paths[1], x)):
        for name, value in want.items():
            np.testing.assert_allclose(found[name], value, rtol=0, atol=2e-5 * max(1, np.abs(value).max()))
    assert metadata(done.paths[0])["form"] == done.form
    (why,) = [n for n in done.notes if n.startswith(f"form auto for consumer {consumer.value}: ")]
    assert "'rnn'" in why


@pytest.mark.parametrize(
    ("cell", "consumer", "form"),
    [
        ("gru", Consumer.ANY, "op"),
        ("gru", Consumer.OPENVINO, "op"),
        ("gru", Consumer.ONNXRUNTIME, "op+packed"),
        ("gru", Consumer.TRACT, "op+packed"),
        ("gru", Consumer.LIBRARY, "custom+packed"),
        ("rnn_relu", Consumer.ANY, "scan+packed"),  # tract runs its operator with tanh
        ("rnn_relu", Consumer.ONNXRUNTIME, "op+packed"),
        ("lif", Consumer.ANY, "scan+packed"),
        ("lif", Consumer.OPENVINO, "scan+packed"),
        ("li", Consumer.TRACT, "scan+packed"),
    ],
)
def test_what_is_chosen(tmp_path, cell, consumer, form):
    assert export_onnx(layer(cell, 0.1), tmp_path / "net.onnx", consumer=consumer, step=False).form == form


def test_dense_networks_stay_as_they_are(tmp_path):
    plain = export_onnx(layer("gru", 1.0), tmp_path / "plain.onnx", form="op", step=False)
    for consumer in Consumer:
        done = export_onnx(layer("gru", 1.0), tmp_path / "net.onnx", consumer=consumer, step=False)
        assert done.form == "op"
        assert done.paths[0].read_bytes() == plain.paths[0].read_bytes()


@pytest.mark.parametrize(("more", "form"), [(-0.02, "custom"), (0.02, "op")])
def test_our_kernels_are_chosen_up_to_a_density(tmp_path, more, form):
    graph = replace(layer("lstm", CUSTOM_UP_TO + more), outputs={"y": "rnn"})
    done = export_onnx(graph, tmp_path / "net.onnx", consumer="onnxruntime+library", step=False)
    assert done.form.split("+")[0] == form
    assert any(f"{CUSTOM_UP_TO + more:.0%} of its recurrent weights are alive" in n for n in done.notes)


def test_layers_choose_one_by_one(tmp_path):
    rng = np.random.default_rng(2)
    graph = network(rng, "gru", units=40, layers=2, density=0.1)
    second = graph.node("rnn.l1")
    graph = graph.replace_nodes(
        replace(second, params={**second.params, "hh": rng.normal(0, 0.1, (120, 40))}, patterns={})
    )
    done = export_onnx(graph, tmp_path / "net.onnx", consumer=Consumer.LIBRARY)
    assert done.form == "custom+op+packed"
    assert sum(n.startswith("form auto") for n in done.notes) == 2


def test_the_notes_tell_what_this_reader_does(tmp_path):
    said = {c: "\n".join(export_onnx(layer("gru", 0.1), tmp_path / "net.onnx", consumer=c).notes) for c in Consumer}
    assert "as fast as the dense network" in said[Consumer.ANY]
    assert "as fast as the dense network" in said[Consumer.OPENVINO]
    assert "onnxruntime unpacks the weights on loading" in said[Consumer.ONNXRUNTIME]
    assert "smaller file, same speed" in said[Consumer.TRACT]
    assert "runs our sparse kernels where the library" in said[Consumer.LIBRARY]
    assert "same speed" not in said[Consumer.LIBRARY]


def test_a_reset_before_the_product(tmp_path):
    rng = np.random.default_rng(6)
    params = {"ih": rng.normal(size=(96, 9)), "hh": rng.normal(size=(96, 32)) * (rng.random((96, 32)) < 0.1)}
    graph = Graph((Input("x", shape=(9,)), ResetFirstGru("gru", ("x",), params, units=32)), {"y": "gru"})
    assert export_onnx(graph, tmp_path / "net.onnx").form == "op"
    done = export_onnx(graph, tmp_path / "net.onnx", consumer=Consumer.ONNXRUNTIME)
    assert done.form == "op+packed"
    x = sequence(rng, 7, 2, 9)
    np.testing.assert_allclose(run_onnx(done.paths[0], x)["y"], interpret(graph, x).y, rtol=0, atol=1e-5)


def test_what_is_refused(tmp_path):
    graph = layer("gru", 0.1)
    with pytest.raises(UsageError, match="ONNX consumer 'tensorrt' is unknown: expected one of any, onnxruntime"):
        export_onnx(graph, tmp_path / "net.onnx", consumer="tensorrt")
    for consumer in ("openvino", "tract"):
        with pytest.raises(UsageError, match=f"{consumer} knows no functions"):
            export_onnx(graph, tmp_path / "net.onnx", form=Form.CUSTOM, consumer=consumer)
    with pytest.raises(UnsupportedError, match=r"layer 'rnn' .* form 'packed': openvino refuses packed weights"):
        export_onnx(graph, tmp_path / "net.onnx", form=Form.PACKED, consumer="openvino")
    with pytest.raises(UsageError, match="tract knows no branches in a Scan"):
        export_onnx(graph, tmp_path / "net.onnx", form=Form.EVENTS, consumer="tract")
    for form in ("op", "packed"):
        with pytest.raises(
            UnsupportedError, match=f"layer 'rnn' .* form '{form}': tract 0.23 runs ONNX's RNN with tanh"
        ):
            export_onnx(layer("rnn_relu", 0.1), tmp_path / "net.onnx", form=form, consumer="tract")
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_a_compiler_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    done = export_onnx(layer("gru", 0.1), tmp_path / "net.onnx", consumer=Consumer.LIBRARY)
    assert any(n.startswith("the library cannot be built on this machine: ") for n in done.notes)
