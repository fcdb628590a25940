"""Weights as live entries, and functions of our domain: the same numbers everywhere, with and without our library."""

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

from sparsecirc.cells import CELLS
from sparsecirc.errors import FileFormatError, MissingExtraError, SparsecircError
from sparsecirc.ir import Embedding, Graph, Input, TimeReduce, interpret
from sparsecirc.testing import recurrent_graph

onnx = pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")

from sparsecirc.export.onnx import (  # noqa: E402
    check_onnx,
    custom_ops,
    export_onnx,
    metadata,
    open_session,
    round_int8,
    run_onnx,
    stream_onnx,
)
from sparsecirc.export.onnx._library import kernel_sources, parts  # noqa: E402
from sparsecirc.export.onnx._packed import encode  # noqa: E402

GATED = ("rnn_tanh", "rnn_relu", "gru", "lstm")
COMPILER = shutil.which(os.environ.get("CC", "") or "cc") or shutil.which("gcc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """Built once for this session, in a folder that xdist's workers share."""
    return custom_ops(folder=tmp_path_factory.getbasetemp().parent)


def close(got, want, tolerance=2e-5):
    assert list(got) == list(want)
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=0, atol=tolerance * max(1, np.abs(value).max()), err_msg=name)


# Codes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "density"), [((64, 100), 0.1), ((3, 3000), 0.002), ((40, 40), 0.0), ((1, 5000), 0.0002), ((50, 60), 0.45)]
)
@pytest.mark.parametrize("whole", [False, True])
def test_a_code_gives_the_matrix_back(shape, density, whole):
    rng = np.random.default_rng(0)
    weight = np.where(rng.random(shape) < density, rng.normal(size=shape), 0).astype(np.float32)
    weight[-1, -1] = 1.5
    if whole:
        graph = Graph((Input("x", (), shape=()), Embedding("e", ("x",), {"weight": weight})), {"y": "e"})
        weight = round_int8(graph)[0].node("e").params["weight"]
    code = encode(weight)
    assert code is not None
    assert code.values.dtype == np.int8 or not whole
    out = np.zeros(weight.size, np.float32)
    out[np.cumsum(code.gaps, dtype=np.int64)] = code.values
    out = out.reshape(shape)
    np.testing.assert_array_equal(out if code.scale is None else out * code.scale, weight)


def test_what_does_not_shrink_is_stored_as_it_is():
    assert encode(np.random.default_rng(0).normal(size=(40, 40))) is None
    assert encode(np.zeros((3, 3))) is None


def test_rounding_to_bytes_says_how_far_it_moves():
    graph = network(np.random.default_rng(1), "gru", density=0.2)
    small, moved = round_int8(graph)
    assert 0 < moved < 0.5 / 127 + 1e-4
    for before, after in zip(graph.weights(), small.weights(), strict=True):
        top = np.abs(before.value).max(axis=1, keepdims=True)
        assert np.abs(before.value - after.value).max() <= moved * top.max() * (1 + 1e-6)
        np.testing.assert_array_equal(after.value == 0, (before.value == 0) | (after.value == 0))
    again, nothing = round_int8(small)
    assert nothing == 0
    for a, b in zip(small.weights(), again.weights(), strict=True):
        np.testing.assert_array_equal(a.value, b.value)


# Packed files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("opset", [17, 20])
def test_packed_files_compute_what_dense_ones_do(tmp_path, cell, opset):
    rng = np.random.default_rng(2)
    graph = network(rng, cell, units=33, layers=2, density=0.15)
    plain = export_onnx(graph, tmp_path / "plain.onnx", form="scan" if CELLS[cell].vectors else "op", opset=opset)
    done = export_onnx(graph, tmp_path / "net.onnx", form="packed", opset=opset)
    assert done.form.endswith("+packed")
    assert done.bytes < plain.bytes
    assert done.bytes_dense > 0.9 * plain.bytes
    assert metadata(done.paths[0])["form"] == done.form
    for steps, batch in ((1, 1), (13, 3)):
        x = sequence(rng, steps, batch, 5)
        for a, b in zip(run_onnx(done.paths[0], x).values(), run_onnx(plain.paths[0], x).values(), strict=True):
            np.testing.assert_array_equal(a, b)
    got, want = stream_onnx(done.paths[1], x), interpret(graph, x).outputs
    np.testing.assert_allclose(got["y"], want["y"], rtol=0, atol=2e-5 * max(1, np.abs(want["y"]).max()))


