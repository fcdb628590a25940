"""ONNX files of other exporters become graphs: torch's, Keras' forms, ours; compared with ONNX Runtime and torch."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

onnx = pytest.importorskip("onnx", reason="needs the package onnx")
ort = pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")
sys.path.insert(0, str(Path(__file__).parents[1] / "export"))

from _onnx_graphs import network, sequence  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from sparsecirc import compile, prune, verify  # noqa: E402
from sparsecirc.cli import main  # noqa: E402
from sparsecirc.errors import FileFormatError  # noqa: E402
from sparsecirc.export.onnx import check_onnx, export_onnx, stream_onnx  # noqa: E402
from sparsecirc.frontends import from_onnx  # noqa: E402
from sparsecirc.ir import Conv, Embedding, Flatten, Graph, Input, Linear, interpret, load_graph, save_graph  # noqa: E402

FLOAT = TensorProto.FLOAT


class Classifier(nn.Module):
    def __init__(self, layer, how, **options):
        super().__init__()
        self.rnn = layer(5, 16, **options)
        self.first, self.how = options.get("batch_first", False), how
        self.fc = nn.Linear(32 if options.get("bidirectional") else 16, 3)

    def forward(self, x):
        out, h = self.rnn(x)
        h = h[0] if isinstance(h, tuple) else h
        if self.how == "last":
            return self.fc(out[:, -1] if self.first else out[-1])
        if self.how == "mean":
            return torch.log_softmax(self.fc(torch.relu(out.mean(1 if self.first else 0))), -1)
        if self.how == "h_n":
            return self.fc(torch.cat([h[-2], h[-1]], -1) if self.rnn.bidirectional else h[-1])
        return self.fc(out)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.rnn, self.fc = nn.Embedding(11, 5), nn.GRU(5, 16, 2, batch_first=True), nn.Linear(16, 11)

    def forward(self, index):
        return self.fc(torch.tanh(self.rnn(self.embed(index))[0]))


class Convolved(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.rnn = nn.Conv1d(5, 8, 3, padding=1), nn.LSTM(8, 16, batch_first=True)
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        y = torch.relu(self.conv(x.transpose(1, 2))).transpose(1, 2)
        return self.fc(self.rnn(y)[0][:, -1])


def exported(model, x, path, *, free=True):
    """A file of torch's exporter without onnxscript, its first two axes free."""
    axes = {"x": {0: "a", 1: "b"}} if free else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model.eval(), (x,), str(path), dynamo=False, input_names=["x"], dynamic_axes=axes)
    return path


