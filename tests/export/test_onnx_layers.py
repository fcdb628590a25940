from __future__ import annotations

import builtins
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from _onnx_graphs import network, sequence

import sparsecirc
from sparsecirc.errors import FileFormatError, MissingExtraError, UnsupportedError, UsageError
from sparsecirc.ir import (
    Add,
    Affine,
    Concat,
    Conv,
    Elementwise,
    Embedding,
    Flatten,
    Graph,
    Input,
    Linear,
    Multiply,
    Node,
    Pool,
    Repeat,
    TimeReduce,
    interpret,
)

onnx = pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")

from sparsecirc.export.onnx import export_onnx, metadata, open_session, run_onnx, stream_onnx  # noqa: E402

TOLERANCE = 1e-5


def check(graph, tmp_path, *inputs, opset=17, step=True):
    """The main file and, where wanted, the step file against the interpreter, on several inputs."""
    done = export_onnx(graph, tmp_path / "net.onnx", opset=opset)
    assert (len(done.paths) == 2) is step, done.notes
    for x in inputs:
        want = interpret(graph, x).outputs
        got = run_onnx(done.paths[0], x)
        stepped = stream_onnx(done.paths[1], x, batch_first=graph.batch_first) if step else {}
        for name, value in want.items():
            assert got[name].shape == value.shape
            np.testing.assert_allclose(got[name], value, rtol=1e-6, atol=TOLERANCE, err_msg=name)
            if step:
                every = stepped[name]
                if not graph.specs[graph.outputs[name]].time:
                    every = every[:, -1] if graph.batch_first else every[-1]
                np.testing.assert_allclose(every, value, rtol=1e-6, atol=TOLERANCE, err_msg=name)
    return done


def inputs(rng, *features, batch_first=False):
    return [sequence(rng, t, b, *features, batch_first=batch_first) for t, b in ((1, 1), (6, 3), (9, 1))]


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("how", ["last", "first", "mean", "sum", "max"])
def test_time_reductions_follow_the_length(tmp_path, how, opset):
    rng = np.random.default_rng(0)
    for features in ((4,), (2, 3)):
        nodes = (Input("x", shape=features), TimeReduce("r", ("x",), how=how, feature_shape=features))
        check(Graph(nodes, {"y": "r"}), tmp_path, *inputs(rng, *features), opset=opset)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("fn", ["relu", "tanh", "sigmoid", "softmax", "log_softmax", "identity"])
def test_elementwise(tmp_path, fn, batch_first):
    rng = np.random.default_rng(1)
    graph = Graph((Input("x", shape=(4,)), Elementwise("f", ("x",), fn=fn)), {"y": "f"}, batch_first=batch_first)
    check(graph, tmp_path, *inputs(rng, 4, batch_first=batch_first))


def test_glue(tmp_path):
    rng = np.random.default_rng(2)
    nodes = (
        Input("x", shape=(2, 3)),
        Linear("fc", ("x",), {"weight": rng.normal(0, 0.5, (5, 3)), "bias": rng.normal(0, 0.5, 5)}),
        Affine("bn", ("fc",), {"scale": rng.normal(size=(2, 1)), "shift": rng.normal(size=5)}),
        Affine("gain", ("fc",), {"scale": rng.normal(size=(1,))}),
        Add("sum", ("fc", "bn", "gain")),
        Multiply("product", ("fc", "bn", "gain")),
        Concat("both", ("sum", "product", "x")),
        Flatten("flat", ("both",), axes=2),
        TimeReduce("mean", ("flat",), how="mean", feature_shape=(26,)),
        Linear("head", ("mean",), {"weight": rng.normal(size=(4, 26)), "bias": rng.normal(size=4)}),
        Elementwise("p", ("head",), fn="softmax"),
    )
    graph = Graph(nodes, {"p": "p", "flat": "flat", "same": "x"}, batch_first=True)
    check(graph, tmp_path, *inputs(rng, 2, 3, batch_first=True))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("spatial", [(9,), (7, 8)])