def test_bytes_make_a_recurrent_matrix_nineteen_times_smaller(tmp_path):
    graph = recurrent_graph(CELLS["gru"], 16, 256, 0.1, seed=3)
    graph, _ = round_int8(graph)
    done = export_onnx(graph, tmp_path / "net.onnx", form="packed", step=False)
    code = encode(graph.recurrent[0].weight("hh"))
    assert code is not None
    assert 4 * 3 * 256 * 256 / code.nbytes > 18
    assert done.bytes < done.bytes_dense / 9  # biases and dense input weights are in the file too
    x = sequence(np.random.default_rng(4), 7, 2, 16)
    assert check_onnx(graph, done, x, tolerance=1e-6).ok
    assert any("smaller file, same speed" in n for n in done.notes)


@pytest.mark.parametrize("form", ["packed", "custom"])
@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn_tanh"])
def test_the_reference_evaluator_reads_them(tmp_path, cell, form):
    from onnx.reference import ReferenceEvaluator

    rng = np.random.default_rng(5)
    graph = network(rng, cell, units=24, density=0.2)
    if cell == "lstm":
        last = TimeReduce("c_n", ("rnn.l0.c",), how="last", feature_shape=(24,))
        graph = replace(graph, nodes=(*graph.nodes, last), outputs={**graph.outputs, "c_n": "c_n"})
    done = export_onnx(graph, tmp_path / "net.onnx", form=form)
    x = sequence(rng, 6, 1, 5)
    model = onnx.load(done.paths[0])
    onnx.checker.check_model(model, full_check=True)
    found = ReferenceEvaluator(model).run(None, {"x": x})
    close(dict(zip(graph.outputs, found, strict=True)), interpret(graph, x).outputs)


# Functions of our domain ---------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("cell", GATED)
def test_one_file_with_and_without_our_library(tmp_path, library, cell, opset, lengths):
    for seed, (units, bias, batch_first) in enumerate(((1, True, False), (17, False, True), (70, True, False))):
        rng = np.random.default_rng(seed)
        graph = network(
            rng, cell, units=units, layers=2, bidirectional=True, bias=bias, batch_first=batch_first, density=0.2
        )
        if cell == "lstm":
            last = TimeReduce("c_n", ("rnn.l1.c",), how="last", feature_shape=(units,))
            graph = replace(graph, nodes=(*graph.nodes, last), outputs={**graph.outputs, "c_n": "c_n"})
        done = export_onnx(graph, tmp_path / "net.onnx", form="custom", opset=opset, lengths=lengths)
        assert done.form.startswith("custom")
        for steps, batch in ((1, 1), (13, 3), (37, 9)):
            x = sequence(rng, steps, batch, 5, batch_first=batch_first)
            valid = rng.integers(0, steps + 1, batch) if lengths else None
            want = interpret(graph, x, lengths=valid).outputs
            close(run_onnx(done.paths[0], x, lengths=valid), want)
            close(run_onnx(done.paths[0], x, lengths=valid, library=library), want)


@needs_compiler
@pytest.mark.parametrize("maker", ["dense", "blocks", "empty", "rows"])
def test_every_layout_of_the_weights(tmp_path, library, maker):
    graph = recurrent_graph(CELLS["gru"], 32, 96, 1.0, seed=6)
    masks = {
        "dense": np.ones((288, 96), bool),
        "blocks": np.kron(np.random.default_rng(0).random((18, 96)) < 0.2, np.ones((16, 1), bool)),
        "empty": np.zeros((288, 96), bool),
        "rows": np.arange(288)[:, None] % 7 == np.zeros(96),
    }
    layer = graph.recurrent[0]
    graph = graph.replace_nodes(layer.with_params(hh=layer.params["hh"] * masks[maker]))
    done = export_onnx(graph, tmp_path / "net.onnx", form="custom")
    for batch in (1, 8):
        x = sequence(np.random.default_rng(7), 21, batch, 32)
        close(run_onnx(done.paths[0], x, library=library), interpret(graph, x).outputs, 2e-6)