def agrees(path, graph, x):
    """The graph against ONNX Runtime on the file; sizes of axes of length one may differ."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    want = session.run(None, {session.get_inputs()[0].name: x})
    got = list(interpret(graph, x).outputs.values())
    assert len(want) == len(got)
    for a, b in zip(want, got, strict=True):
        np.testing.assert_allclose(b.reshape(a.shape), a, rtol=0, atol=2e-5)


# Torch ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("how", ["seq", "last", "mean", "h_n"])
@pytest.mark.parametrize("layer", [nn.RNN, nn.GRU, nn.LSTM])
def test_layers_of_torch(tmp_path, layer, how, free):
    for options in ({}, {"batch_first": True, "num_layers": 2, "bidirectional": True}, {"bias": False}):
        torch.manual_seed(0)
        model, x = Classifier(layer, how, **options), torch.randn(6, 4, 5)
        graph = from_onnx(exported(model, x, tmp_path / "net.onnx", free=free))
        y = interpret(graph, x.numpy()).y
        np.testing.assert_allclose(y, model(x).detach().numpy(), rtol=0, atol=1e-5)
        if free:  # at a length and a batch that the exporter never saw
            longer = torch.randn(9, 2, 5)
            np.testing.assert_allclose(interpret(graph, longer.numpy()).y, model(longer).detach(), rtol=0, atol=1e-5)
        assert graph.meta["source"] == "onnx"
        assert graph.meta["producer"] == "pytorch"


@pytest.mark.parametrize("model", [Tagger, Convolved])
def test_front_ends_of_torch(tmp_path, model):
    torch.manual_seed(0)
    net = model()
    x = torch.randint(0, 11, (3, 8)) if model is Tagger else torch.randn(3, 8, 5)
    graph = from_onnx(exported(net, x, tmp_path / "net.onnx"))
    assert graph.batch_first
    np.testing.assert_allclose(interpret(graph, x.numpy()).y, net(x).detach(), rtol=0, atol=1e-5)


def test_networks_without_time(tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                        nn.Linear(64, 3), nn.Softmax(-1))  # fmt: skip
    x = torch.randn(4, 1, 8, 8)
    graph = from_onnx(exported(net, x, tmp_path / "net.onnx", free=False))
    np.testing.assert_allclose(interpret(graph, x.numpy()).y, net(x).detach(), rtol=0, atol=1e-5)


# Our own files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["op", "packed", "custom"])
@pytest.mark.parametrize("cell", ["rnn_tanh", "rnn_relu", "gru", "lstm"])
def test_what_we_write_is_read_again(tmp_path, cell, form):
    for seed, (both, batch_first, opset) in enumerate(((False, False, 17), (True, True, 20))):
        rng = np.random.default_rng(seed)
        graph = network(rng, cell, units=20, layers=2, bidirectional=both, batch_first=batch_first, density=0.3)
        if both:  # reductions over valid steps are spelled out in operators that are not read
            graph = replace(graph, outputs={k: v for k, v in graph.outputs.items() if k != "h_n"})
        done = export_onnx(graph, tmp_path / "net.onnx", form=form, opset=opset, lengths=both)
        again = from_onnx(done.paths[0])
        assert again.density == graph.density
        assert again.batch_first == batch_first
        assert [n.cell for n in again.recurrent] == [n.cell for n in graph.recurrent]
        assert any("valid steps" in note for note in again.meta.get("notes", ())) == both
        x = sequence(rng, 7, 3, 5, batch_first=batch_first)
        valid = [7, 0, 3] if both else None
        want, got = interpret(graph, x, lengths=valid).outputs, interpret(again, x, lengths=valid).outputs
        assert list(got) == list(want)
        for name, value in want.items():
            np.testing.assert_allclose(got[name], value, rtol=0, atol=1e-5 * max(1, np.abs(value).max()))


def test_images_at_every_step_are_read_again(tmp_path):
    rng = np.random.default_rng(1)
    conv = {"weight": rng.normal(0, 0.3, (4, 2, 3, 3)), "bias": rng.normal(0, 0.3, 4)}
    nodes = (
        Input("x", shape=(2, 6, 6)),
        Conv("conv", ("x",), conv, stride=(1, 1), padding=(1, 1), dilation=(1, 1)),
        Flatten("flat", ("conv",), axes=3),
        Linear("fc", ("flat",), {"weight": rng.normal(0, 0.1, (5, 144))}),
    )
    graph = Graph(nodes, {"y": "fc"})
    again = from_onnx(export_onnx(graph, tmp_path / "net.onnx").paths[0])
    x = sequence(rng, 3, 2, 2, 6, 6)
    np.testing.assert_allclose(interpret(again, x).y, interpret(graph, x).y, rtol=0, atol=1e-5)
    table = Graph((Input("i", shape=()), Embedding("e", ("i",), {"weight": rng.normal(size=(9, 40))})), {"y": "e"})
    again = from_onnx(export_onnx(table, tmp_path / "net.onnx", form="packed").paths[0])
    index = rng.integers(0, 9, (4, 2))
    np.testing.assert_allclose(interpret(again, index).y, interpret(table, index).y, rtol=0, atol=1e-6)


# Files built here ----------------------------------------------------------------------------------------------------


def gru_model(
    rng=None, *, units=6, nodes=(), constants=(), inputs=("X", "W", "R", "B"), outputs=("Y",), ends=None, **a
):
    """One GRU operator with constants of the right shapes."""
    rng = rng or np.random.default_rng(0)
    arrays = {
        "W": rng.normal(0, 0.5, (1, 3 * units, 4)),
        "R": rng.normal(0, 0.4, (1, 3 * units, units)),
        "B": rng.normal(0, 0.3, (1, 6 * units)),
    }
    stored = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in arrays.items()]
    attributes = {"hidden_size": units, "linear_before_reset": 1} | a
    layer = helper.make_node("GRU", list(inputs), list(outputs), name="gru", **attributes)
    given = [helper.make_tensor_value_info("X", FLOAT, ["T", "B", 4])]
    made = [helper.make_tensor_value_info(n, FLOAT, None) for n in (ends or [o for o in outputs if o])]
    graph = helper.make_graph([*nodes, layer], "g", given, made, [*stored, *constants])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def saved(model, path):
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_that_operators_compute_from_constants(tmp_path):
    """As tf2onnx writes Keras' layers: transposes, concatenations and casts of stored weights."""
    rng = np.random.default_rng(2)
    kernel, recurrent = rng.normal(0, 0.5, (4, 18)), rng.normal(0, 0.4, (6, 18)).astype(np.float16)
    nodes = [
        helper.make_node("Constant", [], ["kernel"], value=numpy_helper.from_array(kernel.astype(np.float32))),
        helper.make_node("Transpose", ["kernel"], ["kernel_t"], perm=[1, 0]),
        helper.make_node("Unsqueeze", ["kernel_t", "zero"], ["W1"]),
        helper.make_node("Cast", ["recurrent"], ["wide"], to=FLOAT),
        helper.make_node("Transpose", ["wide"], ["wide_t"]),
        helper.make_node("Reshape", ["wide_t", "shape"], ["R1"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([0], np.int64), "zero"),
        numpy_helper.from_array(np.array([1, 18, -1], np.int64), "shape"),
        numpy_helper.from_array(recurrent, "recurrent"),
    ]
    model = gru_model(rng, nodes=nodes, constants=constants, inputs=("X", "W1", "R1", "B"))
    graph = from_onnx(saved(model, tmp_path / "net.onnx"))
    agrees(tmp_path / "net.onnx", graph, sequence(rng, 7, 3, 4))


def test_a_constant_condition_and_a_function_are_entered(tmp_path):
    rng = np.random.default_rng(3)
    branch = {}
    for name, factor in (("then", 2.0), ("else", 3.0)):
        two = numpy_helper.from_array(np.array(factor, np.float32), f"{name}_two")
        out = helper.make_tensor_value_info(f"{name}_out", FLOAT, None)
        branch[name] = helper.make_graph(
            [helper.make_node("Mul", ["Y", f"{name}_two"], [f"{name}_out"])], name, [], [out], [two]
        )
    model = gru_model(rng, ends=["Z"])
    yes = numpy_helper.from_array(np.array(True), "yes")
    model.graph.initializer.append(yes)
    model.graph.node.append(
        helper.make_node("If", ["yes"], ["S"], then_branch=branch["then"], else_branch=branch["else"])
    )
    model.graph.node.append(helper.make_node("Twice", ["S"], ["Z"], domain="mine", by=1.0))
    add = helper.make_node("Add", ["a", "a"], ["b"])
    model.functions.append(
        helper.make_function("mine", "Twice", ["a"], ["b"], [add], [helper.make_opsetid("", 17)], ["by"])
    )
    model.opset_import.append(helper.make_opsetid("mine", 1))
    graph = from_onnx(saved(model, tmp_path / "net.onnx"))
    agrees(tmp_path / "net.onnx", graph, sequence(rng, 5, 2, 4))


def test_both_forms_of_the_reset(tmp_path):
    rng = np.random.default_rng(4)
    agrees(saved(gru_model(rng), tmp_path / "after.onnx"), from_onnx(tmp_path / "after.onnx"), sequence(rng, 6, 2, 4))
    before = gru_model(rng, linear_before_reset=0)
    graph = from_onnx(saved(before, tmp_path / "before.onnx"))
    agrees(tmp_path / "before.onnx", graph, sequence(rng, 6, 2, 4))
    save_graph(graph, tmp_path / "before.scg")
    graph = prune(load_graph(tmp_path / "before.scg"), 0.5)
    assert graph.density < 0.6
    x = sequence(rng, 9, 3, 4)
    program = compile(graph)
    assert verify(program, x).ok
    np.testing.assert_allclose(
        np.concatenate([program.run(x[:4]).y, program.run(x[4:], program.run(x[:4]).state).y]),
        program.run(x).y,
        atol=1e-6,
    )
    for lengths in (False, True):
        done = export_onnx(graph, tmp_path / "again.onnx", lengths=lengths, form="packed")
        assert check_onnx(graph, done, x, lengths=[9, 0, 4] if lengths else None).ok
    np.testing.assert_allclose(stream_onnx(done.paths[1], x)["Y"], interpret(graph, x).y, rtol=0, atol=1e-5)
    reverse = from_onnx(saved(gru_model(rng, linear_before_reset=0, direction="reverse"), tmp_path / "reverse.onnx"))
    agrees(tmp_path / "reverse.onnx", reverse, x)


def test_inputs_for_states_and_lengths_are_left_out(tmp_path):
    model = gru_model(inputs=("X", "W", "R", "B", "steps", "h0"), outputs=("Y", "Y_h"))
    model.graph.input.append(helper.make_tensor_value_info("steps", TensorProto.INT32, ["B"]))
    model.graph.input.append(helper.make_tensor_value_info("h0", FLOAT, [1, "B", 6]))
    graph = from_onnx(model)
    assert [n.name for n in graph.inputs] == ["X"]
    assert list(graph.outputs) == ["Y", "Y_h"]
    assert len(graph.meta["notes"]) == 4


def test_weights_in_a_file_beside_it(tmp_path):
    rng = np.random.default_rng(5)
    model = gru_model(rng)
    inside = from_onnx(model)
    onnx.save_model(model, tmp_path / "net.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    x = sequence(rng, 5, 2, 4)
    np.testing.assert_array_equal(interpret(from_onnx(tmp_path / "net.onnx"), x).y, interpret(inside, x).y)


def test_sparse_initializers_become_patterns(tmp_path):
    model = gru_model()
    dense = np.zeros((1, 18, 6), np.float32)
    dense[0, [3, 5, 17], [1, 2, 5]] = [1, 2, 3]
    values = numpy_helper.from_array(dense[dense != 0], "R")
    at = numpy_helper.from_array(np.flatnonzero(dense).astype(np.int64), "R_at")
    model.graph.initializer.remove(model.graph.initializer[1])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, at, list(dense.shape)))
    graph = from_onnx(model)
    assert graph.recurrent[0].patterns["hh"].nnz == 3


# The whole way -------------------------------------------------------------------------------------------------------


def test_pruned_compiled_and_exported_again(tmp_path):
    torch.manual_seed(0)
    path = exported(Classifier(nn.LSTM, "last"), torch.randn(6, 4, 5), tmp_path / "net.onnx")
    graph = prune(from_onnx(path), 0.5)
    x = torch.randn(11, 3, 5).numpy()
    assert verify(compile(graph), x).ok
    done = export_onnx(graph, tmp_path / "small.onnx", form="packed")
    assert check_onnx(graph, done, x).ok


def test_the_command_line_takes_an_onnx_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exported(Classifier(nn.GRU, "last"), torch.randn(6, 4, 5), tmp_path / "net.onnx")
    assert main(["prune", "net.onnx", "--sparsity", "0.8", "-o", "run", "--quiet"]) == 0
    assert main(["compile", "run", "--quiet"]) == 0
    assert main(["export", "run", "--format", "onnx", "--form", "custom", "-o", "again.onnx", "--quiet"]) == 0
    assert from_onnx("again.onnx").density < 0.5
    Path("broken.onnx").write_bytes(b"\x08\x07garbage")
    assert main(["inspect", "broken.onnx"]) == FileFormatError.exit_code
