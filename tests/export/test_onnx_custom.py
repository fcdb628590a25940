"""Neurons, projected LSTMs and sparse products as functions of our domain: with our library and without it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from _onnx_graphs import network, sequence

from sparsecirc.cells import ALIF, CELLS, LI, LIF, LSTM, SYNAPTIC, Options, Reset
from sparsecirc.errors import FileFormatError
from sparsecirc.ir import Graph, Input, Linear, interpret
from sparsecirc.testing import recurrent_graph

onnx = pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")

from sparsecirc.export.onnx import custom_ops, export_onnx, open_session, run_onnx, stream_onnx  # noqa: E402

COMPILER = shutil.which(os.environ.get("CC", "") or "cc") or shutil.which("gcc")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
RESETS = [(Options(reset, delay), name) for reset, name in (
    (Reset.SUBTRACT, "Subtract"), (Reset.ZERO, "Zero"), (Reset.ZERO_UPDATE, "ZeroUpdate"), (Reset.NONE, "NoReset"),
) for delay in (True, False)]  # fmt: skip
SHAPES = ((1, 1), (13, 3), (7, 18))


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """Built once for this session, in a folder that xdist's workers share."""
    return custom_ops(folder=tmp_path_factory.getbasetemp().parent)


def same(graph, path, x, library, lengths=None):
    """Spikes exactly, all else within rounding, with and without the library."""
    want = interpret(graph, x, lengths=lengths).outputs
    for own in (None, library):
        got = run_onnx(path, x, lengths=lengths, library=own)
        assert list(got) == list(want)
        for name, value in want.items():
            if graph.specs[graph.outputs[name]].spikes:
                np.testing.assert_array_equal(got[name], value, err_msg=f"{name}, library {own}")
            atol = 1e-5 * max(1, np.abs(value).max())
            np.testing.assert_allclose(got[name], value, rtol=0, atol=atol, err_msg=f"{name}, library {own}")


def functions(path):
    return [f.name for f in onnx.load(path).functions]


@pytest.mark.parametrize("recurrence", [True, False])
@pytest.mark.parametrize(("options", "name"), RESETS)
@pytest.mark.parametrize("cell", [LIF, SYNAPTIC, ALIF], ids=lambda c: c.name)
def test_every_neuron_and_reset(tmp_path, library, cell, options, name, recurrence):
    graph = recurrent_graph(cell, 12, 40, 0.15, options=options, recurrence=recurrence, seed=len(name))
    now = "Now" if not options.delay and options.reset is not Reset.NONE else ""
    for lengths in (False, True):
        done = export_onnx(graph, tmp_path / "net.onnx", form="custom", lengths=lengths, opset=20 if lengths else 17)
        assert done.form == "custom+packed"
        ending = ("" if recurrence else "Forward") + ("Ragged" if lengths else "")
        assert functions(done.paths[0]) == ["Linear", f"{cell.name.capitalize()}{name}{now}{ending}"]
        onnx.checker.check_model(onnx.load(done.paths[0]), full_check=True)
        for steps, batch in SHAPES:
            valid = np.arange(batch) % (steps + 1) if lengths else None
            x = sequence(np.random.default_rng(steps), steps, batch, 12)
            assert interpret(graph, x).outputs["spk"].any() or steps < 5
            same(graph, done.paths[0], x, library, valid)


@pytest.mark.parametrize("delay", [True, False])
def test_the_adapted_threshold_is_taken_off(tmp_path, library, delay):
    graph = recurrent_graph(ALIF, 12, 40, 0.15, options=Options(Reset.SUBTRACT, delay, adapted=True), seed=1)
    done = export_onnx(graph, tmp_path / "net.onnx", form="custom")
    assert functions(done.paths[0])[1] == ("AlifSubtractAdapted" if delay else "AlifSubtractAdaptedNow")
    for steps, batch in SHAPES:
        same(graph, done.paths[0], sequence(np.random.default_rng(2), steps, batch, 12), library)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [False, True])