@needs_compiler
def test_weights_that_are_no_constants_are_packed_at_each_call(tmp_path, library):
    import onnxruntime as ort

    graph = network(np.random.default_rng(8), "lstm", units=40, density=0.1)
    done = export_onnx(graph, tmp_path / "net.onnx", form="custom", step=False)
    options = ort.SessionOptions()
    options.register_custom_ops_library(str(library))
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(done.paths[0]), options, providers=["CPUExecutionProvider"])
    x = sequence(np.random.default_rng(9), 5, 2, 5)
    found = dict(zip(graph.outputs, session.run(None, {"x": x}), strict=True))
    close(found, interpret(graph, x).outputs)


@needs_compiler
def test_the_kernels_refuse_what_does_not_fit(tmp_path, library):
    graph = recurrent_graph(CELLS["gru"], 5, 7, 1.0)
    done = export_onnx(graph, tmp_path / "net.onnx", form="custom", step=False)
    model = onnx.load(done.paths[0])
    (node,) = [n for n in model.graph.node if n.domain == "sparsecirc"]
    next(a for a in node.attribute if a.name == "hidden_size").i = 9
    onnx.save(model, tmp_path / "wrong.onnx")
    with pytest.raises(FileFormatError, match=r"sparsecirc\.Gru: W must be \(1, gates \* hidden_size, features\)"):
        open_session(tmp_path / "wrong.onnx", library=library)
    del node.attribute[:]
    onnx.save(model, tmp_path / "wrong.onnx")
    with pytest.raises(FileFormatError, match="hidden_size"):
        open_session(tmp_path / "wrong.onnx", library=library)


@needs_compiler
def test_a_session_may_be_shared_by_threads(tmp_path, library):
    from concurrent.futures import ThreadPoolExecutor

    graph = network(np.random.default_rng(10), "gru", units=64, density=0.1)
    session = open_session(export_onnx(graph, tmp_path / "net.onnx", form="custom").paths[0], library=library)
    xs = [sequence(np.random.default_rng(k), 20 + k, 1 + k % 3, 5) for k in range(12)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: session.run(None, {"x": x}), xs))
    for x, outputs in zip(xs, found, strict=True):
        close(dict(zip(graph.outputs, outputs, strict=True)), interpret(graph, x).outputs)


# The library ---------------------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.slow
def test_processes_that_build_at_the_same_time_do_not_disturb_each_other(tmp_path):
    code = f"from sparsecirc.export.onnx import custom_ops; print(custom_ops(folder={str(tmp_path)!r}))"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    paths = {p.communicate()[0].strip() for p in running}
    assert len(paths) == 1
    assert [p.name for p in (tmp_path / "onnx").iterdir()] == [Path(paths.pop()).name]


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(MissingExtraError, match="C compiler"):
        custom_ops(folder=tmp_path)


@needs_compiler
def test_a_compiler_that_refuses_is_quoted(tmp_path):
    with pytest.raises(SparsecircError, match="failed with"):
        custom_ops(folder=tmp_path, flags=("-Werror=no-such-warning-anywhere", "-no-such-flag"))
    assert list((tmp_path / "onnx").iterdir()) == []


@needs_compiler
@pytest.mark.slow
def test_the_packer_under_sanitizers(tmp_path):
    kernels = kernel_sources()
    sources, common = parts(kernels)
    objects = []
    for source, own in [*sources, (Path(__file__).with_name("pack_check.c"), ())]:
        if source.name in ("pack.c", "pack_check.c") or source.parent.name == "src":
            objects.append(tmp_path / f"{source.stem}.o")
            flags = [
                "-std=c11",
                "-O1",
                "-g",
                "-fsanitize=address,undefined",
                "-fno-sanitize-recover=all",
                *common,
                *own,
            ]
            done = subprocess.run([COMPILER, *flags, "-c", source, "-o", objects[-1]], capture_output=True, text=True)
            if "sanitize" in done.stderr:
                pytest.skip("the compiler has no sanitizers")
            assert done.returncode == 0, done.stderr
    linked = [COMPILER, "-fsanitize=address,undefined", "-o", tmp_path / "check", *objects, "-lm"]
    if subprocess.run(linked, capture_output=True, check=False).returncode:
        pytest.skip("the libraries of the sanitizers are missing")
    done = subprocess.run([tmp_path / "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
