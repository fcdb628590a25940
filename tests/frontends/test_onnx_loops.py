"""Loops of other exporters become layers: Keras' files as it writes them, ONNX's own test cases, hand-made steps."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the package 'onnx' is not installed")
ort = pytest.importorskip("onnxruntime", reason="the package 'onnxruntime' is not installed")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import sparsecirc as sc  # noqa: E402
from sparsecirc.errors import UnsupportedError  # noqa: E402
from sparsecirc.export.onnx import run_onnx  # noqa: E402
from sparsecirc.frontends import from_onnx  # noqa: E402
from sparsecirc.ir import Conv, Recurrent, ResetFirstGru, interpret  # noqa: E402

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
KERAS = Path(__file__).with_name("keras_models.zip")


# ---- Keras ----------------------------------------------------------------------------------------------------------
def keras_models() -> list[str]:
    """Names in the archive that make_keras_models.py wrote."""
    with zipfile.ZipFile(KERAS) as archive:
        return [n.removesuffix(".onnx") for n in archive.namelist() if n.endswith(".onnx")]


def from_keras(name: str) -> tuple[Any, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A model, what it was asked, and what Keras answered."""
    with zipfile.ZipFile(KERAS) as archive:
        answers = np.load(io.BytesIO(archive.read("answers.npz")))
        return (
            onnx.load_model_from_string(archive.read(f"{name}.onnx")),
            answers["indices" if name.startswith("embedding") else "x"],
            answers[name],
        )


LAYERS = {
    "gru": [Recurrent], "gru_reset_first": [ResetFirstGru], "gru_stacked": [Recurrent] * 2,
    "gru_both_ways": [Recurrent] * 2, "gru_both_ways_sequence": [Recurrent] * 2, "lstm": [Recurrent],
    "lstm_both_ways": [Recurrent] * 2, "lstm_backwards": [Recurrent], "rnn_sequence": [Recurrent],
    "rnn_relu": [Recurrent], "conv_gru": [Conv, Recurrent], "conv_strided_lstm": [Conv, Recurrent],
    "dropout_norm_gru": [Recurrent], "embedding_lstm": [Recurrent] * 2, "embedding_gru": [Recurrent],
    "gru_pooled": [Recurrent], "gru_summed_ways": [Recurrent] * 2,
}  # fmt: skip


@pytest.mark.parametrize("name", keras_models())
def test_models_as_keras_writes_them(name: str, tmp_path: Path) -> None:
    model, x, answer = from_keras(name)
    if name == "gru_unrolled":  # no layer is left in it, only seven times its products
        with pytest.raises(UnsupportedError, match="parts an axis"):
            from_onnx(model)
        return
    graph = from_onnx(model)
    assert [type(n) for n in graph.nodes if isinstance(n, (Recurrent, ResetFirstGru, Conv))] == LAYERS[name]
    (got,) = interpret(graph, x).outputs.values()
    np.testing.assert_allclose(got, answer, atol=1e-6 * max(1.0, float(np.abs(answer).max())))

    rng = np.random.default_rng(1)
    indices = x.dtype == np.int32
    longer = rng.integers(0, 50, (3, 19), np.int32) if indices else rng.standard_normal((3, 19, 5)).astype(np.float32)
    assert any("counts those below" in n for n in graph.meta.get("notes", ())) == indices
    path = tmp_path / "keras.onnx"
    path.write_bytes(model.SerializeToString())
    (truth,) = ort.InferenceSession(str(path)).run(None, {"x": longer})
    np.testing.assert_allclose(next(iter(interpret(graph, longer).outputs.values())), truth, rtol=1e-5, atol=1e-5)

    pruned = sc.prune(graph, 0.5)
    again = sc.export_onnx(pruned, tmp_path / "pruned.onnx").paths[0]
    (want,) = interpret(pruned, longer).outputs.values()
    (back,) = run_onnx(again, longer.astype(np.int64) if indices else longer).values()
    np.testing.assert_allclose(back, want, rtol=1e-5, atol=1e-5)
    (compiled,) = sc.compile(pruned).run(longer).outputs.values()
    np.testing.assert_allclose(compiled, want, rtol=1e-5, atol=1e-5)


