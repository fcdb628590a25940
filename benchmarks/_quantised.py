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

from benchmarks._gru_onnx import encode, rounded, write_gru
from sparsecirc._bench import CannotRun, Engine, Job
from sparsecirc._bench._onnx import onnxruntime_session
from sparsecirc.ir import Recurrent

Array = NDArray[Any]
Run = Callable[[], Sequence[Array]]


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
        models = [write_gru(layer, len(x), job.batch, int8=True, unrolled=way) for way in (False, True)]
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


def _lstm(layer: Recurrent) -> bytes:
    """Microsoft's DynamicQuantizeLSTM, which wants gates in the order i, o, f, g and also quantises the input."""
    from onnx import helper

    order = [0, 3, 1, 2]

    def gates(values: Array) -> Array:
        n = layer.units
        return np.concatenate([values[k * n : (k + 1) * n] for k in order])

    ih, ih_scale = rounded(gates(layer.weight("ih")))
    hh, hh_scale = rounded(gates(layer.weight("hh")))
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
    return encode([node], arrays, ["t", "b", ih.shape[0]], ["t", 1, "b", layer.units], 13)
