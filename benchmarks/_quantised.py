"""Dense int8 layers of other runtimes: what integer sparsity has to be compared with.

All multiply a state that is quantised again at every step by int8 weights with a scale per row. The input product stays
in float32, as in our integer programs, where the runtime allows it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._bench import CannotRun, Engine, Job
from sparsecirc._bench._onnx import onnxruntime_session
from sparsecirc.ir import Recurrent

Array = NDArray[Any]
Run = Callable[[], Sequence[Array]]
OPSET = [("", 17), ("com.microsoft", 1)]


def torch_int8(job: Job) -> Run:
    """torch's dynamically quantised GRU or LSTM; its input weights are int8 as well.

    Raises:
        CannotRun: this torch has no dynamic quantisation.
    """
    import torch

    (layer,) = job.graph.recurrent
    kind: Any = torch.nn.GRU if layer.cell.name == "gru" else torch.nn.LSTM
    module = kind(layer.params["ih"].shape[1], layer.units)
    with torch.no_grad():
        for role in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            value = layer.params[role] if role.startswith("bias") else layer.weight(role.removeprefix("weight_"))
            getattr(module, f"{role}_l0").copy_(torch.from_numpy(np.ascontiguousarray(value)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces that torchao will replace this; it has no GRU yet
            model: Any = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
                torch.nn.Sequential(module).eval(), {kind}, dtype=torch.qint8
            )
    except (AttributeError, RuntimeError) as error:
        raise CannotRun(f"torch has no dynamic quantisation here ({error})") from error
    tensor = torch.from_numpy(job.inputs["x"])

    def run() -> Sequence[Array]:
        with torch.inference_mode():
            return [model(tensor)[0].numpy()]

    return run


def onnxruntime_int8(job: Job) -> Run:
    """The fastest of ONNX Runtime's ways: its quantised LSTM, or its quantised product in a loop or unrolled over time.

    Raises:
        CannotRun: no way to write this cell.
    """
    (layer,), x = job.graph.recurrent, job.inputs["x"]
    if layer.cell.name == "lstm":
        models = [_lstm(layer)]
    elif layer.cell.name == "gru":
        models = [_gru(layer, len(x), unrolled=False), _gru(layer, len(x), unrolled=True)]
    else:
        raise CannotRun(f"no quantised form of '{layer.cell.name}' here")
    sessions = [onnxruntime_session(model, 1) for model in models]

    def seconds(session: Any) -> float:
        best = np.inf
        for _ in range(5):
            started = time.perf_counter()
            session.run(["y"], {"x": x})
            best = min(best, time.perf_counter() - started)
        return best

    fastest = min(sessions, key=seconds)
    return lambda: [fastest.run(["y"], {"x": x})[0].reshape(*x.shape[:2], -1)]


INT8_ENGINES = (
    Engine("torch_int8", True, "torch", torch_int8, "torch's dynamic quantisation"),
    Engine("onnxruntime_int8", True, "onnxruntime", onnxruntime_int8, "ONNX Runtime's dynamically quantised operators"),
)
"""Peers that multiply zeros in int8."""


def _rounded(weight: Array) -> tuple[Array, NDArray[np.float32]]:
    """Transposed int8 weights and a scale for each row of ``weight``."""
    scale = np.maximum(np.abs(weight).max(axis=1), 1e-30) / 127
    return np.ascontiguousarray(np.rint(weight / scale[:, None]).T.astype(np.int8)), scale.astype(np.float32)


def _lstm(layer: Recurrent) -> bytes:
    """Microsoft's DynamicQuantizeLSTM, which wants gates in the order i, o, f, g and also quantises the input."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    order = [0, 3, 1, 2]

    def gates(values: Array) -> Array:
        n = layer.units
        return np.concatenate([values[k * n : (k + 1) * n] for k in order])

    ih, ih_scale = _rounded(gates(layer.weight("ih")))
    hh, hh_scale = _rounded(gates(layer.weight("hh")))
    bias = np.concatenate([gates(layer.params["bias_ih"]), gates(layer.params["bias_hh"])]).astype(np.float32)
    zero = np.zeros((1, 4 * layer.units), np.int8)
    arrays = {
        "W": ih[None], "R": hh[None], "B": bias[None],
        "ws": ih_scale[None], "wz": zero, "rs": hh_scale[None], "rz": zero,
    }  # fmt: skip
    node = helper.make_node(
        "DynamicQuantizeLSTM",
        ["x", "W", "R", "B", "", "", "", "", "ws", "wz", "rs", "rz"],
        ["y"],
        domain="com.microsoft",
        hidden_size=layer.units,
    )
    shape_in, shape_out = ["t", "b", ih.shape[0]], ["t", 1, "b", layer.units]
    made = helper.make_graph(
        [node],
        "lstm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape_in)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape_out)],
        [numpy_helper.from_array(v, k) for k, v in arrays.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid(*o) for o in OPSET], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _gru(layer: Recurrent, steps: int, *, unrolled: bool) -> bytes:
    """torch's GRU over DynamicQuantizeMatMul, as a Scan over time or step after step."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    n, node = layer.units, helper.make_node
    hh, scale = _rounded(layer.weight("hh"))
    arrays: dict[str, Array] = {
        "W": np.ascontiguousarray(layer.weight("ih").T),
        "bias_ih": layer.params["bias_ih"],
        "R": hh, "scale": scale, "zero": np.zeros(3 * n, np.int8), "bias_hh": layer.params["bias_hh"],
        "sizes": np.array([2 * n, n], np.int64), "halves": np.array([n, n], np.int64),
    }  # fmt: skip

    def step(drive: str, before: str, after: str, tag: str) -> list[Any]:
        def name(*parts: str) -> list[str]:
            return [f"{part}{tag}" for part in parts]

        return [
            node(
                "DynamicQuantizeMatMul", [before, "R", "scale", "zero", "bias_hh"], name("rec"), domain="com.microsoft"
            ),
            node("Split", [drive, "sizes"], name("a_rz", "a_n"), axis=-1),
            node("Split", [*name("rec"), "sizes"], name("b_rz", "b_n"), axis=-1),
            node("Add", name("a_rz", "b_rz"), name("sum")),
            node("Sigmoid", name("sum"), name("rz")),
            node("Split", [*name("rz"), "halves"], name("r", "z"), axis=-1),
            node("Mul", name("r", "b_n"), name("reset")),
            node("Add", name("a_n", "reset"), name("new")),
            node("Tanh", name("new"), name("candidate")),
            node("Sub", [before, *name("candidate")], name("gap")),
            node("Mul", name("z", "gap"), name("kept")),
            node("Add", name("candidate", "kept"), [after]),
        ]

    nodes = [node("MatMul", ["x", "W"], ["xw"]), node("Add", ["xw", "bias_ih"], ["drives"])]
    arrays["start"] = np.zeros((1, n), np.float32)
    if unrolled:
        arrays["ones"] = np.ones(steps, np.int64)
        nodes.append(node("Split", ["drives", "ones"], [f"slice{t}" for t in range(steps)], axis=0))
        for t in range(steps):
            # Slices keep their axis of time, so that the last node can join them as they are.
            nodes += step(f"slice{t}", "start3" if t == 0 else f"h{t}", f"h{t + 1}", f"_{t}")
        arrays["start3"] = arrays.pop("start")[None]
        nodes.append(node("Concat", [f"h{t + 1}" for t in range(steps)], ["y"], axis=0))
    else:
        float3 = [helper.make_tensor_value_info(k, TensorProto.FLOAT, [1, s]) for k, s in (("h", n), ("drive", 3 * n))]
        ends = [helper.make_tensor_value_info(k, TensorProto.FLOAT, [1, n]) for k in ("next", "out")]
        body = helper.make_graph(
            [*step("drive", "h", "next", ""), node("Identity", ["next"], ["out"])], "step", float3, ends
        )
        nodes.append(node("Scan", ["start", "drives"], ["last", "y"], body=body, num_scan_inputs=1))
    made = helper.make_graph(
        nodes,
        "gru",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [steps, 1, layer.params["ih"].shape[1]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [steps, 1, n])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in arrays.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid(*o) for o in OPSET], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