# ---- ONNX's own test cases of its recurrent operators ---------------------------------------------------------------
def node_cases() -> dict[str, Any]:
    from onnx.backend.test.case.node import collect_testcases

    kinds = {"GRU", "LSTM", "RNN"}
    return {c.name: c for c in collect_testcases(None) if kinds & {n.op_type for n in c.model.graph.node}}


@pytest.mark.filterwarnings("ignore")
def test_the_standards_own_vectors() -> None:
    compared = 0
    for name, case in node_cases().items():
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        (values, wanted) = case.data_sets[0]
        for given, value in list(zip(model.graph.input, values, strict=True))[1:]:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), given.name))
        del model.graph.input[1:]
        if "peepholes" in name:
            with pytest.raises(UnsupportedError, match="peepholes"):
                from_onnx(model)
            continue
        found = interpret(from_onnx(model), values[0]).outputs
        for out, truth in zip(model.graph.output, wanted, strict=True):
            parts = [v for k, v in found.items() if k == out.name or k.startswith(f"{out.name}.")]
            both = np.stack(parts, axis=1 if out.name == "Y" else 0)
            batch_first = any(a.name == "layout" and a.i for a in model.graph.node[0].attribute)
            if batch_first:  # (B, T, directions, N) and (B, directions, N)
                both = np.moveaxis(both, 1, 2) if out.name == "Y" else np.moveaxis(both, 0, 1)
            np.testing.assert_allclose(both.reshape(truth.shape), truth, atol=1e-6, err_msg=f"{name} {out.name}")
            compared += 1
    assert compared >= 20


# ---- steps made by hand ---------------------------------------------------------------------------------------------
T, B, X, N = 6, 3, 5, 4
RNG = np.random.default_rng(3)
WEIGHTS = {
    name: RNG.standard_normal(shape).astype(np.float32) * 0.6
    for name, shape in {
        "Wz": (X, N), "Uz": (N, N), "bz": (N,), "Wr": (X, N), "Ur": (N, N), "br": (N,), "Wn": (X, N), "Un": (N, N),
        "bn": (N,), "cn": (N,),
        "W4": (X, 4 * N), "U4": (N, 4 * N), "b4": (4 * N,), "W2": (X + N, 2 * N), "b2": (2 * N,),
        "one": (),
    }.items()
}  # fmt: skip
WEIGHTS["one"] = np.array(1.0, np.float32)

GATES = "z=Sigmoid(x@Wz+h@Uz+bz); r=Sigmoid(x@Wr+h@Ur+br); "
STEPS = {
    "rnn": (1, "h1=Tanh(x@Wz+h@Uz+bz)", Recurrent),
    "relu rnn": (1, "h1=Relu(bz+x@Wz+h@Uz)", Recurrent),
    "gru": (1, GATES + "q=h@Un+cn; n=Tanh(x@Wn+bn+r*q); k=one-z; h1=k*n+z*h", Recurrent),
    "gru, update the other way": (1, GATES + "q=h@Un+cn; n=Tanh(x@Wn+bn+q*r); k=one-z; h1=h*k+n*z", Recurrent),
    "gru, as a step towards": (1, GATES + "q=h@Un; n=Tanh(x@Wn+r*q+cn); d=h-n; e=z*d; h1=n+e", Recurrent),
    "gru, reset first": (1, GATES + "s=r*h; n=Tanh(x@Wn+s@Un+bn); k=one-z; h1=k*n+z*h", ResetFirstGru),
    "gru, joined input": (1, "y=Concat(x,h); a=y@W2+b2; g=Sigmoid(a); z,r=Split(g); q=h@Un+cn; n=Tanh(x@Wn+r*q); "
                             "k=one-z; h1=k*n+z*h", Recurrent),
    "lstm": (2, "a=x@W4+h@U4+b4; i,f,g,o=Split(a); p=Sigmoid(f); v=p*c; s=Sigmoid(i); t=Tanh(g); w=s*t; c1=v+w; "
                "y=Tanh(c1); m=Sigmoid(o); h1=m*y", Recurrent),
    "lstm, other order": (2, "a=h@U4+x@W4; d=a+b4; o,g,i,f=Split(d); p=Sigmoid(f); v=c*p; s=Sigmoid(i); t=Tanh(g); "
                             "w=t*s; c1=w+v; y=Tanh(c1); m=Sigmoid(o); h1=y*m", Recurrent),
}  # fmt: skip