def test_convolution_and_pooling_inside_a_sequence(tmp_path, spatial, groups):
    rng = np.random.default_rng(3)
    n = len(spatial)
    weight = rng.normal(0, 0.4, (6, 4 // groups, *(3,) * n))
    conv = Conv(
        "conv", ("x",), {"weight": weight, "bias": rng.normal(size=6)},
        stride=(2, 1)[:n], padding=(1, 2)[:n], dilation=(1, 2)[:n], groups=groups,
    )  # fmt: skip
    nodes = (
        Input("x", shape=(4, *spatial)),
        conv,
        Pool("largest", ("conv",), how="max", kernel=(2,) * n, stride=(1,) * n),
        Pool("average", ("largest",), how="average", kernel=(2,) * n, stride=(2,) * n),
        Flatten("flat", ("average",), axes=n + 1),
    )
    graph = Graph(nodes, {"conv": "conv", "average": "average", "flat": "flat"}, batch_first=True)
    check(graph, tmp_path, *inputs(rng, 4, *spatial, batch_first=True))


def test_convolution_of_a_static_image(tmp_path):
    rng = np.random.default_rng(4)
    conv = {"weight": rng.normal(0, 0.4, (6, 2, 3, 3)), "bias": rng.normal(size=6)}
    nodes = (
        Input("x", shape=(2, 6, 6), time=False),
        Conv("conv", ("x",), conv, stride=(1, 1), padding=(1, 1), dilation=(1, 1)),
        Pool("pool", ("conv",)),
    )
    done = check(Graph(nodes, {"y": "pool"}), tmp_path, rng.normal(size=(3, 2, 6, 6)), step=False)
    assert done.form == "plain"
    assert any("no step file: the graph has no sequence" in note for note in done.notes)


def test_convolution_over_time(tmp_path):
    rng = np.random.default_rng(5)
    conv = Conv(
        "conv", ("x",), {"weight": rng.normal(size=(6, 4, 3))}, stride=(2,), padding=(1,), dilation=(1,), over_time=True
    )
    nodes = (Input("x", shape=(4,)), conv, TimeReduce("max", ("conv",), how="max", feature_shape=(6,)))
    graph = Graph(nodes, {"y": "conv", "max": "max"}, batch_first=True)
    done = check(graph, tmp_path, *inputs(rng, 4, batch_first=True), step=False)
    assert any("no step file: convolution 'conv' runs over time" in note for note in done.notes)
    dims = onnx.load(done.paths[0]).graph.output[0].type.tensor_type.shape.dim
    assert [d.dim_param for d in dims[:2]] == ["B", "T_conv"]


def test_embedding_takes_integers(tmp_path):
    rng = np.random.default_rng(6)
    nodes = (
        Input("tokens", shape=()),
        Embedding("emb", ("tokens",), {"weight": rng.normal(size=(11, 5))}),
        Linear("fc", ("emb",), {"weight": rng.normal(size=(3, 5))}),
    )
    graph = Graph(nodes, {"y": "fc", "tokens_seen": "tokens"}, batch_first=True)
    done = check(graph, tmp_path, rng.integers(0, 11, (2, 7)), rng.integers(0, 11, (1, 1)))
    assert open_session(done.paths[0]).get_inputs()[0].type == "tensor(int64)"


def test_several_inputs_by_name(tmp_path):
    rng = np.random.default_rng(7)
    graph = Graph((Input("a", shape=(3,)), Input("b", shape=(3,)), Add("s", ("a", "b"))), {"y": "s"})
    x = {"a": sequence(rng, 5, 2, 3), "b": sequence(rng, 5, 2, 3)}
    done = check(graph, tmp_path, x)
    with pytest.raises(UsageError, match=r"the file has 2 inputs: pass a dict with \['a', 'b'\]"):
        run_onnx(done.paths[0], x["a"])
    with pytest.raises(UsageError, match="input 'c' is unknown: the file takes a, b"):
        run_onnx(done.paths[0], {**x, "c": x["a"]})
    with pytest.raises(UsageError, match="input 'b' is missing"):
        run_onnx(done.paths[0], {"a": x["a"]})


def test_what_repeats_a_reduction_cannot_be_stepped(tmp_path):
    nodes = (
        Input("x", shape=(3,)),
        TimeReduce("code", ("x",), how="last", feature_shape=(3,)),
        Elementwise("squashed", ("code",), fn="tanh"),
        Repeat("shown", ("squashed",), steps=4),
    )
    done = check(Graph(nodes, {"y": "shown"}), tmp_path, *inputs(np.random.default_rng(8), 3), step=False)
    assert any("no step file: 'shown' repeats a value" in note for note in done.notes)


def test_time_and_batch_are_symbols(tmp_path):
    graph = network(np.random.default_rng(9), "gru", batch_first=True)
    done = export_onnx(graph, tmp_path / "net.onnx")
    model = onnx.load(done.paths[0])

    def dims(value):
        return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]

    assert dims(model.graph.input[0]) == ["B", "T", 5]
    assert [dims(o) for o in model.graph.output] == [["B", "T", 3], ["B", "T", 17], ["B", 17]]
    assert [dims(i) for i in onnx.load(done.paths[1]).graph.input] == [["B", 5], ["B", 17]]


def test_metadata_round_trip(tmp_path):
    graph = network(np.random.default_rng(10), "lif", density=0.3, batch_first=True)
    done = export_onnx(graph, tmp_path / "net.onnx")
    facts = metadata(done.paths[0])
    views = list(graph.weights())
    assert facts == {
        "version": sparsecirc.__version__,
        "form": "scan+packed",
        "cells": ["lif"],
        "lengths": None,
        "density": graph.density,
        "nnz": sum(v.pattern.nnz for v in views),
        "weights": sum(v.value.size for v in views),
        "dt": 1e-3,
        "batch_first": True,
        "states": {},
    }
    step = metadata(done.paths[1])
    assert step["form"] == "step"
    assert step["states"]["rnn.l0.mem"] == {"input": "rnn.l0.mem", "output": "rnn.l0.mem.next", "shape": [17]}


def test_export_prints_and_serialises(tmp_path):
    done = export_onnx(network(np.random.default_rng(11), "gru", density=0.5), tmp_path / "net")
    assert [p.name for p in done.paths] == ["net.onnx", "net_step.onnx"]
    data = json.loads(json.dumps(done.to_json()))
    assert data["bytes"] == done.paths[0].stat().st_size
    assert data["paths"] == [p.as_posix() for p in done.paths]
    text = str(done)
    assert "onnx (op)" in text
    assert f"{done.bytes:,}" in text
    assert "multiply the zeros" in text
    again = export_onnx(network(np.random.default_rng(11), "gru", density=0.5), tmp_path / "again", step=False)
    assert again.paths[0].read_bytes() == done.paths[0].read_bytes()
    assert len(again.paths) == 1
    full = export_onnx(network(np.random.default_rng(11), "gru"), tmp_path / "full")
    assert not any("multiply the zeros" in note for note in full.notes)


@dataclass(frozen=True)
class Odd(Node):
    kind: ClassVar[str] = "odd"

    def infer(self, inputs):
        return {"": inputs[0]}


def test_refusals_write_nothing(tmp_path):
    path = tmp_path / "net.onnx"
    graph = network(np.random.default_rng(12), "gru")
    with pytest.raises(UsageError, match="form 'fast' is unknown: expected one of auto, op, scan"):
        export_onnx(graph, path, form="fast")
    for opset in (16, 21):
        with pytest.raises(UsageError, match=rf"opset {opset} is not written: expected one of 17, 18, 19, 20"):
            export_onnx(graph, path, opset=opset)
    with pytest.raises(UnsupportedError, match=r"node 'o' of kind 'odd' has no ONNX counterpart.*build the graph from"):
        export_onnx(Graph((Input("x", shape=(2,)), Odd("o", ("x",))), {"y": "o"}), path)
    with pytest.raises(UsageError, match="output 'x' is called like an input"):
        export_onnx(Graph((Input("x", shape=(2,)), Elementwise("f", ("x",))), {"x": "f"}), path)
    assert list(tmp_path.iterdir()) == []


def test_output_may_be_called_like_a_node(tmp_path):
    rng = np.random.default_rng(13)
    nodes = (Input("x", shape=(3,)), Elementwise("f", ("x",), fn="tanh"), Elementwise("g", ("f",), fn="relu"))
    check(Graph(nodes, {"f": "g", "g": "f"}), tmp_path, *inputs(rng, 3))


def test_files_that_are_not_ours(tmp_path):
    missing, damaged, foreign = (tmp_path / n for n in ("missing.onnx", "damaged.onnx", "foreign.onnx"))
    damaged.write_bytes(b"not a protobuf at all")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(n, kind, [1]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    opset = helper.make_opsetid("", 17)
    foreign.write_bytes(helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString())
    for path in (missing, damaged):
        with pytest.raises(FileFormatError, match="cannot be read as ONNX"):
            metadata(path)
        with pytest.raises(FileFormatError, match="cannot be loaded by ONNX Runtime"):
            run_onnx(path, np.zeros(1))
    with pytest.raises(FileFormatError, match="sparsecirc did not write it"):
        metadata(foreign)
    np.testing.assert_array_equal(run_onnx(foreign, np.array([-1.0]))["y"], [0.0])


@pytest.mark.parametrize("shape", [(0, 2, 5), (3, 0, 5)])
def test_an_empty_input_is_refused_before_the_runtime_dies_of_it(tmp_path, shape):
    done = export_onnx(network(np.random.default_rng(14), "gru"), tmp_path / "net.onnx")
    with pytest.raises(UsageError, match="needs one or more steps and samples"):
        run_onnx(done.paths[0], np.zeros(shape))


def test_streaming_needs_a_step(tmp_path):
    done = export_onnx(network(np.random.default_rng(14), "gru"), tmp_path / "net.onnx")
    with pytest.raises(UsageError, match="a step file needs one or more time steps"):
        stream_onnx(done.paths[1], np.zeros((0, 2, 5)))


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_an_absent_package_is_named(tmp_path, monkeypatch, package):
    graph = network(np.random.default_rng(15), "gru")
    done = export_onnx(graph, tmp_path / "net.onnx")
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    use = {
        "onnx": lambda: export_onnx(graph, tmp_path / "more.onnx"),
        "onnxruntime": lambda: run_onnx(done.paths[0], np.zeros((1, 1, 5))),
    }
    message = rf"'{package}', which is not installed: pip install 'sparsecirc\[onnx\]'"
    with pytest.raises(MissingExtraError, match=message):
        use[package]()
    assert not (tmp_path / "more.onnx").exists()


def test_importing_the_exporter_imports_no_extra():
    code = (
        "import sys, sparsecirc.export.onnx; print([m for m in ('onnx', 'onnxruntime', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
