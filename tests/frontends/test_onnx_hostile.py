"""ONNX files that are damaged or mean harm: one clear line, no crash, no hang, nothing read elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx")
sys.path.insert(0, str(Path(__file__).parent))

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from test_onnx_import import gru_model, saved  # noqa: E402

from sparsecirc.errors import FileFormatError, SparsecircError, UnsupportedError  # noqa: E402
from sparsecirc.frontends import from_onnx  # noqa: E402

HUGE = numpy_helper.from_array(np.array([2**20, 2**20, 2**20], np.int64), "huge")


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs, outputs, name=f"my {kind}", **attributes)


def refused(model, what, kind=SparsecircError):
    started = time.monotonic()
    with pytest.raises(kind, match=what) as error:
        from_onnx(model)
    assert "\n" not in str(error.value)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x07", b"PK\x03\x04" * 50, bytes(1000)])
def test_other_files(tmp_path, content):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    refused(path, "cannot be read as ONNX|holds no ONNX graph", FileFormatError)
    refused(tmp_path / "absent.onnx", "is not a file", FileFormatError)


def test_every_cut_of_a_file(tmp_path):
    whole = gru_model().SerializeToString()
    for end in range(0, len(whole) - 1, 37):
        (tmp_path / "net.onnx").write_bytes(whole[:end])
        with pytest.raises(SparsecircError):
            from_onnx(tmp_path / "net.onnx")


def test_random_changes_of_bytes(tmp_path):
    """Any result will do but another exception."""
    whole = bytearray(gru_model(outputs=("Y", "Y_h")).SerializeToString())
    rng = np.random.default_rng(0)
    for _ in range(400):
        changed = bytearray(whole)
        for at in rng.integers(0, 400 if rng.random() < 0.5 else len(whole), rng.integers(1, 6)):
            changed[-at - 1 if rng.random() < 0.5 else at] = rng.integers(0, 256)
        (tmp_path / "net.onnx").write_bytes(bytes(changed))
        with contextlib.suppress(SparsecircError):
            from_onnx(tmp_path / "net.onnx")


def test_cycles_and_what_is_missing():
    model = gru_model(nodes=[node("Add", ["Y", "X"], ["Z"])], ends=["Z"])
    refused(model, "reads 'Y', which nothing before it gives: a missing initializer, or a cycle", FileFormatError)
    refused(gru_model(nodes=[node("Relu", ["a"], ["a"])]), "reads 'a', which nothing", FileFormatError)
    model = gru_model()
    del model.graph.initializer[:]
    refused(model, "reads 'W', which nothing", FileFormatError)
    refused(gru_model(nodes=[node("Relu", ["X"], ["W"])]), "gives 'W' twice", FileFormatError)
    refused(gru_model(ends=["nowhere"]), "output 'nowhere' of the ONNX file cannot be followed")


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes"),
    [
        ("ConstantOfShape", ["huge"], {}),
        ("Expand", ["W", "huge"], {}),
        ("Range", ["none", "many", "one"], {}),
        ("Gather", ["W", "rows"], {}),
    ],
)
def test_constants_that_would_fill_the_memory(kind, inputs, attributes):
    constants = [HUGE, *(numpy_helper.from_array(np.array(v, np.int64), k) for k, v in
                         (("none", 0), ("many", 2**60), ("one", 1)))]  # fmt: skip
    constants.append(numpy_helper.from_array(np.zeros(2**22, np.int64), "rows"))
    model = gru_model(nodes=[node(kind, inputs, ["big"], **attributes)], constants=constants)
    refused(model, "more than 268,435,456 entries")


def test_sums_of_many_small_constants_count_too():
    nodes, last = [], "seed"
    for k in range(40):  # doubles each time
        nodes.append(node("Concat", [last, last], [f"c{k}"], axis=0))
        last = f"c{k}"
    model = gru_model(nodes=nodes, constants=[numpy_helper.from_array(np.zeros(2**10, np.int8), "seed")])
    refused(model, "more than 268,435,456 entries")


def test_shapes_that_lie():
    for dims, what in (
        ([1, 18, 2**40], "more than|bytes"),
        ([1, -18, 4], "has the shape"),
        ([1, 18, 5], "bytes for the shape"),
    ):
        model = gru_model()
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend(dims)
        refused(model, what)
    model = gru_model()
    model.graph.initializer[0].data_type = 77
    refused(model, "unknown type 77")
    model.graph.initializer[0].CopyFrom(helper.make_tensor("W", TensorProto.STRING, [1], [b"x"]))
    refused(model, "expected numbers")
    refused(gru_model(hidden_size=9), "do not fit each other", FileFormatError)
    model = gru_model()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 2**31
    refused(model, "takes features")


def external(path, location, **facts):
    model = gru_model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **facts}.items():
        tensor.external_data.add(key=key, value=str(value))
    return saved(model, path)


def test_data_outside_the_folder_is_not_read(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(288))
    for location in ("../secret.bin", str(tmp_path / "secret.bin"), "", ".", "sub/../../secret.bin"):
        refused(external(folder / "net.onnx", location), "outside the folder of the model", FileFormatError)
    if hasattr(os, "symlink"):
        (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
        refused(external(folder / "net.onnx", "link.bin"), "outside the folder of the model", FileFormatError)
    refused(external(folder / "net.onnx", "absent.bin"), "no file in the folder", FileFormatError)
    (folder / "short.bin").write_bytes(bytes(100))
    refused(external(folder / "net.onnx", "short.bin"), "needs 288 bytes", FileFormatError)
    refused(external(folder / "net.onnx", "short.bin", offset=-5), "needs 288 bytes", FileFormatError)
    refused(external(folder / "net.onnx", "short.bin", offset="x"), "something else than numbers", FileFormatError)
    refused(onnx.load(folder / "net.onnx", load_external_data=False), "came without a folder", FileFormatError)


def with_functions(*functions, ends="Z", call="f0"):
    model = gru_model(ends=[ends])
    model.graph.node.append(helper.make_node(call, ["Y"], [ends], domain="evil"))
    for name, nodes in functions:
        model.functions.append(helper.make_function("evil", name, ["a"], ["b"], nodes, [helper.make_opsetid("", 17)]))
    return model


def test_functions_without_end():
    again = helper.make_node("f0", ["a"], ["b"], domain="evil")
    refused(with_functions(("f0", [again])), "more than 32 deep", UnsupportedError)
    levels = []
    for k in range(20):  # ten calls each: 10^20 nodes
        calls = []
        for i in range(10):
            given, made = "a" if i == 0 else f"t{i - 1}", "b" if i == 9 else f"t{i}"
            calls.append(helper.make_node(f"f{k + 1}", [given], [made], domain="evil"))
        levels.append((f"f{k}", calls))
    levels.append(("f20", [helper.make_node("Relu", ["a"], ["b"])]))
    model = with_functions(*levels)
    with pytest.raises(UnsupportedError, match="more than 20,000 nodes"):
        from_onnx(model)
    refused(with_functions(("f0", [helper.make_node("Relu", ["a"], ["c"])])), "does not give its output 'b'")
    refused(with_functions(call="unknown"), "of the domain 'evil', which this file does not explain")


def field(number, payload):
    """One length-delimited field of a protobuf message."""
    size, head = len(payload), bytearray()
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *head, size]) + payload


def test_branches_in_branches(tmp_path):
    graph = helper.make_graph([helper.make_node("Relu", ["Y"], ["o"])], "leaf", [], []).SerializeToString()
    for _ in range(5000):  # no parser may follow this to the end
        attribute = field(1, b"then_branch") + field(6, graph) + bytes([20 << 3 & 127 | 128, 1, 5])
        graph = field(1, field(1, b"yes") + field(2, b"o") + field(4, b"If") + field(5, attribute))
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x08\x08" + field(7, graph))
    refused(path, "cannot be read as ONNX", FileFormatError)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"clip": 3.0}, "clips its states"),
        ({"activations": ["Relu", "Tanh"]}, "has the activations"),
        ({"direction": "sideways"}, "has the direction 'sideways'"),
    ],
)
def test_options_that_no_layer_has(change, what):
    refused(gru_model(**change), what)


def test_uses_that_no_graph_has():
    ones = numpy_helper.from_array(np.ones((1, 3, 6), np.float32), "ones")
    refused(
        gru_model(inputs=("X", "W", "R", "B", "", "ones"), constants=[ones]), "starts from a state that is not zero"
    )
    refused(gru_model(inputs=("X", "X", "R", "B")), "are no constants")
    for kind in ("Det", "NoSuchOperator"):
        refused(gru_model(nodes=[node(kind, ["X"], ["L"])]), f"is a {kind}, which is not read")
    for kind in ("Loop", "Scan"):
        refused(gru_model(nodes=[node(kind, ["X"], ["L"])]), "has no body")
    model = gru_model()
    model.graph.input[0].type.tensor_type.shape.dim.add().dim_value = 3
    refused(model, "takes features|needs")
    del model.graph.input[0].type.tensor_type.shape.dim[:]
    refused(model, "expected batch and features")