class Writer:
    """Nodes from lines like ``h1=Tanh(x@Wz+h@Uz+bz)``: one level of calls, sums of products from the left."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.count = 0

    def emit(self, op: str, inputs: list[str], outputs: list[str] | None = None, **attributes: Any) -> str:
        self.count += 1
        made = outputs or [f"t{self.count}"]
        self.nodes.append(helper.make_node(op, inputs, made, name=f"n{self.count}", **attributes))
        return made[0]

    def term(self, text: str, out: list[str] | None = None) -> str:
        for sign, op in (("@", "MatMul"), ("*", "Mul")):
            if sign in text:
                return self.emit(op, text.split(sign), out)
        return text if out is None else self.emit("Identity", [text], out)

    def expression(self, text: str, out: list[str] | None = None) -> str:
        if "-" in text:
            return self.emit("Sub", text.split("-"), out)
        parts = text.split("+")
        total = self.term(parts[0], out if len(parts) == 1 else None)
        for k, p in enumerate(parts[1:], 1):
            total = self.emit("Add", [total, self.term(p)], out if k == len(parts) - 1 else None)
        return total

    def line(self, line: str) -> None:
        left, right = line.strip().split("=", 1)
        out = left.split(",")
        if "(" not in right:
            self.expression(right, out)
            return
        op, inner = right[:-1].split("(", 1)
        if op == "Split":
            self.emit(op, [inner], out, axis=-1, num_outputs=len(out))
        elif op == "Concat":
            self.emit(op, inner.split(","), out, axis=1)
        else:
            self.emit(op, [self.expression(inner)], out)


def step_model(text: str, states: int, *, form: str, reverse: bool = False, first: float = 0.0, **change: Any) -> Any:
    """The step inside a Scan or a Loop."""
    writer = Writer()
    for line in text.split(";"):
        writer.line(line)
    names = ["h", "c"][:states]
    vector = lambda n, *shape: helper.make_tensor_value_info(n, FLOAT, shape)  # noqa: E731
    constants = [numpy_helper.from_array(v, n) for n, v in WEIGHTS.items()]
    zeros = [numpy_helper.from_array(np.full((B, N), first, np.float32), f"{n}0") for n in names]
    inputs, outputs = [vector("x_all", T, B, X)], [vector("Y", T, B, N), *(vector(f"{n}T", B, N) for n in names)]
    nexts = [vector(f"{n}1", B, N) for n in names]
    if form == "Scan":
        writer.emit("Identity", ["h1"], ["y_out"])
        body = helper.make_graph(
            writer.nodes,
            "body",
            [*(vector(n, B, N) for n in names), vector("x", B, X)],
            [*nexts, vector("y_out", B, N)],
        )
        way = {"scan_input_directions": [1], "scan_output_directions": [1]} if reverse else {}
        node = helper.make_node(
            "Scan",
            [*(f"{n}0" for n in names), "x_all"],
            [*(f"{n}T" for n in names), "Y"],
            body=body,
            num_scan_inputs=1,
            **way,
        )
    else:
        front = [
            helper.make_node("Gather", ["x_all", "at"], ["x"], axis=0),
            helper.make_node("Add", ["at", "step"], ["at1"]),
            helper.make_node("Less", [change.get("compared", "at1"), "limit"], ["go_on"]),
        ]
        writer.emit("Identity", ["h1"], ["y_out"])
        scalar = lambda n, kind: helper.make_tensor_value_info(n, kind, [])  # noqa: E731
        body = helper.make_graph(
            [*front, *writer.nodes], "body",
            [scalar("it", INT64), scalar("cond", BOOL), scalar("at", INT64), *(vector(n, B, N) for n in names)],
            [scalar("go_on", BOOL), scalar("at1", INT64), *nexts, vector("y_out", B, N)],
        )  # fmt: skip
        constants += [
            numpy_helper.from_array(np.array(v), n)
            for n, v in {"at0": change.get("start", 0), "step": 1, "limit": change.get("limit", T)}.items()
        ]
        constants.append(numpy_helper.from_array(np.array(True), "yes"))
        node = helper.make_node(
            "Loop", ["", "yes", "at0", *(f"{n}0" for n in names)], ["atT", *(f"{n}T" for n in names), "Y"], body=body
        )
    graph = helper.make_graph([node], "steps", inputs, outputs, [*constants, *zeros])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.mark.parametrize("form", ["Scan", "backwards", "Loop"])
@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_recognised_however_it_is_written(name: str, form: str) -> None:
    states, text, kind = STEPS[name]
    model = step_model(text, states, form="Loop" if form == "Loop" else "Scan", reverse=form == "backwards")
    x = RNG.standard_normal((T, B, X)).astype(np.float32)
    truth = dict(
        zip(
            (o.name for o in model.graph.output),
            ort.InferenceSession(model.SerializeToString()).run(None, {"x_all": x}),
            strict=True,
        )
    )
    graph = from_onnx(model)
    assert [type(n) for n in graph.nodes if isinstance(n, (Recurrent, ResetFirstGru))] == [kind]
    got = interpret(graph, x).outputs
    assert got.keys() == truth.keys()
    for out, value in truth.items():
        np.testing.assert_allclose(got[out], value, atol=2e-6, err_msg=out)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "another cell": (
        "h1=Tanh(x@Wz+h@Uz*bz)".replace("*bz", ""),
        {"first": 0.5},
        "starts from a state that is not zero",
    ),
    "no cell": ("a=Tanh(x@Wz+h@Uz); h1=a*h", {}, "is no RNN, GRU or LSTM"),
    "a gate too few": ("z=Sigmoid(x@Wz+h@Uz); n=Tanh(x@Wn+h@Un); h1=z*n", {}, "is no RNN, GRU or LSTM"),
    "fewer steps": ("h1=Tanh(x@Wz+h@Uz)", {"form": "Loop", "limit": T - 2}, "does not run once for each step"),
    "one step late": (
        "h1=Tanh(x@Wz+h@Uz)",
        {"form": "Loop", "start": 1, "limit": T - 1},
        "another step",
    ),
    "an operator of no cell": ("h1=Softsign(x@Wz+h@Uz)", {}, "is no part of an RNN, GRU or LSTM"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_layer_is_refused(name: str) -> None:
    text, change, reason = REFUSED[name]
    model = step_model(text, 1, **({"form": "Scan"} | change))
    with pytest.raises(UnsupportedError, match=reason):
        from_onnx(model)


def turned(lengths: list[int]) -> Any:
    """A GRU over a sequence that ReverseSequence turned round for so many steps of each sample."""
    gates = {k: np.concatenate([WEIGHTS[f"{k}{g}"] for g in "zrn"], axis=1).T[None] for k in ("W", "U")}
    constants = [
        numpy_helper.from_array(gates["W"], "W"), numpy_helper.from_array(gates["U"], "R"),
        numpy_helper.from_array(np.array(lengths), "lengths"),
    ]  # fmt: skip
    nodes = [
        helper.make_node("ReverseSequence", ["x", "lengths"], ["back"], time_axis=0, batch_axis=1),
        helper.make_node("GRU", ["back", "W", "R"], ["Y", "Y_h"], hidden_size=N, linear_before_reset=1),
    ]
    outputs = [helper.make_tensor_value_info("Y_h", FLOAT, [1, B, N])]
    graph = helper.make_graph(
        nodes, "turned", [helper.make_tensor_value_info("x", FLOAT, [T, B, X])], outputs, constants
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_a_sequence_that_is_turned_round_is_read_backwards() -> None:
    x = RNG.standard_normal((T, B, X)).astype(np.float32)
    model = turned([T] * B)
    (truth,) = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    graph = from_onnx(model)
    assert graph.recurrent[0].reverse
    np.testing.assert_allclose(interpret(graph, x).outputs["Y_h"], truth[0], atol=1e-6)
    with pytest.raises(UnsupportedError, match="all steps of a sequence"):
        from_onnx(turned([T, T - 1, T]))