def test_integrators_and_projections(tmp_path, library, lengths, reverse):
    projected = recurrent_graph(LSTM, 12, 40, 0.2, projection=17, reverse=reverse)
    graphs = [projected, replace(projected, outputs={"c": "rnn.c"})]
    graphs += [recurrent_graph(LI, 12, 40, 0.2, recurrence=r) for r in (True, False)] * (not reverse)
    for graph in graphs:
        done = export_onnx(graph, tmp_path / "net.onnx", form="custom", lengths=lengths)
        assert done.form == "custom+packed"
        for steps, batch in (*SHAPES, (5, 9)):
            valid = (np.arange(batch) * 3) % (steps + 1) if lengths else None
            same(graph, done.paths[0], sequence(np.random.default_rng(3), steps, batch, 12), library, valid)


@pytest.mark.parametrize("cell", ["lif", "lstm"])
def test_stacks(tmp_path, library, cell):
    rng = np.random.default_rng(4)
    extra = {"proj": 9, "bidirectional": True} if cell == "lstm" else {}
    graph = network(rng, cell, units=40, layers=3, density=0.15, batch_first=True, **extra)
    done = export_onnx(graph, tmp_path / "net.onnx", form="custom")
    assert done.form == "custom+packed"
    names = functions(done.paths[0])
    assert "Linear" in names
    assert ("LinearSpikes" in names) == (cell == "lif")  # layers behind the first read spikes
    for steps, batch in SHAPES:
        same(graph, done.paths[0], sequence(rng, steps, batch, 5, batch_first=True), library)
    if cell == "lif":
        x = sequence(rng, 9, 2, 5, batch_first=True)
        found, want = stream_onnx(done.paths[1], x, batch_first=True), interpret(graph, x).outputs
        np.testing.assert_allclose(found["y"], want["y"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("cell", ["gru", "lif"])
def test_layers_that_fall_apart(tmp_path, library, cell):
    units = 720 if cell == "gru" else 1500
    graph = recurrent_graph(CELLS[cell], 12, units, 1.0)
    layer = graph.recurrent[0]
    owner = np.arange(units) % 3
    apart = layer.params["hh"] * np.tile(owner[:, None] == owner[None, :], (layer.cell.n_gates, 1))
    graph = replace(graph.replace_nodes(layer.with_params(hh=apart)), outputs={"y": "rnn"})
    done = export_onnx(graph, tmp_path / "net.onnx", form="custom", step=False)
    assert any("is written in 3 parts" in n for n in done.notes)
    for steps, batch in ((1, 1), (6, 3)):
        same(graph, done.paths[0], sequence(np.random.default_rng(8), steps, batch, 12), library)


@pytest.mark.parametrize("cell", [LIF, LSTM], ids=lambda c: c.name)
def test_the_reference_evaluator_reads_them(tmp_path, cell):
    from onnx.reference import ReferenceEvaluator

    graph = recurrent_graph(cell, 12, 40, 0.2, projection=17 if cell is LSTM else None)
    done = export_onnx(graph, tmp_path / "net.onnx", form="custom", lengths=True)
    x, valid = sequence(np.random.default_rng(5), 11, 3, 12), np.array([11, 0, 4], np.int32)
    found = ReferenceEvaluator(str(done.paths[0])).run(None, {"x": x, "lengths": valid})
    want = interpret(graph, x, lengths=valid).outputs
    for name, value in zip(graph.outputs, found, strict=True):
        np.testing.assert_allclose(value, want[name], rtol=0, atol=1e-5)


def test_weights_that_are_no_constants_are_packed_at_each_call(tmp_path, library):
    import onnxruntime as ort

    graphs = [recurrent_graph(LIF, 12, 40, 0.1), recurrent_graph(LSTM, 12, 40, 0.1, projection=17)]
    for graph in graphs:
        done = export_onnx(graph, tmp_path / "net.onnx", form="custom", step=False)
        options = ort.SessionOptions()
        options.register_custom_ops_library(str(library))
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(str(done.paths[0]), options, providers=["CPUExecutionProvider"])
        x = sequence(np.random.default_rng(6), 8, 3, 12)
        for got, want in zip(session.run(None, {"x": x}), interpret(graph, x).outputs.values(), strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 3, 64])
@pytest.mark.parametrize("density", [0.0, 0.1])
def test_products_alone(tmp_path, library, rows, density):
    rng = np.random.default_rng(7)
    weight = rng.normal(size=(rows, 50)) * (rng.random((rows, 50)) < density)
    for time in (True, False):
        node = Linear("fc", ("x",), {"weight": weight, "bias": rng.normal(size=rows)})
        graph = Graph((Input("x", shape=(50,), time=time), node), {"y": "fc"})
        done = export_onnx(graph, tmp_path / "net.onnx", consumer="onnxruntime+library", structure=False)
        assert done.form.startswith("custom")
        for batch in (1, 40):
            x = rng.normal(size=(4, batch, 50) if time else (batch, 50)).astype(np.float32)
            same(graph, done.paths[0], x, library)


def test_what_stays_a_scan_and_why(tmp_path):
    cases = {
        "its units are no vector": recurrent_graph(
            LIF, 24, 24, 1.0, input_product=False, recurrence=False, feature_shape=(2, 3, 4)
        ),
        "each of its units feeds back to itself alone": recurrent_graph(LIF, 12, 24, 0.1, one_to_one=True),
        "it runs backwards": recurrent_graph(LIF, 12, 24, 0.1, reverse=True),
        "so that batches run faster without our kernels": recurrent_graph(LIF, 12, 24, 0.5),
    }
    for why, graph in cases.items():
        done = export_onnx(graph, tmp_path / "net.onnx", consumer="onnxruntime+library", step=False)
        assert "scan" in done.form
        assert any(why in n for n in done.notes), done.notes


def test_shapes_that_do_not_fit_are_refused(tmp_path, library):
    done = export_onnx(recurrent_graph(LIF, 12, 24, 1.0), tmp_path / "net.onnx", form="custom", step=False)
    model = onnx.load(done.paths[0])
    (held,) = [i for i in model.graph.initializer if i.name.endswith("vectors")]
    held.CopyFrom(onnx.numpy_helper.from_array(np.ones((2, 25), np.float32), held.name))
    onnx.save(model, tmp_path / "wrong.onnx")
    with pytest.raises(FileFormatError, match=r"sparsecirc\.LifSubtract: R must be \(gates \* units, width\)"):
        open_session(tmp_path / "wrong.onnx", library=library)


@pytest.mark.slow
def test_the_operators_under_sanitizers(tmp_path):
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1")
    asan = subprocess.run([COMPILER, "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    if not Path(asan).is_absolute():
        pytest.skip("the libraries of the sanitizers are missing")
    built = custom_ops(folder=tmp_path, flags=flags)
    paths = []
    for k, graph in enumerate((
        network(np.random.default_rng(0), "lif", units=33, layers=2, density=0.15),
        network(np.random.default_rng(1), "alif", units=17, density=0.15),
        network(np.random.default_rng(2), "synaptic", units=20, density=0.15),
        network(np.random.default_rng(3), "lstm", units=33, density=0.15, proj=7),
        network(np.random.default_rng(4), "gru", units=33, density=0.15),
    )):  # fmt: skip
        for lengths in (False, True):
            paths.append(tmp_path / f"{k}{lengths}.onnx")
            export_onnx(graph, paths[-1], form="custom", lengths=lengths, step=False)
    code = f"""
import numpy as np
from sparsecirc.export.onnx import run_onnx
for path in {[str(p) for p in paths]}:
    for steps, batch in ((1, 1), (5, 3), (4, 18)):
        run_onnx(path, np.random.default_rng(1).normal(size=(steps, batch, 5)), library={str(built)!r})
"""
    env = {**os.environ, "LD_PRELOAD": asan, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
